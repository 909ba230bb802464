"""Where nodes come from: each fleet answers the tasks of federation.tasks, and the server never learns which it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedtiny_export.errors import ConfigError

if TYPE_CHECKING:
    from fedtiny.federation.tasks import Fleet, Load, PutData

KINDS = ("native", "simulated", "wire")


def open_fleet(
    kind: str,
    names: Sequence[str],
    *,
    workers: int | None = None,
    device: str = "cpu",
    ram_bytes: int = 0,
    banks: Mapping[str, int] | None = None,
    file: str | None = None,
    stacked: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Fleet:
    """`kind`: native (the C core in process), simulated (torch on `device`) or wire (the nodes of a fleet file).

    Raises ConfigError for another kind.

    `ram_bytes`: a model whose plan takes more is refused before any node gets it; 0: any may come. `banks`: so is one
    that does not fit a board's pieces of RAM, bytes by name. `tell` hears what is made for emulated boards.
    """
    if kind == "native":
        from fedtiny.fleet.native import NativeFleet

        return NativeFleet(names, workers=workers, ram_bytes=ram_bytes, banks=banks)
    if kind == "simulated":
        from fedtiny.fleet.simulated import SimulatedFleet

        return SimulatedFleet(names, device=device, threads=workers, ram_bytes=ram_bytes, banks=banks, stacked=stacked)
    if kind == "wire":
        from fedtiny.fleet.emulated import prepare
        from fedtiny.fleet.roster import read_roster
        from fedtiny.fleet.wire import WireFleet

        roster = read_roster(_named(file))
        prepare(roster, names, tell)
        return WireFleet(roster, names, ram_bytes=ram_bytes, banks=banks)
    raise ConfigError(f"there is no fleet '{kind}': choose one of {', '.join(KINDS)}")


def node_names(kind: str, count: int | None, file: str | None) -> tuple[str, ...]:
    """Names of a fleet's nodes: `count` of them (of a fleet file's all, where it is None). Raises ConfigError."""
    if kind != "wire":
        return tuple(f"node-{number:02d}" for number in range(1, (count or 0) + 1))
    from fedtiny.fleet.roster import read_roster

    names = read_roster(_named(file)).nodes
    if count is not None and count > len(names):
        raise ConfigError(
            f"{count} nodes are to train, and {file} has {len(names)}. Add nodes to it, or ask for fewer: "
            f"--nodes {len(names)}"
        )
    return names[:count]


def file_settings(file: str) -> dict[str, object]:
    """What the table [settings] of a fleet file sets, by dotted key: it goes between a preset and what a user says.

    Raises ConfigError.
    """
    from fedtiny.fleet.roster import read_roster

    found = dict(_flat(read_roster(file).table.settings, ""))
    for key in ("fleet.kind", "fleet.file", "fleet.nodes"):
        if key in found:
            raise ConfigError(f"{file}: [settings] has {key}, and the fleet is this file's. Take it out.")
    return found


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def refuse_unfit_boards(file: str | None, shards: Mapping[str, PutData], load: Load, *, force: bool, how: str) -> None:
    """As fitting.refuse_unfit_boards, for the nodes of a fleet file."""
    from fedtiny.fleet import fitting
    from fedtiny.fleet.roster import read_roster

    fitting.refuse_unfit_boards(read_roster(_named(file)), shards, load, force=force, how=how)


def _named(file: str | None) -> str:
    if not file:
        raise ConfigError("fleet.kind is wire, and no fleet file is named: fedtiny run PRESET --fleet FLEET.toml")
    return file
