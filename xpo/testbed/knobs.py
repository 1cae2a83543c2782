"""The knobs of the testbed's labeller and the text form they are written in."""

from dataclasses import dataclass, fields

MOST = 4
"""Completions the pool holds for a prompt."""


@dataclass(frozen=True)
class Knobs:
    """What may be wrong with the labels, and how many there are."""

    noise: float = 0.0
    """Share of judgments turned round after they were drawn: pairs swapped, labels flipped, lists reversed."""
    length_bias: float = 0.0
    """Added to what the labeller sees in a completion, per word; negative prefers short ones."""
    desirable: float = 0.5
    """Share of labels that say desirable, before noise."""
    list_size: int = MOST
    """Completions in a list, at most."""
    size: int | None = None
    """Prompts, at most; all of the split when not given."""
    seed: int = 0
    """Of the labeller's draws and the order of prompts. The completions themselves are fixed."""
    temperature: float = 0.5
    """Of the Bradley-Terry labeller, in units of reward; 0 always prefers the better completion."""

    def __post_init__(self) -> None:
        _check(0 <= self.noise <= 1, "noise", self.noise, "a share from 0 to 1")
        _check(abs(self.length_bias) <= 10, "length_bias", self.length_bias, "a number from -10 to 10")
        _check(0 < self.desirable < 1, "desirable", self.desirable, "a share above 0 and below 1")
        _check(2 <= self.list_size <= MOST, "list_size", self.list_size, f"a whole number from 2 to {MOST}")
        _check(self.size is None or self.size >= 1, "size", self.size, "a whole number from 1, or nothing for all")
        _check(0 <= self.temperature <= 100, "temperature", self.temperature, "a number from 0 to 100")


def _check(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise ValueError(f"testbed: {name} is {value}; it must be {allowed}")


_TYPES: dict[str, type[int] | type[float]] = {
    field.name: int if field.name in ("list_size", "size", "seed") else float for field in fields(Knobs)
}


def parse(spec: str) -> Knobs:
    """Knobs from text: ``testbed`` or ``testbed:noise=0.3,length_bias=0.1,size=500``."""
    name, _, rest = spec.partition(":")
    if name != "testbed":
        raise ValueError(f"testbed: {spec!r} does not start with 'testbed'")
    values: dict[str, int | float] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        knob, equals, value = (piece.strip() for piece in part.partition("="))
        if knob not in _TYPES:
            raise ValueError(f"testbed: unknown knob {knob!r}; the knobs are {', '.join(_TYPES)}")
        if not equals or knob in values:
            raise ValueError(f"testbed: write each knob once, as {knob}=VALUE")
        try:
            values[knob] = _TYPES[knob](value)
        except ValueError:
            what = "a whole number" if _TYPES[knob] is int else "a number"
            raise ValueError(f"testbed: {knob}={value} is not {what}") from None
    return Knobs(**values)  # type: ignore[arg-type]  # the types come from the fields themselves
