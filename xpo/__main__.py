"""``python -m xpo`` is the ``xpo`` command."""

import sys

from xpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
