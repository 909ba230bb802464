"""A model that fedtiny trains -> network: channels last, norms folded, activations fused, pruned weights zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtiny_export.errors import UnsupportedModel
from fedtiny_export.graph import F32, Op, OpKind, Tensor
from fedtiny_export.infer.building import NetworkBuilder, sound
from fedtiny_export.infer.network import Array, Kind, Network
from fedtiny_export.infer.passes import tidy
from fedtiny_export.infer.passes.layout import channels_first, channels_last
from fedtiny_export.limits import describe_op
from fedtiny_export.model import Model

_ELEMENTWISE = {OpKind.RELU: Kind.RELU, OpKind.RELU6: Kind.RELU6, OpKind.ADD: Kind.ADD}


def from_model(model: Model, name: str = "model") -> Network:
    """The float32 network of a training model. Its input is (1, H, W, C), or (1, F) where a linear layer reads it.

    Raises UnsupportedModel for group norms: the engine has none.
    """
    return sound(tidy(_Translator(model, name).run()))


class _Translator:
    def __init__(self, model: Model, name: str) -> None:
        self._model, self._name = model, name
        self._graph = model.graph
        self._b = NetworkBuilder()
        self._at: dict[int, int] = {}
        self._rank: dict[int, int] = {}

    def run(self) -> Network:
        graph = self._graph
        groupnorms = [op for op in graph.ops if op.kind is OpKind.GROUPNORM]
        if groupnorms:
            raise UnsupportedModel(
                [f"{describe_op(graph, op)} is no operator of the engine; use a batch norm" for op in groupnorms]
            )
        into_linear = any(op.kind is OpKind.LINEAR and graph.input in op.inputs for op in graph.ops)
        self._activation(graph.input, 2 if into_linear else 4)
        for op in graph.ops:
            self._translate(op)
        output = self._seen(graph.output, 2)
        return self._b.network([self._at[graph.input]], [output], self._name)

    def _activation(self, tensor: int, rank: int) -> int:
        described = self._graph.tensors[tensor]
        self._rank[tensor] = rank
        self._at[tensor] = self._b.activation(described.name, _shape(described, rank))
        return self._at[tensor]

    def _seen(self, tensor: int, rank: int) -> int:
        """A tensor with so many dimensions: (1, H, W, C), or flattened in the order of its channels."""
        if self._rank[tensor] == rank:
            return self._at[tensor]
        described = self._graph.tensors[tensor]
        if rank == 4:
            shape: tuple[int, ...] = (1, 1, 1, described.size)
            return self._b.emit(Kind.RESHAPE, [self._at[tensor]], self._b.activation(f"{described.name}.map", shape))
        c, h, w = described.shape
        first = self._b.activation(f"{described.name}.first", (1, c, h, w))
        self._b.emit(Kind.TRANSPOSE, [self._at[tensor]], first, permutation=channels_first(4))
        return self._b.emit(Kind.RESHAPE, [first], self._b.activation(f"{described.name}.flat", (1, described.size)))

    def _params(self, op: Op) -> list[tuple[str, F32]]:
        names = [self._graph.params[i].name for i in op.params]
        return [(name, self._model.arrays[name]) for name in names]

    def _translate(self, op: Op) -> None:
        rank = 2 if op.kind in (OpKind.LINEAR, OpKind.FLATTEN) else 4
        window: dict[str, Any] = {"kernel": op.kernel, "stride": op.stride, "padding": op.padding}
        inputs = [self._seen(i, rank) for i in op.inputs]
        match op.kind:
            case OpKind.FLATTEN:
                self._rank[op.output], self._at[op.output] = 2, inputs[0]
                return
            case OpKind.CONV2D:
                kind, parameters = self._convolution(op)
                fields = window
            case OpKind.LINEAR:
                kind, fields, parameters = Kind.FULLY_CONNECTED, {}, self._params(op)
            case OpKind.BATCHNORM:
                (name, gamma), (shift, beta), (_, mean), (_, var) = self._params(op)
                scale, offset = folded_norm(gamma, beta, mean, var, op.eps)
                kind, fields = Kind.DEPTHWISE_CONV2D, {}
                parameters = [(name, scale.reshape(1, 1, 1, -1)), (shift, offset)]
            case OpKind.AVGPOOL if op.count_include_pad and any(op.padding):
                inputs = [self._padded(op, inputs[0])]
                kind, fields, parameters = Kind.AVERAGE_POOL, {**window, "padding": (0, 0, 0, 0)}, []
            case OpKind.AVGPOOL | OpKind.MAXPOOL:
                kind = Kind.AVERAGE_POOL if op.kind is OpKind.AVGPOOL else Kind.MAX_POOL
                fields, parameters = window, []
            case _:
                kind, fields, parameters = (
                    {OpKind.RELU: Kind.RELU, OpKind.RELU6: Kind.RELU6}.get(op.kind, Kind.ADD),
                    {},
                    [],
                )
        constants = [self._b.constant(name, array) for name, array in parameters]
        self._b.emit(kind, [*inputs, *constants], self._activation(op.output, rank), **fields)

    def _convolution(self, op: Op) -> tuple[Kind, list[tuple[str, F32]]]:
        (name, weight), *bias = self._params(op)
        if op.eps:
            import torch

            from fedtiny_export.ws_conv import standardised

            weight = standardised(torch.from_numpy(weight), op.eps).numpy()
        kind, array = convolution_weight(weight, op.groups)
        return kind, [(name, array), *bias]

    def _padded(self, op: Op, x: int) -> int:
        """The input with zeros around it, which then count."""
        top, left, bottom, right = op.padding
        pads = ((0, 0), (top, bottom), (left, right), (0, 0))
        shape = [d + sum(p) for d, p in zip(self._b.tensors[x].shape, pads, strict=True)]
        return self._b.emit(Kind.PAD, [x], self._b.activation(f"{self._b.tensors[x].name}.padded", shape), pads=pads)


def convolution_weight(weight: Array, groups: int) -> tuple[Kind, Array]:
    """(O, I / groups, KH, KW) -> CONV2D and (O, KH, KW, I), or DEPTHWISE_CONV2D and (1, KH, KW, O).

    Groups between one and one per channel become a dense weight with zeros between the groups.
    """
    last = weight.transpose(channels_last(4))
    out, kh, kw, inner = last.shape
    if groups == 1:
        return Kind.CONV2D, np.ascontiguousarray(last)
    if inner == 1:
        return Kind.DEPTHWISE_CONV2D, np.ascontiguousarray(last.transpose(3, 1, 2, 0))
    dense = np.zeros((out, kh, kw, inner * groups), weight.dtype)
    for group, rows in enumerate(np.split(np.arange(out), groups)):
        dense[rows, :, :, group * inner : (group + 1) * inner] = last[rows]
    return Kind.CONV2D, dense


def folded_norm(gamma: F32, beta: F32, mean: F32, var: F32, eps: float) -> tuple[F32, F32]:
    """What a batch norm multiplies by and adds, per channel."""
    scale = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + eps)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def _shape(tensor: Tensor, rank: int) -> Sequence[int]:
    c, h, w = tensor.shape
    return (1, h, w, c) if rank == 4 else (1, tensor.size)
