"""Find plugins, load them one at a time, settle what names mean, remember what failed and why.

A plugin is a module that a package names in its entry-point group ``xpo``; its hooks are those of
:mod:`xpo.api.hookspecs`. xpo's own algorithms come through the same group and have no other door.

``XPO_PLUGINS`` limits loading to the entry points or packages it lists (empty: xpo's own only);
``XPO_STRICT_PLUGINS=1`` turns any failure into an error.
"""

from xpo.plugins.loading import load
from xpo.plugins.registry import Entry, Failure, Registry, Supplier

__all__ = ["Entry", "Failure", "Registry", "Supplier", "load"]
