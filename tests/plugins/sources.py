"""Source of made-up plugins."""

from __future__ import annotations

HEAD = """
from dataclasses import dataclass

from xpo import Algorithm, Command, Config, Loss, Needs, Paper, Term, hookimpl, option
"""


def algorithm(
    name: str, *, body: str = "", cls: str = "Made", settings: str = "    scale: float = option(1.0, 'x')"
) -> str:
    """An algorithm; ``body`` is added to the class and may override anything in it."""
    return f"""
@dataclass
class {cls}Config(Config):
{settings}


class {cls}(Algorithm[{cls}Config]):
    name = "{name}"
    summary = "made up"
    paper = Paper("None", "https://example.org", 2024)
    equation = "L = 0"
    data = "pairs"
    Config = {cls}Config

    def loss(self, batch, policy, reference):
        return Loss([])
{body}
"""


def hook(returns: str, name: str = "xpo_algorithms") -> str:
    """A hook that returns an expression."""
    return f"""
@hookimpl
def {name}():
    return {returns}
"""


def plugin(name: str, **rest: str) -> str:
    """A whole module with one algorithm."""
    return HEAD + algorithm(name, **rest) + hook("[Made]")
