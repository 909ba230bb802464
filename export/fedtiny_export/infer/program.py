"""A program of the inference engine as tables: what `lower` makes, and what becomes a blob or C."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from fedtiny_export.infer.network import Array, Network


class Code(IntEnum):
    """Kernels by their codes in a blob (firmware/infer/load.h); fti_ with the name in small letters is the function."""

    CONV_S8 = 1
    DEPTHWISE_S8 = 2
    DENSE_S8 = 3
    ADD_S8 = 4
    MOVE_S8 = 5
    AVERAGE_POOL_S8 = 6
    MAX_POOL_S8 = 7
    MEAN_S8 = 8
    SOFTMAX_S8 = 9
    RESCALE_S8 = 10
    QUANTIZE_S8 = 11
    DEQUANTIZE_S8 = 12
    SPARSE_CONV_S8 = 13
    SPARSE_DENSE_S8 = 14
    CONV_F32 = 15
    DEPTHWISE_F32 = 16
    DENSE_F32 = 17
    ADD_F32 = 18
    MOVE_F32 = 19
    AVERAGE_POOL_F32 = 20
    MAX_POOL_F32 = 21
    MEAN_F32 = 22
    SOFTMAX_F32 = 23
    CLAMP_F32 = 24


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One call of a kernel. `x`, `x2`, `y` are buffers, `work` bytes of scratch; `numbers` are the other members of
    fti_op by name. `x_at`, `y_at`: bytes into them."""

    code: Code
    x: int = -1
    x2: int = -1
    y: int
    x_at: int = 0
    y_at: int = 0
    work: int = 0
    weight: Array | None = None
    bias: Array | None = None
    multiplier: Array | None = None
    shift: Array | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies when step `made` has run; -1: before the first."""

    at: int
    made: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """`offsets`: the buffers' places in the arena; `work_at` one for each step. `places`: of every activation."""

    network: Network
    steps: tuple[Step, ...]
    offsets: tuple[int, ...]
    work_at: tuple[int, ...]
    arena_bytes: int
    places: dict[int, Place]
    blob: bytes = b""
