"""The programs that `bench wire` talks to: a node on standard input and output, and very many behind a broker."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from fedtiny import emulation
from fedtiny.boards import load_board
from fedtiny_export.errors import ConfigError

HERE = Path(__file__).parent
PAYLOAD = 4096  # of nodes behind a broker, where a message costs the same whatever its size


def node_command(record: Path, rate: float = 0.0) -> list[str]:
    """A node without a key, installed with this package. `rate`: bytes per second of its line, 0 if it is not known."""
    program = shutil.which("fedtiny-node", path=str(Path(sys.executable).parent)) or shutil.which("fedtiny-node")
    if program is None:
        raise ConfigError("fedtiny-node is not installed beside this Python. Install fedtiny anew: make setup")
    return [program, "serve", str(record), *(["--rate", str(int(rate))] if rate else [])]


def swarm(folder: Path) -> Path:
    """Compiles swarm.c with the wire for this computer."""
    sources = [HERE / "swarm.c", *emulation.core_sources(), *emulation.wire_sources()]
    flags = [
        "-Werror=incompatible-pointer-types",
        "-D_GNU_SOURCE",
        f"-DFT_WIRE_PAYLOAD={PAYLOAD}",
        *emulation.wire_flags(),
    ]
    return emulation.build(load_board("native"), sources, out=folder / "swarm", flags=flags)
