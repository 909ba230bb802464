"""What a node infers: the one representation that every importer makes and every exporter reads.

Its words and its arithmetic are LiteRT's: activations are NHWC, convolution weights OHWI, depthwise weights 1HWO, fully
connected weights OI; a quantised tensor stands for ``scale * (q - zero_point)``. Padding is explicit and operators name
their fused activation, so nothing depends on where a network came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Kind(IntEnum):
    """Operators of the inference engine."""

    CONV2D = 1  # inputs: x, weight (O, KH, KW, I)[, bias (O,)]
    DEPTHWISE_CONV2D = 2  # inputs: x, weight (1, KH, KW, O)[, bias (O,)]; O = I * depth multiplier
    FULLY_CONNECTED = 3  # inputs: x, weight (O, I)[, bias (O,)]
    ADD = 4
    CONCAT = 5  # along `axis`
    PAD = 6  # by `pads`, with the value that stands for 0
    AVERAGE_POOL = 7  # over `kernel`; what lies outside of the map does not count
    MAX_POOL = 8
    MEAN = 9  # over `axes`, all of them kept with size 1 or all dropped: the output's shape says which
    SOFTMAX = 10  # over the last axis, of beta * x
    RESHAPE = 11
    TRANSPOSE = 12  # by `permutation`
    RELU = 13
    RELU6 = 14
    QUANTIZE = 15  # float to int8, or int8 to int8 of another scale
    DEQUANTIZE = 16


class Activation(IntEnum):
    """Fused into an operator: applied to its result before it is stored."""

    NONE = 0
    RELU = 1
    RELU6 = 2


@dataclass(frozen=True, eq=False)
class Quantization:
    """``value = scale * (q - zero_point)``, per tensor (one entry) or along `axis` (one entry per slice)."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """An activation (`data` None; batch 1) or a constant. `dtype`: float32, int8 or int32."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    quantization: Quantization | None = None
    data: Array | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Operator:
    """`inputs` and `outputs` index `Network.tensors`; an absent optional input is left off the end.

    `padding` is (top, left, bottom, right) in pixels; `pads` one (before, after) per axis of a PAD.
    """

    kind: Kind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: Activation = Activation.NONE
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    axis: int = 0
    axes: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    permutation: tuple[int, ...] = ()
    beta: float = 1.0


@dataclass(frozen=True, eq=False)
class Network:
    """Tensors, and operators in an order in which they can be computed. `inputs` and `outputs` index `tensors`."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str = field(default="model")

    @cached_property
    def int8(self) -> bool:
        """Whether any operator computes on int8."""
        return any(self.tensors[i].dtype == np.int8 for op in self.operators for i in op.outputs)
