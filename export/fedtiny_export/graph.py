"""The one graph representation: what a node computes, without saying how or where.

A `Graph` is a straight list of operators over tensors (per-sample activations, shape ``(C, H, W)``) and
parameters. Its tables have the order of the `.ftm` blob (firmware/BLOB.md), so an index here is an index there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Bits = NDArray[np.bool_]


class OpKind(IntEnum):
    """Operators of a node; the numbers are those of the blob."""

    CONV2D = 1
    LINEAR = 2
    BATCHNORM = 3
    GROUPNORM = 4
    RELU = 5
    RELU6 = 6
    MAXPOOL = 7
    AVGPOOL = 8
    ADD = 9
    FLATTEN = 10


class Role(IntEnum):
    """What a parameter is to its operator; the numbers are those of the blob."""

    WEIGHT = 1  # of a convolution (O, I/groups, KH, KW) or a linear layer (O, I): the only role that has masks
    BIAS = 2
    GAMMA = 3
    BETA = 4
    MEAN = 5  # running statistics of a batch norm: not trained, not part of the values vector
    VAR = 6


STATISTICS = (Role.MEAN, Role.VAR)

STANDARDISE = ("fedtiny", "Standardise")
"""Domain and name of the ONNX operator that marks the weight of a convolution which standardises it."""


@dataclass(frozen=True)
class Tensor:
    """One activation of one sample. A vector of N features has the shape (N, 1, 1)."""

    name: str
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        c, h, w = self.shape
        return c * h * w


@dataclass(frozen=True)
class Param:
    """A named constant or trained array; `name` is the torch state_dict key."""

    name: str
    role: Role
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Op:
    """One operator. `inputs` and `output` index `Graph.tensors`, `params` indexes `Graph.params`.

    Order of `params`: conv2d, linear: weight[, bias]; batchnorm: gamma, beta, mean, var; groupnorm: gamma, beta.
    `kernel`, `stride` and `padding` (top, left, bottom, right) concern conv2d and pools; global pooling is a pool
    whose kernel is the whole map; `groups` concerns conv2d (depthwise: groups == input channels) and groupnorm.
    `eps` concerns norms, and conv2d where it is not 0: then the weight is standardised before use (ws_conv.py).
    """

    kind: OpKind
    inputs: tuple[int, ...]
    output: int
    params: tuple[int, ...] = ()
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    eps: float = 0.0
    count_include_pad: bool = False  # average pool: whether padding counts in the divisor


@dataclass(frozen=True)
class Graph:
    """Tables of a model, in execution order. `input` and `output` index `tensors`."""

    tensors: tuple[Tensor, ...]
    params: tuple[Param, ...]
    ops: tuple[Op, ...]
    input: int
    output: int

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Parameter indices of the weights of convolutions and linear layers, in table order.

        A *layer number* (in masks, thresholds and top-K requests) is a position in this tuple.
        """
        return tuple(i for i, p in enumerate(self.params) if p.role is Role.WEIGHT)

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(self.params[i].name for i in self.layers)

    @cached_property
    def trained(self) -> tuple[int, ...]:
        """Parameter indices in the order of the values vector (everything but the statistics)."""
        return tuple(i for i, p in enumerate(self.params) if p.role not in STATISTICS)

    @cached_property
    def batchnorms(self) -> tuple[Op, ...]:
        """Batch norms in operator order: the order of the statistics and moments vectors."""
        return tuple(op for op in self.ops if op.kind is OpKind.BATCHNORM)

    @cached_property
    def layer_ops(self) -> tuple[Op, ...]:
        """The operator of each layer, by layer number."""
        of = {op.params[0]: op for op in self.ops if op.kind in (OpKind.CONV2D, OpKind.LINEAR)}
        return tuple(of[i] for i in self.layers)

    def first_trained(self, last_layers: int) -> int:
        """The operator with which the last so many layers begin; the very first, 0, for 0 or too many."""
        if not 0 < last_layers <= len(self.layers):
            return 0
        return self.ops.index(self.layer_ops[-last_layers])

    def constants(self, last_layers: int) -> frozenset[str]:
        """Names of the parameters, statistics too, that stay as they are when only the last so many layers train."""
        before = self.ops[: self.first_trained(last_layers)]
        return frozenset(self.params[index].name for op in before for index in op.params)

    @property
    def classes(self) -> int:
        return self.tensors[self.output].size
