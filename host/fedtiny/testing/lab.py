"""The nodes of one test session: opened when a test first asks for them, closed with what they started at its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedtiny.federation.tasks import Fleet
from fedtiny.testing.nodes import Node, Nodes
from fedtiny_export.errors import ConfigError, LinkError, NothingThere

if TYPE_CHECKING:
    from fedtiny.fleet.roster import Roster

NATIVE = ("native-1", "native-2")
KINDS = {"process": "program", "pty": "terminal"}
"""Kinds of nodes that have another word than their link."""


class NoBoard(Exception):
    """Nothing is plugged in where the fleet file says that a node is."""


class Lab:
    """`file`: a fleet file, or None for nodes in this process. `only`: these of its nodes. Raises ConfigError."""

    def __init__(self, file: str | Path | None, only: Sequence[str] = ()) -> None:
        self._roster = _read(file) if file is not None else None
        names = NATIVE if self._roster is None else self._roster.nodes
        wrong = [name for name in only if name not in names]
        if wrong:
            raise ConfigError(f"there is no node {', '.join(wrong)} to test. There are: {', '.join(names)}.")
        self.names = tuple(name for name in names if name in only or not only)
        self._missing: dict[str, str] = {}  # why no board was found
        self._useless: dict[str, Exception] = {}  # what else is wrong with a node
        self._reached: set[str] = set()
        self._fleet: Fleet | None = None

    @property
    def tested(self) -> tuple[str, ...]:
        """The nodes that a test of one node runs on: all, but one of those in this process, for they are alike."""
        return self.names if self._roster else self.names[:1]

    def kind(self, name: str) -> str:
        """native, program, qemu, terminal, serial, tcp or mqtt."""
        if self._roster is None:
            return "native"
        word = self._roster.link_name(name).partition(":")[0]
        return KINDS.get(word, word)

    def is_hardware(self, name: str) -> bool:
        """Whether a real board is there: on a serial port, behind a broker, or at a socket of another computer."""
        if self._roster is None:
            return False
        kind, _, rest = self._roster.link_name(name).partition(":")
        return kind in ("serial", "mqtt") or (kind == "tcp" and rest.rpartition(":")[0] not in _HERE)

    def node(self, name: str) -> Node:
        """That node, which answers. Raises NoBoard, and FedtinyError for a board that is there and of no use."""
        fleet = self._opened()
        self._reach([name])
        return Node(fleet, name)

    def nodes(self) -> Nodes:
        """All nodes. Raises as `node` does for the first that is not to be had."""
        from fedtiny.fleet import file_settings

        fleet = self._opened()
        self._reach(self.names)
        return Nodes(fleet, file_settings(str(self._roster.path)) if self._roster else {})

    def close(self) -> None:
        if self._fleet is not None:
            self._fleet.close()

    def _opened(self) -> Fleet:
        from fedtiny.fleet.emulated import prepare
        from fedtiny.fleet.native import NativeFleet
        from fedtiny.fleet.wire import WireFleet

        if self._fleet is None and self._roster is None:
            self._fleet = NativeFleet(self.names)
        elif self._fleet is None:
            assert self._roster is not None
            prepare(self._roster, self.names)
            able = [name for name in self.names if self._has_key(name)]
            self._fleet = WireFleet(self._roster, able)
        assert self._fleet is not None
        return self._fleet

    def _has_key(self, name: str) -> bool:
        """Whether it can be talked to; a program on this computer that has no key is given one."""
        from fedtiny.fleet.manage import enrol

        assert self._roster is not None
        try:
            self._roster.identity(name)
            return True
        except ConfigError as problem:
            try:
                if self._roster.link_name(name).startswith("process:"):
                    enrol(self._roster, [name], patience_s=self._roster.table.patience_s)
                    return True
                asyncio.run(self._look(name))
                self._useless[name] = problem
            except NothingThere as nothing:
                self._missing[name] = str(nothing)
            except (LinkError, ConfigError) as other:
                self._useless[name] = other
        return False

    async def _look(self, name: str) -> None:
        """Raises NothingThere where no board is that could be given a key."""
        assert self._roster is not None
        if not self._roster.link_name(name).startswith("mqtt:"):
            line = await self._roster.link(name).open(_Deaf())
            await line.close()

    def _reach(self, names: Iterable[str]) -> None:
        from fedtiny.fleet.wire import WireFleet

        wanted = [n for n in names if n not in self._reached and n not in self._missing and n not in self._useless]
        if isinstance(self._fleet, WireFleet) and wanted:
            for name, answer in self._fleet.hellos(wanted).items():
                if isinstance(answer, NothingThere):
                    self._missing[name] = str(answer)
                elif isinstance(answer, LinkError):
                    raise answer  # it may be there the next time
                else:
                    self._reached.add(name)
        for name in names:
            if name in self._missing:
                raise NoBoard(f"{name}: {self._missing[name]}")
            if name in self._useless:
                raise self._useless[name]


def _read(file: str | Path) -> Roster:
    from fedtiny.fleet.roster import read_roster

    return read_roster(file)


class _Deaf:
    """Takes what comes while it is looked whether there is a board."""

    def data_received(self, data: bytes) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def went_away(self, problem: str) -> None:
        pass

    def came_back(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        pass


_HERE = ("localhost", "127.0.0.1", "[::1]", "::1")


def counted(boards: Iterable[tuple[str, str]], skipped: int) -> str:
    """The line at the end of a session. `boards`: names of nodes that tests ran on, each with its kind."""
    kinds = Counter(kind for _, kind in sorted(set(boards)))
    kinds.setdefault("serial", 0)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"boards: {found}" + (f", {skipped} test{'s' * (skipped != 1)} skipped: no board" if skipped else "")
