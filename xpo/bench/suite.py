"""The suite: which cells there are, under which common conditions, checked before anything starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpo.bench.cell import Cell
from xpo.bench.conditions import check_budget, conditions
from xpo.bench.evaluators import choose
from xpo.bench.grid import check_grids, grid_of
from xpo.bench.options import BenchOptions
from xpo.bench.reading import Told
from xpo.bench.settings import cell_settings, check, common_settings
from xpo.bench.unknown import what_was_meant
from xpo.errors import PluginError, SettingError, did_you_mean
from xpo.plugins import Registry
from xpo.train.flags import online
from xpo.train.settings import embedded
from xpo.train.vocabulary import Vocabulary, read_value


@dataclass(frozen=True)
class Suite:
    """Cells and what they have in common.

    Attributes:
        options: how it is run.
        methods: what the suite calls each -> the method itself.
        cells: by method, setting and seed, in the order they run: the first seed of all comes first.
        shared: what must stay the same for cells to be comparable, by name.
        validation: whether settings are chosen, and prompts kept apart for that.
        notes: what a reader should know.
    """

    options: BenchOptions
    methods: Mapping[str, str]
    cells: Sequence[Cell]
    shared: Mapping[str, Any]
    validation: bool
    notes: Sequence[str] = ()

    @property
    def embedded(self) -> bool:
        """Whether the data is that of the testbed."""
        return embedded(self.shared["dataset_name"])


def plan(told: Told, registry: Registry) -> Suite:
    """The suite that was asked for; every setting of every cell has been checked.

    Raises:
        SettingError, PluginError: something cannot be honoured.
    """
    options = told.options
    if not options.algos:
        some = ",".join(_comparable(registry)[:3]) or "A,B"
        raise SettingError(f"name the methods to compare with --algos, by comma: --algos {some}")
    if not options.seeds:
        raise SettingError("--seeds is empty; give at least one")
    methods = dict(_methods(told, registry))
    samples = {name: online([*told.common, *told.own.get(name, [])]) for name in methods}
    words = {name: Vocabulary(registry.algorithm(algo).cls, registry, samples[name]) for name, algo in methods.items()}
    for given in told.common:
        if message := what_was_meant(given, words):
            raise SettingError(message)
    common = common_settings(told, words)
    check_grids(options.grid, words, told.known)
    cells, notes = [], []
    for method, algo in methods.items():
        grid = grid_of(method, options.grid, words)
        if options.grid and not grid:
            notes.append(f"{method} has none of the settings that are tried; it runs with its own")
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            settings = cell_settings(method, told, point, words[method], options)
            check(method, algo, settings, options)
            point = {name: settings[words[method].resolve(name)] for name in sorted(point)}
            cells += [Cell(method, algo, point, settings, seed) for seed in options.seeds]
    _distinct(cells)
    cells.sort(key=lambda cell: options.seeds.index(cell.seed))  # stable: a table is there after the first seed
    validation = any(cell.point for cell in cells) and len({(c.method, c.setting) for c in cells}) > len(methods)
    shared = conditions(common, options, validation)
    check_budget(shared, cells)
    choose(options.evaluators or [], registry)
    return Suite(options, methods, cells, shared, validation, notes)


def _comparable(registry: Registry) -> list[str]:
    """The methods that are installed and train a policy by what is preferred."""
    found = {name: registry.algorithms[name].cls for name in registry.listed("algorithm")}
    return [name for name, cls in found.items() if cls.model == "policy" and cls.data != "forget"]


def _methods(told: Told, registry: Registry) -> Iterator[tuple[str, str]]:
    known = registry.listed("algorithm")
    plain: dict[type, str] = {}
    for name in told.options.algos:
        chosen = [str(read_value(given, str)) for given in told.own.get(name, []) if given.name == "algo"]
        algo = chosen[-1] if chosen else name
        try:
            cls = registry.algorithm(algo).cls
        except PluginError as error:
            if chosen or name not in told.own:
                raise
            say = f"if the name is one of yours, say what it is: methods: {{{name}: {{algo: ...}}}}"
            raise PluginError(f"{error} Or, {say}") from None
        if cls.model != "policy":
            raise SettingError(f"--algos: {name} trains a {cls.model} model; xpo bench compares policies")
        if cls.data == "forget":
            raise SettingError(
                f"--algos: {name} learns to forget, and not from what is preferred; it cannot be compared with others"
            )
        if not chosen and plain.setdefault(cls, name) != name:
            raise SettingError(f"--algos names one method twice: {plain[cls]} and {name}")
        yield name, algo
    for name in told.own:
        if name not in told.known:
            hint = did_you_mean(name, [*told.options.algos, *known])
            raise SettingError(f"there are settings for '{name}', which is not among --algos.{hint}")


def _distinct(cells: Sequence[Cell]) -> None:
    """Refuse values to try that differ as they were written and not as they were read: 0.1 and "0.1"."""
    seen = set()
    for cell in cells:
        if str(cell) in seen:
            raise SettingError(f"--grid: {cell.method} is to try {cell.setting} twice; name each value once")
        seen.add(str(cell))
