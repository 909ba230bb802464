"""A scale and shift per channel behind a convolution goes into its weights: what batch norms become.

An importer writes a batch norm as a depthwise convolution of one pixel; where it stands behind another linear
operator nothing of it is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtiny_export.infer.building import readers
from fedtiny_export.infer.check import WEIGHTED
from fedtiny_export.infer.network import Activation, Kind, Network, Operator, Tensor
from fedtiny_export.infer.passes.reshapes import before_reshapes, merge_reshapes


def fold_affine(network: Network) -> Network:
    """Float only. The operator before must have no activation, and nothing else may read what lies between; reshapes
    that keep the channels may."""
    tensors, operators = list(network.tensors), list(network.operators)
    users = readers(network)
    writer = {op.outputs[0]: n for n, op in enumerate(operators)}
    for n, op in enumerate(network.operators):
        before = before_reshapes(network, op, users, writer, channels=True) if _is_affine(network, op) else None
        if before is None:
            continue
        first = operators[before]
        scale = tensors[op.inputs[1]].data
        weight = tensors[first.inputs[1]].data if first.kind in WEIGHTED else None
        if scale is None or weight is None or weight.dtype != np.float32 or first.activation is not Activation.NONE:
            continue
        scale = scale.reshape(-1).astype(np.float64)
        shape = [1] * weight.ndim
        shape[WEIGHTED[first.kind]] = -1
        bias = (_bias(tensors, first) * scale + _bias(tensors, op)).astype(np.float32)
        fused = (weight * scale.reshape(shape)).astype(np.float32)
        name = tensors[first.inputs[1]].name
        tensors += [
            Tensor(name, fused.shape, fused.dtype, None, fused),
            Tensor(_bias_name(tensors, first, name), bias.shape, bias.dtype, None, bias),
        ]
        inputs = (first.inputs[0], len(tensors) - 2, len(tensors) - 1)
        operators[before] = replace(first, inputs=inputs, activation=op.activation)
        operators[n] = Operator(Kind.RESHAPE, op.inputs[:1], op.outputs)  # of the same shape: it goes
    return merge_reshapes(replace(network, tensors=tuple(tensors), operators=tuple(operators)))


def _is_affine(network: Network, op: Operator) -> bool:
    if op.kind is not Kind.DEPTHWISE_CONV2D:
        return False
    channels = network.tensors[op.inputs[0]].shape[-1]
    plain = (op.kernel, op.stride, op.padding) == ((1, 1), (1, 1), (0, 0, 0, 0))
    return plain and network.tensors[op.inputs[1]].shape == (1, 1, 1, channels)


def _bias(tensors: list[Tensor], op: Operator) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    data = tensors[op.inputs[2]].data if len(op.inputs) > 2 else None
    return np.zeros(1) if data is None else data.astype(np.float64)


def _bias_name(tensors: list[Tensor], op: Operator, weight: str) -> str:
    return tensors[op.inputs[2]].name if len(op.inputs) > 2 else f"{weight}.bias"
