"""What stands between DEQUANTIZE and QUANTIZE is computed in int8.

A float constant may carry the scale of the integers that it was made from; these integers come back. Operators with
one end open stay float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedtiny_export.infer import fixed
from fedtiny_export.infer.building import NetworkBuilder, quantization, readers
from fedtiny_export.infer.check import SAME_SCALE, SOFTMAX_SCALE, SOFTMAX_ZERO, WEIGHTED
from fedtiny_export.infer.network import Activation, Kind, Network, Operator, Quantization, Tensor
from fedtiny_export.infer.quantize import activation_scale, weighted_parameters

_MOVES = (Kind.RESHAPE, Kind.TRANSPOSE, Kind.PAD, Kind.MAX_POOL)
"""Operators that give the same whether they come before a DEQUANTIZE or after."""


def to_integers(network: Network) -> Network:
    if not any(op.kind in (Kind.QUANTIZE, Kind.DEQUANTIZE) for op in network.operators):
        return network
    return _Integers(network).run()


class _Integers:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._b = NetworkBuilder(replace(network, operators=()))
        self._users = readers(network)
        self._whole: dict[int, int] = {}  # float tensor -> the int8 one that it was dequantised from
        self._stands_for: dict[int, int] = {}

    def run(self) -> Network:
        for op in self._network.operators:
            op = replace(op, inputs=tuple(self._stands_for.get(i, i) for i in op.inputs))
            if op.kind is Kind.DEQUANTIZE:
                self._whole[op.outputs[0]] = op.inputs[0]
            if op.outputs[0] in self._stands_for:
                continue  # a QUANTIZE whose result an integer operator has written
            if op.kind is Kind.QUANTIZE and op.inputs[0] in self._whole:
                self._back_again(op)
            elif op.kind in (Kind.QUANTIZE, Kind.DEQUANTIZE) or not self._integer(op):
                self._b.operators.append(op)
        outputs = [self._stands_for.get(i, i) for i in self._network.outputs]
        self._b.tensors = [replace(t, quantization=None) if t.dtype == np.float32 else t for t in self._b.tensors]
        return self._b.network(self._network.inputs, outputs, self._network.name)

    def _back_again(self, op: Operator) -> None:
        """A QUANTIZE right behind a DEQUANTIZE: the same integers, or these in another scale."""
        source = self._whole[op.inputs[0]]
        same = _equal(self._q(source), self._q(op.outputs[0]))
        self._b.emit(Kind.RESHAPE if same else Kind.QUANTIZE, [source], op.outputs[0])

    def _integer(self, op: Operator) -> bool:
        """Whether an operator could be done on integers."""
        count = 1 if op.kind in WEIGHTED else len(op.inputs)
        sources = [self._whole.get(i) for i in op.inputs[:count]]
        constant = [self._b.tensors[i].data is not None for i in op.inputs[:count]]
        if not any(s is not None for s in sources) or not all(
            s is not None or c for s, c in zip(sources, constant, strict=True)
        ):
            return False
        ends = self._ends(op.outputs[0])
        if ends:
            self._compute(op, count, sources, ends)
            return True
        if op.kind in _MOVES and sources[0] is not None:
            q = self._q(sources[0])
            result = self._like(op.outputs[0], q)
            self._b.operators.append(replace(op, inputs=(sources[0],), outputs=(result,)))
            self._b.emit(Kind.DEQUANTIZE, [result], op.outputs[0])
            self._whole[op.outputs[0]] = result
            return True
        return False

    def _ends(self, tensor: int) -> list[int]:
        """Tensors that a float one is quantised to; none where something else reads it, or where scales differ."""
        users = self._users[tensor]
        if not users or any(n < 0 or self._network.operators[n].kind is not Kind.QUANTIZE for n in users):
            return []
        ends = [self._network.operators[n].outputs[0] for n in users]
        return ends if all(_equal(self._q(ends[0]), self._q(end)) for end in ends) else []

    def _q(self, tensor: int) -> Quantization:
        q = self._b.tensors[tensor].quantization
        assert q is not None
        return q

    def _like(self, tensor: int, q: Quantization) -> int:
        model = self._b.tensors[tensor]
        return self._b.activation(f"{model.name}/s8", model.shape, np.int8, q)

    def _compute(self, op: Operator, count: int, sources: Sequence[int | None], ends: list[int]) -> None:
        target = self._q(ends[0])
        inputs = [
            source if source is not None else self._quantised_constant(op.inputs[n], target)
            for n, source in enumerate(sources)
        ]
        if op.kind in WEIGHTED:
            inputs += [self._b.add(t) for t in self._parameters(op, self._q(inputs[0]))]
        direct = target
        if op.kind is Kind.SOFTMAX:
            direct = quantization(SOFTMAX_SCALE, SOFTMAX_ZERO)
        elif op.kind is Kind.CONCAT:
            inputs = [self._requantised(i, target) for i in inputs]
        elif op.kind in SAME_SCALE:
            direct = self._q(inputs[0])
            if not _equal(direct, target) and self._whole_map(op):
                op, direct = Operator(Kind.MEAN, op.inputs, op.outputs, axes=(1, 2)), target
        output = ends[0]
        if not _equal(direct, target):
            output = self._like(op.outputs[0], direct)
        self._b.operators.append(replace(op, inputs=tuple(inputs), outputs=(output,)))
        if output != ends[0]:
            self._b.emit(Kind.QUANTIZE, [output], ends[0])
        self._stands_for |= dict.fromkeys(ends, ends[0])

    def _whole_map(self, op: Operator) -> bool:
        """Whether it is an average of the whole map, which a MEAN gives too, in any scale and with one rounding."""
        shape = self._b.tensors[op.inputs[0]].shape
        plain = not any(op.padding) and op.activation is Activation.NONE
        return op.kind is Kind.AVERAGE_POOL and plain and op.kernel == shape[1:3]

    def _requantised(self, tensor: int, target: Quantization) -> int:
        if _equal(self._q(tensor), target):
            return tensor
        return self._b.emit(Kind.QUANTIZE, [tensor], self._like(tensor, target))

    def _quantised_constant(self, tensor: int, target: Quantization) -> int:
        stored = self._b.tensors[tensor]
        assert stored.data is not None
        q = stored.quantization
        if q is None or len(q.scale) > 1:
            q = activation_scale(float(stored.data.min()), float(stored.data.max()))
        return self._b.constant(stored.name, fixed.quantized(stored.data, q), q)

    def _parameters(self, op: Operator, x: Quantization) -> list[Tensor]:
        weight, bias = self._b.tensors[op.inputs[1]], self._b.tensors[op.inputs[2]] if len(op.inputs) > 2 else None
        assert weight.data is not None
        shift = bias.data if bias is not None else None
        made = weighted_parameters(weight, weight.data, bias, shift, op.kind, x)
        q = weight.quantization
        if q is None or q.zero_point.any() or (len(q.scale) > 1 and q.axis != WEIGHTED[op.kind]):
            return made
        spread = [1] * weight.data.ndim
        spread[WEIGHTED[op.kind]] = -1
        scale = np.broadcast_to(q.scale, (weight.shape[WEIGHTED[op.kind]],)).astype(np.float32)
        integers = np.clip(np.round(weight.data / scale.reshape(spread)), -128, 127).astype(np.int8)
        made[0] = replace(made[0], data=integers, quantization=quantization(scale, 0, WEIGHTED[op.kind]))
        if len(made) > 1 and shift is not None:
            product = (x.scale[0].astype(np.float64) * scale).astype(np.float32)
            rounded = np.clip(np.round(shift / product.astype(np.float64)), fixed.I32_MIN, fixed.I32_MAX)
            made[1] = replace(made[1], data=rounded.astype(np.int32), quantization=quantization(product, 0))
        return made


def _equal(a: Quantization, b: Quantization) -> bool:
    return bool(a.scale[0] == b.scale[0] and a.zero_point[0] == b.zero_point[0])
