"""A network while it is built, and how passes change one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from fedtiny_export.errors import UnsupportedModel
from fedtiny_export.infer.check import check_network
from fedtiny_export.infer.network import Array, Kind, Network, Operator, Quantization, Tensor


class NetworkBuilder:
    """Tensors and operators that grow one by one."""

    def __init__(self, network: Network | None = None) -> None:
        self.tensors: list[Tensor] = list(network.tensors) if network else []
        self.operators: list[Operator] = list(network.operators) if network else []

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(
        self, name: str, shape: Iterable[int], dtype: Any = np.float32, quantization: Quantization | None = None
    ) -> int:
        return self.add(Tensor(name, tuple(shape), np.dtype(dtype), quantization))

    def constant(self, name: str, data: Array, quantization: Quantization | None = None) -> int:
        data = np.array(data, order="C")  # its own copy; and a scalar stays one
        return self.add(Tensor(name, data.shape, data.dtype, quantization, data))

    def emit(self, kind: Kind, inputs: Iterable[int], output: int, **fields: Any) -> int:
        self.operators.append(Operator(kind, tuple(inputs), (output,), **fields))
        return output

    def network(self, inputs: Iterable[int], outputs: Iterable[int], name: str = "model") -> Network:
        """What was built, less what nothing reads."""
        return pruned(Network(tuple(self.tensors), tuple(self.operators), tuple(inputs), tuple(outputs), name))


def sound(network: Network) -> Network:
    """The network itself. Raises UnsupportedModel with all that check_network finds."""
    problems = check_network(network)
    if problems:
        raise UnsupportedModel(list(dict.fromkeys(problems)))
    return network


def pruned(network: Network) -> Network:
    """The network without operators whose output nothing reads, and without tensors that nothing uses."""
    needed = set(network.outputs)
    kept: list[Operator] = []
    for op in reversed(network.operators):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    used = sorted(needed.union(network.inputs))
    number = {old: new for new, old in enumerate(used)}
    operators = tuple(
        replace(op, inputs=tuple(number[i] for i in op.inputs), outputs=tuple(number[i] for i in op.outputs))
        for op in reversed(kept)
    )
    return replace(
        network,
        tensors=tuple(network.tensors[i] for i in used),
        operators=operators,
        inputs=tuple(number[i] for i in network.inputs),
        outputs=tuple(number[i] for i in network.outputs),
    )


def readers(network: Network) -> dict[int, list[int]]:
    """Operator numbers that read a tensor, by tensor; -1 stands for the network's outputs."""
    found: dict[int, list[int]] = {i: [] for i in range(len(network.tensors))}
    for number, op in enumerate(network.operators):
        for i in op.inputs:
            found[i].append(number)
    for i in network.outputs:
        found[i].append(-1)
    return found


def same_padding(
    sizes: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the padding that TensorFlow calls SAME, for a map of `sizes`."""
    before, after = [], []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return (before[0], before[1], after[0], after[1])


def quantization(scale: Any, zero_point: Any, axis: int = 0) -> Quantization:
    scale = np.atleast_1d(np.asarray(scale, np.float32))
    zero = np.broadcast_to(np.asarray(zero_point, np.int32).reshape(-1), scale.shape)
    return Quantization(scale, np.array(zero), axis)
