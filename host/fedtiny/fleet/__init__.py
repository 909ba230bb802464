"""Where nodes come from: each fleet answers the tasks of federation.tasks, and the server never learns which it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedtiny_export.errors import ConfigError

if TYPE_CHECKING:
    from fedtiny.federation.tasks import Fleet

KINDS = ("native", "simulated")


def open_fleet(
    kind: str,
    names: Sequence[str],
    *,
    workers: int | None = None,
    device: str = "cpu",
    ram_bytes: int = 0,
    banks: Mapping[str, int] | None = None,
) -> Fleet:
    """`kind`: native (the C core in process) or simulated (torch on `device`). Raises ConfigError for another kind.

    `ram_bytes`: a model whose plan takes more is refused before any node gets it; 0: any may come. `banks`: so is one
    that does not fit a board's pieces of RAM, bytes by name.
    """
    if kind == "native":
        from fedtiny.fleet.native import NativeFleet

        return NativeFleet(names, workers=workers, ram_bytes=ram_bytes, banks=banks)
    if kind == "simulated":
        from fedtiny.fleet.simulated import SimulatedFleet

        return SimulatedFleet(names, device=device, threads=workers, ram_bytes=ram_bytes, banks=banks)
    raise ConfigError(f"there is no fleet '{kind}': choose one of {', '.join(KINDS)}")
