"""A suite of rows: stable names, goals, peers, and how rows are taken; what they measure is not known here."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtiny_export.errors import ConfigError, FedtinyError

Config = dict[str, Any]
Say = Callable[[str], None]
Take = Callable[[], tuple[float, Config]]


def silent(_: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure; `value` is None where it could not be taken, and `missing` then says what to do."""

    name: str
    value: float | None
    unit: str
    config: Config = field(default_factory=dict)
    missing: str | None = None

    def as_json(self) -> Config:
        row: Config = {"name": self.name, "value": self.value, "unit": self.unit, "config": self.config}
        return row if self.missing is None else row | {"missing": self.missing}


@dataclass(frozen=True)
class Goal:
    """What a row should reach: at most `value`, or at least."""

    value: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.value if self.at_least else value <= self.value


@dataclass(frozen=True)
class Peer:
    """What somebody else takes for the same work; `row`: the row that it stands beside."""

    row: str
    who: str
    value: float
    unit: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Suite:
    """`prepare` gives name, unit and measurement of the rows that are wanted, before the first of them is taken.

    `beside`: rows without a goal that stand in the first table. `notes`: lines below the tables.
    """

    names: Callable[[], Iterable[str]]
    prepare: Callable[[Sequence[str], Path, Say], Iterable[tuple[str, str, Take]]]
    goals: Mapping[str, Goal]
    example: str
    beside: tuple[str, ...] = ()
    peers: tuple[Peer, ...] = ()
    notes: tuple[str, ...] = ()

    def peers_of(self, row: str) -> list[Peer]:
        return [peer for peer in self.peers if peer.row == row]

    def chosen(self, only: str | None) -> list[str]:
        """Rows whose name matches the regular expression. Raises ConfigError where none does."""
        every = list(self.names())
        if only is None:
            return every
        try:
            pattern = re.compile(only)
        except re.error as error:
            raise ConfigError(f"--only {only}: {error}. Give a regular expression, such as '{self.example}'.") from None
        some = [name for name in every if pattern.search(name)]
        if not some:
            raise ConfigError(f"no row matches --only {only}. Rows: {', '.join(every[:12])}, …")
        return some

    def measure(self, only: str | None = None, say: Say = silent) -> Iterator[Row]:
        """Takes the rows, one by one. A row whose tools are missing says which command installs them."""
        some = self.chosen(only)
        with tempfile.TemporaryDirectory() as folder:
            for name, unit, take in self.prepare(some, Path(folder), say):
                yield _taken(name, unit, take)


def _taken(name: str, unit: str, take: Take) -> Row:
    try:
        value, config = take()
    except FedtinyError as error:
        return Row(name=name, value=None, unit=unit, missing=str(error))
    return Row(name=name, value=value, unit=unit, config=config)
