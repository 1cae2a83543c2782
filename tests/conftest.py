"""What all tests share: no network, no home directory, and packages made up on the spot."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest

# Before anything imports a Hugging Face library: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny tensors gain nothing from threads, and threads that wait for each other on a busy machine lose a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for variable in ("XPO_PLUGINS", "XPO_STRICT_PLUGINS", "XPO_DEBUG", "XPO_CACHE", "XPO_CACHE_LIMIT"):
    os.environ.pop(variable, None)

ROOT = Path(__file__).resolve().parent.parent
_NUMBERS = count()

#: ``package(name, {"module.py": source}, {"entry point": "module"})`` puts an installed package on the path.
MakePackage = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and configuration of the person who runs the tests stay out of them, and unharmed by them."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        yield


@pytest.fixture(autouse=True)
def _fresh_cache(_home: None) -> Iterator[None]:
    """What one test caches, no other one finds. Processes that it starts get the same folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XPO_CACHE", f"{os.environ['XDG_CACHE_HOME']}/xpo-{next(_NUMBERS)}")
        yield


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    """What a test installed, or hid, is gone with it."""
    yield
    if "xpo.plugins" in sys.modules:
        sys.modules["xpo.plugins"].load.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePackage]:
    """Make installed packages, files and a ``.dist-info``, that come first on the path here and in subprocesses."""
    from xpo.plugins import load

    before = set(sys.modules)
    site = tmp_path / "site-packages"

    def make(name: str, files: Mapping[str, str], points: Mapping[str, str], version: str = "1.0") -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "".join(f"{point} = {module}\n" for point, module in points.items())
        (info / "entry_points.txt").write_text(f"[xpo]\n{lines}")
        for path, content in files.items():
            (site / path).write_text(content)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
            monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
        importlib.invalidate_caches()
        load.cache_clear()
        return site

    yield make
    load.cache_clear()
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", None) or "").startswith(str(site)):
            del sys.modules[module]
