"""A study file: which methods, densities, data sets, alphas and seeds; every combination is a cell (docs/study.md)."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtiny.config import Config, keys, load_config, method_of
from fedtiny_export.errors import ConfigError

KEYS = ("title", "base", "settings", "data", "methods", "densities", "alphas", "seeds", "axes", "reference")
_LISTS = ("densities", "alphas", "seeds")
_NOT_OF_A_RESULT = ("name", "title", "data.data_dir", "fleet.workers", "fleet.device")
"""Settings that decide where and how fast a cell runs, and not what comes of it."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study. `alpha`: None where the split knows none; `density`: 1 for methods that prune nothing.

    `axes`: the other settings that the study varies, with their values. `key`: a name that its settings alone decide.
    """

    key: str
    data: str
    method: str
    density: float
    alpha: float | None
    seed: int
    axes: Mapping[str, Any]
    config: Config

    @property
    def words(self) -> str:
        parts = [self.data, self.method, f"density {self.density:g}"]
        parts += [f"alpha {self.alpha:g}"] if self.alpha is not None else []
        parts += [f"{key.rpartition('.')[2]} {value}" for key, value in self.axes.items()]
        return ", ".join([*parts, f"seed {self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Study:
    """`reference`: the method, by its label, that the others are compared with."""

    name: str
    title: str
    text: str
    reference: str
    cells: tuple[Cell, ...]


def read_study(path: str | Path) -> Study:
    """A study from its file. Raises ConfigError for what is no key, setting, preset or method."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Name a study's .toml file (docs/study.md).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend that line.") from None
    for key in table:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1, 0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{path}: unknown key {key}.{hint} Keys of a study: {', '.join(KEYS)}.")
    methods = [_labelled(entry, "method", path) for entry in _listed(table, "methods", path)]
    if not methods:
        raise ConfigError(f'{path} names no methods. Give some, for example methods = ["fedavg", "fedtiny"].')
    _unique([label for label, _ in methods], "methods", path)
    reference = str(table.get("reference", methods[-1][0]))
    if reference not in [label for label, _ in methods]:
        raise ConfigError(
            f"{path}: reference = {reference!r} is no method of it. Its methods: {', '.join(m for m, _ in methods)}."
        )
    cells = {cell.key: cell for cell in _cells(table, methods, path)}  # a method that knows no density is one cell
    return Study(
        name=path.stem, title=str(table.get("title", path.stem)), text=text, reference=reference,
        cells=tuple(cells.values()),
    )  # fmt: skip


def _cells(table: Mapping[str, Any], methods: Sequence[tuple[str, dict[str, Any]]], path: Path) -> Iterator[Cell]:
    base = str(table.get("base", "fashion-mini"))
    common = flat(_table(table, "settings", path))
    data = [_labelled(entry, "base", path) for entry in table.get("data", [base])]
    _unique([label for label, _ in data], "data", path)
    axes = flat(_table(table, "axes", path))
    for axis, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: axes.{axis} = {values!r}: give a list of values.")
    for (place, where), (label, how) in itertools.product(data, methods):
        lists = {key: _listed(where if key in where else table, key, path) for key in _LISTS}
        source = str(where.get("base", base))
        source = str(path.parent / source) if source.endswith(".toml") else source
        wanted = {key: value for key, value in where.items() if key not in ("base", *_LISTS)}
        wanted |= {("pruning.method" if key == "method" else key): value for key, value in how.items()}
        every = [lists["seeds"] or [0], lists["densities"] or [None], lists["alphas"] or [None], *axes.values()]
        for seed, density, alpha, *values in itertools.product(*every):
            more = {"seed": seed, "pruning.density": density, "data.alpha": alpha} | dict(
                zip(axes, values, strict=True)
            )
            given = {key: value for key, value in more.items() if value is not None}
            config = load_config(source, common | given | wanted)
            yield _cell(config, place, label, dict(zip(axes, values, strict=True)))


def _cell(config: Config, data: str, method: str, axes: dict[str, Any]) -> Cell:
    density = method_of(config).density
    known = config.model_dump()
    if density == 1.0:
        known["pruning"] = {"method": config.pruning.method}
    if config.data.split != "dirichlet":
        known["data"].pop("alpha")
    for key in _NOT_OF_A_RESULT:
        section, _, name = key.rpartition(".")
        (known[section] if section else known).pop(name, None)
    own = _file_of(config.pruning.method)
    text = json.dumps([known, own, data, method], sort_keys=True)
    return Cell(
        key=hashlib.sha256(text.encode()).hexdigest()[:16],
        data=data,
        method=method,
        density=density,
        alpha=config.data.alpha if config.data.split == "dirichlet" else None,
        seed=config.seed,
        axes={key: value for key, value in axes.items() if density != 1.0 or not key.startswith("pruning.")},
        config=config,
    )


def _file_of(method: str) -> str:
    """What a user's own method says: another text is another method."""
    return Path(method.rpartition(":")[0]).expanduser().read_text("utf-8") if ".py:" in method else ""


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys, as far as a setting is not itself a table."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in keys():
            result |= flat(value, f"{name}.")
        else:
            result[name] = value
    return result


def _labelled(entry: Any, name: str, path: Path) -> tuple[str, dict[str, Any]]:
    """An entry of `methods` or `data`: a name, or a table with that name, settings and perhaps a label."""
    table = {name: entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not isinstance(table.get(name), str):
        raise ConfigError(f"{path}: {entry!r} names no {name}. Write a name, or a table {{{name} = ..., label = ...}}.")
    settings = flat({key: value for key, value in table.items() if key != "label"})
    return str(table.get("label", table[name].rpartition(":")[2])), settings


def _listed(table: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = table.get(key, [])
    if not isinstance(found, list):
        raise ConfigError(f"{path}: {key} = {found!r} is no list. Write {key} = [{found!r}].")
    return found


def _table(table: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {key} = {found!r} is no table. Write [{key}] and its keys below it.")
    return found


def _unique(labels: Sequence[str], what: str, path: Path) -> None:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"{path}: {what} has {', '.join(twice)} twice. Give one of them another label.")
