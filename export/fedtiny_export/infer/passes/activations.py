"""A RELU or RELU6 becomes the fused activation of the operator before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtiny_export.infer.building import readers
from fedtiny_export.infer.check import FUSING
from fedtiny_export.infer.network import Activation, Kind, Network, Operator, Tensor
from fedtiny_export.infer.passes.reshapes import before_reshapes, merge_reshapes

_FUSED = {Kind.RELU: Activation.RELU, Kind.RELU6: Activation.RELU6}


def fuse_activations(network: Network) -> Network:
    """Only where nothing else reads what is activated, and where int8 keeps its scale: then the bits stay."""
    operators = list(network.operators)
    users = readers(network)
    writer = {op.outputs[0]: n for n, op in enumerate(operators)}
    for n, op in enumerate(network.operators):
        before = before_reshapes(network, op, users, writer) if op.kind in _FUSED else None
        if before is None or not _same(network.tensors[op.inputs[0]], network.tensors[op.outputs[0]]):
            continue
        first = operators[before]
        if first.kind not in FUSING or first.activation not in (Activation.NONE, _FUSED[op.kind]):
            continue
        operators[before] = replace(first, activation=_FUSED[op.kind])
        operators[n] = Operator(Kind.RESHAPE, op.inputs, op.outputs)  # of the same shape: it goes
    return merge_reshapes(replace(network, operators=tuple(operators)))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.dtype == np.float32:
        return True
    if a.quantization is None or b.quantization is None:
        return False
    equal = a.quantization.scale[0] == b.quantization.scale[0]
    return bool(equal and a.quantization.zero_point[0] == b.quantization.zero_point[0])
