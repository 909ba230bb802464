"""The rows of `bench export`: int8 inference by the engine that exported networks run on, beside what others take.

Networks are MLPerf Tiny's ResNet8 and DS-CNN with drawn weights: instructions, RAM and flash depend on shapes and on
which weights live, not on their values. A density counts every weight; first convolution and classifier stay dense.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from fedtiny import infer_boards
from fedtiny.bench import builds, cases
from fedtiny.bench.suite import Config, Goal, Peer, Say, Suite, Take
from fedtiny.emulation import compile_command, infer_flags, need_tools
from fedtiny_export.errors import ConfigError
from fedtiny_export.infer.c_out import to_c
from fedtiny_export.infer.from_graph import from_model
from fedtiny_export.infer.pack import pack
from fedtiny_export.infer.program import Program
from fedtiny_export.infer.quantize import quantize
from fedtiny_export.infer.sparse import Options
from fedtiny_export.model import Model

TARGETS = {"m4f": "qemu-mps2-an386", "rv32": "qemu-rv32"}
CALIBRATION = 8  # samples
KIB = 1024

GOALS = {
    "resnet8.s8.m4f.dense.instructions": Goal(29e6),
    "resnet8.s8.m4f.dense.arena_bytes": Goal(55 * KIB),
    "resnet8.s8.m4f.d0.1.instructions": Goal(4.5e6),
    "dscnn.s8.m4f.dense.instructions": Goal(7.7e6),
    "dscnn.s8.m4f.dense.arena_bytes": Goal(22.8 * KIB),
    "resnet8.s8.code_bytes": Goal(12 * KIB),
    "resnet8.s8.d0.1.model_bytes": Goal(25 * KIB),
    "resnet8.s8.rv32.d0.1.instructions": Goal(9e6),
}

_HOW = "measured, M4F, GCC 12, -O2, int8"
_NMSIS = "TFLite Micro + CMSIS-NN"
PEERS = (
    Peer("resnet8.s8.m4f.dense.instructions", _NMSIS, 29.86e6, "instructions", _HOW),
    Peer("resnet8.s8.m4f.dense.instructions", "TFLite Micro, reference kernels", 107.5e6, "instructions", _HOW),
    Peer("resnet8.s8.m4f.dense.arena_bytes", _NMSIS, 55.0 * KIB, "bytes", _HOW),
    Peer("dscnn.s8.m4f.dense.instructions", _NMSIS, 7.70e6, "instructions", _HOW),
    Peer("dscnn.s8.m4f.dense.instructions", "TFLite Micro, reference kernels", 43.1e6, "instructions", _HOW),
    Peer("dscnn.s8.m4f.dense.arena_bytes", _NMSIS, 22.8 * KIB, "bytes", _HOW),
    Peer("resnet8.s8.code_bytes", _NMSIS, 94 * KIB, "bytes", _HOW),
    Peer("resnet8.s8.d0.1.model_bytes", "the .tflite file, dense or pruned", 98.5 * KIB, "bytes", "its size"),
)


@cache
def program(name: str, density: float) -> Program:
    """The named net with drawn weights, quantised on drawn samples, packed. At density 1 every layer is held dense."""
    model = cases.model(name, "batch")
    live = _masks(model, density)
    arrays = {key: array * live[key] if key in live else array for key, array in model.arrays.items()}
    network = from_model(Model(model.graph, arrays), name)
    shape = network.tensors[network.inputs[0]].shape
    samples = np.random.default_rng(1).normal(size=(CALIBRATION, *shape)).astype(np.float32)
    return pack(quantize(network, [samples]), Options(hold="by_cost" if density < 1 else "dense"))


def _masks(model: Model, density: float) -> dict[str, np.ndarray]:
    if density >= 1:
        return {}
    names = model.graph.layer_names
    sizes = {name: model.arrays[name].size for name in names}
    thinned = names[1:-1]
    whole, some = sum(sizes.values()), sum(sizes[name] for name in thinned)
    share = (density * whole - (whole - some)) / some
    if share <= 0:
        raise ConfigError(f"density {density:g} leaves nothing to the layers between the first and the last")
    random = np.random.default_rng(0)
    made = {}
    for name in thinned:
        mask = np.zeros(sizes[name], np.bool_)
        mask[random.permutation(sizes[name])[: round(share * sizes[name])]] = True
        made[name] = mask.reshape(model.arrays[name].shape)
    return made


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row before it is taken."""

    unit: str
    take: Callable[[Path, Say], tuple[float, Config]]


def _config(name: str, density: float, target: str | None = None) -> Config:
    config: Config = {"model": name, "density": density, "dtype": "int8"}
    if target is None:
        return config
    board = builds.board_of(TARGETS[target])
    machine, extra = board.toolchain.machine, [flag for flag in infer_flags(board) if not flag.startswith("-I")]
    return config | {"target": target, "board": TARGETS[target], "flags": [*machine, infer_boards.OPTIMISE, *extra]}


