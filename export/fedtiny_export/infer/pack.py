"""A network as a program of the inference engine, and the program as a blob (firmware/INFER.md)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np

from fedtiny_export.infer.arena import Life, place
from fedtiny_export.infer.building import sound
from fedtiny_export.infer.lower import Lowering
from fedtiny_export.infer.network import Array, Network
from fedtiny_export.infer.overlap import lead
from fedtiny_export.infer.program import Place, Program, Step
from fedtiny_export.infer.sparse import Options

VERSION = 1
_BYTES = ("kh", "kw", "sh", "sw", "dh", "dw", "top", "left")
_SHAPE = ("xh", "xw", "xc", "yh", "yw", "yc")
_WORDS = ("x_zero", "x2_zero", "y_zero", "low", "high", "a", "b")


def pack(network: Network, options: Options | None = None) -> Program:
    """Raises UnsupportedModel, which names everything that is wrong with the network, or that the engine lacks."""
    lowering = Lowering(sound(network), options or Options())
    lowering.run()
    lives = _lives(lowering)
    offsets, arena_bytes = place(lives, _leads(lowering, lives))
    buffers = len(lowering.sizes)
    work = iter(offsets[buffers:])
    work_at = tuple(next(work) if step.work else 0 for step in lowering.steps)
    program = Program(
        network=network,
        steps=tuple(lowering.steps),
        offsets=tuple(offsets[:buffers]),
        work_at=work_at,
        arena_bytes=arena_bytes,
        places={t: Place(offsets[root], lowering.made[t]) for t, root in lowering.root.items() if t in lowering.made},
    )
    return replace(program, blob=_blob(program))


def _lives(lowering: Lowering) -> list[Life]:
    """Of the buffers, then of each step's work."""
    first = [len(lowering.steps)] * len(lowering.sizes)
    last = [-1] * len(lowering.sizes)
    for t in lowering.network.inputs:
        first[lowering.root[t]] = -1
    for index, step in enumerate(lowering.steps):
        for buffer in {step.x, step.x2, step.y} - {-1}:
            first[buffer] = min(first[buffer], index)
            last[buffer] = max(last[buffer], index)
    for t in lowering.network.outputs:
        last[lowering.root[t]] = len(lowering.steps)
    lives = [Life(size, a, max(a, b)) for size, a, b in zip(lowering.sizes, first, last, strict=True)]
    return lives + [Life(step.work, i, i) for i, step in enumerate(lowering.steps) if step.work]


def _leads(lowering: Lowering, lives: list[Life]) -> dict[tuple[int, int], int]:
    """For each step that reads its input for the last time: by how much its result has to begin before it."""
    found = {}
    for index, step in enumerate(lowering.steps):
        last = step.x >= 0 and step.x != step.y and lives[step.x].last == index == lives[step.y].first
        least = lead(step) if last else None
        if least is not None:
            found[step.y, step.x] = min(least, lives[step.y].size)
    return found


class _Constants:
    """The bytes after the tables; what is there already is not stored twice."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._bytes = bytearray()
        self._known: dict[bytes, int] = {}

    def offset(self, array: Array | None) -> int:
        """From the blob's first byte, a multiple of 4; 0 for None."""
        if array is None:
            return 0
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        if data not in self._known:
            self._bytes += bytes(-len(self._bytes) % 4)
            self._known[data] = self._at + len(self._bytes)
            self._bytes += data
        return self._known[data]

    def bytes(self) -> bytes:
        return bytes(self._bytes) + bytes(-len(self._bytes) % 4)


def _blob(program: Program) -> bytes:
    ports = [*program.network.inputs, *program.network.outputs]
    ops_at = 48
    ports_at = ops_at + 88 * len(program.steps)
    constants = _Constants(ports_at + 24 * len(ports))
    ops = b"".join(_op(program, index, constants) for index in range(len(program.steps)))
    body = ops + b"".join(_port(program, i) for i in ports) + constants.bytes()
    total = ops_at + len(body)
    rest = struct.pack(
        "<8I", program.arena_bytes, len(program.steps), len(program.network.inputs), len(program.network.outputs), 0,
        ops_at, ports_at, 0,
    )  # fmt: skip
    crc = zlib.crc32(rest + body)
    return struct.pack("<4sHHII", b"FTI1", VERSION, 0, total, crc) + rest + body


def _op(program: Program, index: int, constants: _Constants) -> bytes:
    step = program.steps[index]
    offsets = members(program, index)
    geometry = struct.pack(
        "<8B6H", *(step.numbers.get(n, 0) for n in _BYTES), *(step.numbers.get(n, 0) for n in _SHAPE)
    )
    arena = struct.pack("<4I", *(offsets[n] for n in ("x", "x2", "y", "work")))
    pointers = struct.pack("<4I", *(constants.offset(a) for a in (step.weight, step.bias, step.multiplier, step.shift)))
    words = struct.pack("<7i", *(step.numbers.get(n, 0) for n in _WORDS))
    weight_bytes = 0 if step.weight is None else step.weight.nbytes
    return (
        struct.pack("<4B", step.code, 0, 0, 0) + geometry + arena + pointers + words + struct.pack("<I", weight_bytes)
    )


def members(program: Program, index: int) -> dict[str, int]:
    """Where a step's x, x2, y and work lie in the arena."""
    step = program.steps[index]

    def at(buffer: int) -> int:
        return program.offsets[buffer] if buffer >= 0 else 0

    return {"x": at(step.x) + step.x_at, "x2": at(step.x2), "y": at(step.y) + step.y_at, "work": program.work_at[index]}


def _port(program: Program, i: int) -> bytes:
    tensor = program.network.tensors[i]
    int8, quantization = tensor.dtype == np.int8, tensor.quantization
    scale = float(quantization.scale[0]) if quantization is not None else 1.0
    zero = int(quantization.zero_point[0]) if quantization is not None else 0
    return struct.pack("<II4BfiI", program.places[i].at, tensor.size, int(int8), 0, 0, 0, scale, zero, 0)


def summary(step: Step) -> str:
    """One line for a table of steps."""
    return f"{step.code.name.lower()} {step.name}".strip()
