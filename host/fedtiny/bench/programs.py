"""The C programs of `bench wire`: a node on standard input and output, and very many behind a broker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedtiny import emulation
from fedtiny.boards import load_board, root

HERE = Path(__file__).parent
PAYLOAD = 4096  # of nodes behind a broker, where a message costs the same whatever its size


def node_command(folder: Path) -> Sequence[str]:
    raise NotImplementedError


def swarm(folder: Path) -> Path:
    """Compiles swarm.c with the wire for this computer."""
    sources = [HERE / "swarm.c", *sorted((root() / "firmware/src/wire").glob("*.c"))]
    flags = ["-D_GNU_SOURCE", f"-DFT_WIRE_PAYLOAD={PAYLOAD}"]
    return emulation.build(load_board("native"), sources, out=folder / "swarm", flags=flags)