def _instructions(name: str, target: str, density: float, variant: str | None = None) -> Entry:
    def take(folder: Path, say: Say) -> tuple[float, Config]:
        say(f"{name} at density {density:g} on {TARGETS[target]}")
        packed, board = program(name, density), builds.board_of(TARGETS[target])
        shape = packed.network.tensors[packed.network.inputs[0]].shape
        x = np.random.default_rng(2).integers(-128, 128, (1, *shape)).astype(np.int8)
        elf = infer_boards.build(board, folder, variant=variant)
        found = infer_boards.run_on_board(packed, [x], board, count=True, elf=elf)
        assert found.instructions is not None
        kernels = "portable" if variant == "" or not board.toolchain.variant else "tuned"
        return found.instructions, _config(name, density, target) | {"kernels": kernels}

    return Entry(unit="instructions", take=take)


def _arena(name: str, density: float) -> Entry:
    def take(_: Path, __: Say) -> tuple[float, Config]:
        return program(name, density).arena_bytes, _config(name, density) | {"what": "activations and scratch"}

    return Entry(unit="bytes", take=take)


def _sizes(name: str, density: float, folder: Path) -> dict[str, int]:
    """Bytes of flash of each source of the generated C, for a Cortex-M4F."""
    board = builds.board_of(TARGETS["m4f"])
    need_tools(board)
    found = {}
    for file, text in to_c(program(name, density), "net", variant=board.toolchain.variant).items():
        (folder / file).write_text(text)
    for path in sorted(folder.glob("*.[cS]")):
        out = folder / f"{path.name}.o"
        command = [*compile_command(board, optimise=infer_boards.OPTIMISE), "-c", str(path), "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        size = subprocess.run([board.toolchain.prefix + "size", out], check=True, capture_output=True, text=True).stdout
        found[path.name] = sum(map(int, size.splitlines()[1].split()[:2]))
    return found


def _code(name: str) -> Entry:
    def take(folder: Path, say: Say) -> tuple[float, Config]:
        say(f"{name}: code of the kernels that it uses, dense and pruned")
        sizes: dict[str, int] = {}
        for density in (1.0, 0.1):
            own = folder / f"code-{name}-{density:g}"
            own.mkdir(exist_ok=True)
            sizes |= {file: size for file, size in _sizes(name, density, own).items() if file != "net.c"}
        what = "kernels for both forms, dense and pruned, as generated C brings them"
        return sum(sizes.values()), _config(name, 0.1, "m4f") | {"what": what, "files": sizes}

    return Entry(unit="bytes", take=take)


def _model(name: str, density: float) -> Entry:
    def take(folder: Path, say: Say) -> tuple[float, Config]:
        say(f"{name} at density {density:g}: what it takes of flash")
        own = folder / f"model-{name}-{density:g}"
        own.mkdir(exist_ok=True)
        what = "weights, scales and operators as generated C; the blob beside it"
        return _sizes(name, density, own)["net.c"], _config(name, density, "m4f") | {
            "what": what,
            "blob_bytes": len(program(name, density).blob),
        }

    return Entry(unit="bytes", take=take)


@cache
def entries() -> dict[str, Entry]:
    """Every row by its name, in the order of the table."""
    return {
        "resnet8.s8.m4f.dense.instructions": _instructions("resnet8", "m4f", 1.0),
        "resnet8.s8.m4f.dense.arena_bytes": _arena("resnet8", 1.0),
        "resnet8.s8.m4f.d0.1.instructions": _instructions("resnet8", "m4f", 0.1),
        "dscnn.s8.m4f.dense.instructions": _instructions("dscnn", "m4f", 1.0),
        "dscnn.s8.m4f.dense.arena_bytes": _arena("dscnn", 1.0),
        "resnet8.s8.code_bytes": _code("resnet8"),
        "resnet8.s8.d0.1.model_bytes": _model("resnet8", 0.1),
        "resnet8.s8.rv32.d0.1.instructions": _instructions("resnet8", "rv32", 0.1),
        "resnet8.s8.m4f.d0.1.arena_bytes": _arena("resnet8", 0.1),
        "resnet8.s8.dense.model_bytes": _model("resnet8", 1.0),
        "resnet8.s8.rv32.dense.instructions": _instructions("resnet8", "rv32", 1.0),
        "resnet8.s8.m4f.dense.portable.instructions": _instructions("resnet8", "m4f", 1.0, ""),
        "resnet8.s8.m4f.d0.1.portable.instructions": _instructions("resnet8", "m4f", 0.1, ""),
        "dscnn.s8.rv32.dense.instructions": _instructions("dscnn", "rv32", 1.0),
    }


def _prepare(names: Sequence[str], folder: Path, say: Say) -> Iterator[tuple[str, str, Take]]:
    for name in names:
        entry = entries()[name]
        yield name, entry.unit, partial(entry.take, folder, say)


EXPORT = Suite(
    names=entries, prepare=_prepare, goals=GOALS, peers=PEERS, example="resnet8.s8.m4f",
    beside=("resnet8.s8.m4f.d0.1.arena_bytes", "resnet8.s8.dense.model_bytes"),
    notes=("int8 with the bits of LiteRT's reference kernels; peers were counted in the same emulator.",),
)  # fmt: skip
