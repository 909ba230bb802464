"""Maps that arrive channels first become channels last, and the transposes between go.

A transpose is not computed where it stands: it is remembered as a view, and operators work on what it views wherever
that gives the same. Only where a reader needs the order itself is it written down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedtiny_export.infer.building import NetworkBuilder
from fedtiny_export.infer.network import Array, Kind, Network, Operator, Tensor

_ELEMENTWISE = (Kind.RELU, Kind.RELU6, Kind.QUANTIZE, Kind.DEQUANTIZE)


@dataclass(frozen=True)
class _View:
    """A tensor that is `source`, permuted, and then seen with the tensor's own shape."""

    source: int
    permutation: tuple[int, ...]


def sink_transposes(network: Network) -> Network:
    return _Layout(network).run()


def channels_last(rank: int) -> tuple[int, ...]:
    """(N, C, ...) -> (N, ..., C); nothing for fewer than 3 dimensions."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def channels_first(rank: int) -> tuple[int, ...]:
    return inverse(channels_last(rank))


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(permutation))


class _Layout:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._b = NetworkBuilder(replace(network, operators=()))
        self._views: dict[int, _View] = {}
        self._written: set[int] = set()

    def run(self) -> Network:
        for op in self._network.operators:
            if not self._sunk(op):
                self._b.operators.append(replace(op, inputs=tuple(self._plain(i) for i in op.inputs)))
        outputs = [self._plain(i) for i in self._network.outputs]
        return self._b.network(self._network.inputs, outputs, self._network.name)

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return self._b.tensors[tensor].shape

    def _plain(self, tensor: int) -> int:
        """The tensor itself, its view written down if it has one."""
        view = self._views.get(tensor)
        if view is None or tensor in self._written:
            return tensor
        self._written.add(tensor)
        shape = tuple(self._shape(view.source)[p] for p in view.permutation)
        if shape == self._shape(tensor):
            return self._b.emit(Kind.TRANSPOSE, [view.source], tensor, permutation=view.permutation)
        between = self._like(tensor, f"{self._b.tensors[tensor].name}/transposed", shape)
        self._b.emit(Kind.TRANSPOSE, [view.source], between, permutation=view.permutation)
        return self._b.emit(Kind.RESHAPE, [between], tensor)

    def _like(self, tensor: int, name: str, shape: tuple[int, ...]) -> int:
        model = self._b.tensors[tensor]
        return self._b.add(replace(model, name=name, shape=shape, data=None))

    def _view(self, tensor: int) -> _View | None:
        """The view of a tensor as a pure permutation; None where it has none, or one that also changes the shape."""
        view = self._views.get(tensor)
        if view is None:
            return None
        shape = tuple(self._shape(view.source)[p] for p in view.permutation)
        return view if shape == self._shape(tensor) else None

    def _set(self, tensor: int, source: int, permutation: tuple[int, ...]) -> None:
        """The tensor becomes a view; where that is the source itself, a mere change of name, by a reshape."""
        if permutation == tuple(range(len(permutation))) and self._shape(source) == self._shape(tensor):
            self._b.emit(Kind.RESHAPE, [source], tensor)
        else:
            self._views[tensor] = _View(source, permutation)

    def _sunk(self, op: Operator) -> bool:
        """Whether an operator was done on what its inputs view."""
        output = op.outputs[0]
        if op.kind is Kind.TRANSPOSE:
            view = self._view(op.inputs[0])
            if view is None:
                self._set(output, self._plain(op.inputs[0]), op.permutation)
            else:
                self._set(output, view.source, tuple(view.permutation[p] for p in op.permutation))
            return True
        if op.kind is Kind.FULLY_CONNECTED:
            return self._multiplied(op)
        view = self._view(op.inputs[0]) if op.inputs else None
        if op.kind in (Kind.ADD, Kind.CONCAT):
            return self._joined(op)
        if view is None:
            return False
        if op.kind is Kind.RESHAPE:
            return self._reshaped(op, view)
        if op.kind in _ELEMENTWISE:
            self._emit(op, [view.source], view.permutation)
            return True
        if op.kind is Kind.PAD:
            pads = tuple(op.pads[p] for p in inverse(view.permutation))
            self._emit(replace(op, pads=pads), [view.source], view.permutation)
            return True
        if op.kind is Kind.SOFTMAX and view.permutation[-1] == len(view.permutation) - 1:
            self._emit(op, [view.source], view.permutation)
            return True
        return op.kind is Kind.MEAN and self._averaged(op, view)

    def _emit(self, op: Operator, inputs: Sequence[int], permutation: tuple[int, ...]) -> None:
        """The operator on the sources; its output views the result."""
        output = op.outputs[0]
        shape = tuple(self._shape(output)[p] for p in inverse(permutation))
        result = self._like(output, self._b.tensors[output].name, shape)
        self._b.operators.append(replace(op, inputs=tuple(inputs), outputs=(result,)))
        self._set(output, result, permutation)

    def _joined(self, op: Operator) -> bool:
        """ADD and CONCAT where every input has the same permutation; constants are permuted."""
        views = [self._view(i) for i in op.inputs]
        permutations = {view.permutation for view in views if view is not None}
        constant = [self._b.tensors[i].data is not None for i in op.inputs]
        if len(permutations) != 1 or not all(v is not None or c for v, c in zip(views, constant, strict=True)):
            return False
        (permutation,) = permutations
        inputs = [
            view.source if view is not None else self._permuted(i, inverse(permutation))
            for i, view in zip(op.inputs, views, strict=True)
        ]
        axis = permutation[op.axis] if op.kind is Kind.CONCAT else 0
        self._emit(replace(op, axis=axis), inputs, permutation)
        return True

    def _permuted(self, tensor: int, permutation: tuple[int, ...]) -> int:
        constant = self._b.tensors[tensor]
        assert constant.data is not None
        return self._b.constant(constant.name, constant.data.transpose(permutation), constant.quantization)

    def _averaged(self, op: Operator, view: _View) -> bool:
        """MEAN: over the axes of the source; what is left of the permutation stays a view."""
        axes = tuple(sorted(view.permutation[a] for a in op.axes))
        output = op.outputs[0]
        if len(self._shape(output)) == len(view.permutation):
            self._emit(replace(op, axes=axes), [view.source], view.permutation)
            return True
        left = [p for p in view.permutation if p not in axes]
        rank = {p: n for n, p in enumerate(sorted(left))}
        self._emit(replace(op, axes=axes), [view.source], tuple(rank[p] for p in left))
        return True

    def _reshaped(self, op: Operator, view: _View) -> bool:
        """RESHAPE of a view: of the source where only sizes of 1 come and go, else remembered for a matrix product."""
        output = op.outputs[0]
        target = self._shape(output)
        source = self._shape(view.source)
        before = [p for p in view.permutation if source[p] != 1]
        after = [i for i, d in enumerate(target) if d != 1]
        if [source[p] for p in before] == [target[i] for i in after]:
            order = [after[n] for n in np.argsort(before)]  # the target's axes as they lie in the source
            for candidate in (tuple(range(len(target))), channels_last(len(target)), _general(target, order)):
                if [c for c in candidate if target[c] != 1] == order:
                    shape = tuple(target[c] for c in candidate)
                    between = self._like(output, self._b.tensors[output].name, shape)
                    self._b.emit(Kind.RESHAPE, [view.source], between)
                    self._set(output, between, inverse(candidate))
                    return True
        if math.prod(target) == target[-1] or target[:-1] == (source[0],):
            self._views[output] = view
            return True
        return False

    def _multiplied(self, op: Operator) -> bool:
        """A flattened view into a matrix product: the weight's columns are permuted instead of the activation."""
        view = self._views.get(op.inputs[0])
        weight = self._b.tensors[op.inputs[1]]
        if view is None or weight.data is None:
            return False
        source = self._shape(view.source)
        shape = tuple(source[p] for p in view.permutation)
        rest = shape[1:]
        if view.permutation[0] != 0 or self._shape(op.inputs[0])[-1] != weight.shape[1]:
            return False
        if math.prod(rest) != weight.shape[1]:
            return False
        moved = tuple(p - 1 for p in view.permutation[1:])
        data: Array = weight.data.reshape(weight.shape[0], *rest).transpose(0, *(m + 1 for m in inverse(moved)))
        columns = self._b.add(_with(weight, data.reshape(weight.shape)))
        flat = self._like(op.inputs[0], self._b.tensors[op.inputs[0]].name, self._shape(op.inputs[0]))
        self._b.emit(Kind.RESHAPE, [view.source], flat)
        self._b.operators.append(replace(op, inputs=(flat, columns, *map(self._plain, op.inputs[2:]))))
        return True


def _with(tensor: Tensor, data: Array) -> Tensor:
    return replace(tensor, data=np.ascontiguousarray(data))


def _general(target: tuple[int, ...], order: Sequence[int]) -> tuple[int, ...]:
    return (*(i for i, d in enumerate(target) if d == 1), *order)
