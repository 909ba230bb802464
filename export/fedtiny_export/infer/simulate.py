"""A network in numpy, many samples at once: float32, and int8 with LiteRT's integers to the bit.

It is what calibration and accuracy reports run, and the engine's oracle where LiteRT is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fedtiny_export.infer import fixed
from fedtiny_export.infer.check import WEIGHTED
from fedtiny_export.infer.network import Activation, Array, Kind, Network, Operator, Quantization, Tensor


def run(network: Network, samples: Sequence[Array], keep: Iterable[int] | None = None) -> dict[int, Array]:
    """Activations by tensor index, each (n, *shape), of n samples.

    `samples`: one array (n, *shape) per input, in the input's own type. `keep`: the tensors to give back, the outputs
    if None. Raises ValueError for samples that do not fit.
    """
    wanted = set(network.outputs if keep is None else keep)
    return {i: value for i, value in walk(network, samples) if i in wanted}


def walk(network: Network, samples: Sequence[Array]) -> Iterator[tuple[int, Array]]:
    """Every activation with its tensor index, as soon as it is computed; what is read no more is let go."""
    if len(samples) != len(network.inputs):
        raise ValueError(f"{len(samples)} arrays of samples for {len(network.inputs)} inputs")
    values: dict[int, Array] = {}
    for i, given in zip(network.inputs, samples, strict=True):
        tensor = network.tensors[i]
        if given.shape[1:] != tensor.shape or given.dtype != tensor.dtype:
            raise ValueError(
                f"input {tensor.name} is {tensor.dtype} {tensor.shape}; samples are {given.dtype} {given.shape[1:]}"
            )
        values[i] = given
        yield i, given
    last = {i: number for number, op in enumerate(network.operators) for i in op.inputs}
    count = len(samples[0]) if samples else 1
    for number, op in enumerate(network.operators):
        inputs = [_value(network.tensors[i], values.get(i), count) for i in op.inputs]
        result = compute(network, op, inputs)
        values[op.outputs[0]] = result
        yield op.outputs[0], result
        for i in op.inputs:
            if last[i] == number:
                values.pop(i, None)


def _value(tensor: Tensor, value: Array | None, count: int) -> Array:
    if value is not None:
        return value
    assert tensor.data is not None
    return np.broadcast_to(tensor.data, (count, *tensor.shape))


def compute(network: Network, op: Operator, inputs: Sequence[Array]) -> Array:
    """One operator: inputs (n, *shape) -> output (n, *shape). Constants come broadcast over the samples."""
    tensors = [network.tensors[i] for i in op.inputs]
    output = network.tensors[op.outputs[0]]
    kernel = (_INT8 if tensors[0].dtype == np.int8 else _FLOAT)[op.kind]
    result = kernel(op, tensors, inputs, output)
    return np.ascontiguousarray(result.reshape(len(inputs[0]), *output.shape))


Kernel = Callable[[Operator, Sequence[Tensor], Sequence[Array], Tensor], Array]


def _q(tensor: Tensor) -> Quantization:
    assert tensor.quantization is not None
    return tensor.quantization


def _data(tensor: Tensor) -> Array:
    if tensor.data is None:
        raise ValueError(f"{tensor.name} is a weight without data")
    return tensor.data


# Sums of products, of float32 or of integers that float64 holds exactly.


def _sums(op: Operator, x: Array, weight: Array) -> Array:
    if op.kind is Kind.FULLY_CONNECTED:
        return x.reshape(-1, weight.shape[1]) @ weight.T
    maps = x.reshape(-1, *x.shape[-3:])
    total: Any = 0
    for ky, kx, part in _windows(op, maps, 0):
        if op.kind is Kind.CONV2D:
            total = total + part @ weight[:, ky, kx, :].T
        else:
            total = total + np.repeat(part, weight.shape[3] // part.shape[-1], axis=-1) * weight[0, ky, kx]
    return np.asarray(total)


def _windows(op: Operator, maps: Array, fill: Any) -> Iterator[tuple[int, int, Array]]:
    """For each position of the kernel what it meets: (n, out height, out width, channels)."""
    top, left, bottom, right = op.padding
    padded = np.pad(maps, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    starts = [[k * d for k in range(size)] for size, d in zip(op.kernel, op.dilation, strict=True)]
    for ky, top in enumerate(starts[0]):
        rows = slice(top, padded.shape[1] - starts[0][-1] + top, op.stride[0])
        for kx, left in enumerate(starts[1]):
            yield ky, kx, padded[:, rows, left : padded.shape[2] - starts[1][-1] + left : op.stride[1]]


def _pooled(op: Operator, maps: Array, wide: Any) -> tuple[Array, Array]:
    """Sum of what lies inside the map under each window, and how much that is."""
    inside = np.ones((1, *maps.shape[1:3], 1), np.int64)
    total: Any = sum(part for _, _, part in _windows(op, maps.astype(wide), 0))
    count: Any = sum(part for _, _, part in _windows(op, inside, 0))
    return total, count


# float32


def _fused(x: Array, activation: Activation) -> Array:
    if activation is Activation.NONE:
        return x
    return np.clip(x, np.float32(0), np.float32(6) if activation is Activation.RELU6 else None)


def _weighted_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    total = _sums(op, inputs[0], _data(tensors[1]))
    return _fused(total + _data(tensors[2]) if len(tensors) > 2 else total, op.activation)


def _add_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return _fused(inputs[0] + inputs[1], op.activation)


def _average_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    total, count = _pooled(op, inputs[0].reshape(-1, *inputs[0].shape[-3:]), np.float32)
    return _fused(total / count.astype(np.float32), op.activation)


def _maximum(op: Operator, inputs: Sequence[Array], least: Any) -> Array:
    maps = inputs[0].reshape(-1, *inputs[0].shape[-3:])
    parts = [part for _, _, part in _windows(op, maps, least)]
    return np.asarray(np.maximum.reduce(parts))


def _max_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return _fused(_maximum(op, inputs, -np.inf), op.activation)


def _mean_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return np.asarray(inputs[0].mean(axis=tuple(a + 1 for a in op.axes), dtype=np.float32))


def _softmax_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    x = inputs[0]
    powers = np.exp((x - x.max(axis=-1, keepdims=True)) * np.float32(op.beta))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _quantize_f32(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return fixed.quantized(inputs[0], _q(output))


# What is the same for both types: it moves values and computes none.


def _concat(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return np.concatenate(inputs, axis=op.axis + 1)


def _pad(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    zero = _q(output).zero_point[0] if output.dtype == np.int8 else 0
    return np.pad(inputs[0], ((0, 0), *op.pads), constant_values=zero)


def _reshape(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return inputs[0]


def _transpose(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return inputs[0].transpose(0, *(p + 1 for p in op.permutation))


# int8


def _weighted_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    x, weight = _q(tensors[0]), _q(tensors[1])
    centred = (inputs[0].astype(np.int16) - np.int16(x.zero_point[0])).astype(np.float64)
    total = _sums(op, centred, _data(tensors[1]).astype(np.float64)).astype(np.int64)
    if len(tensors) > 2:
        total = total + _data(tensors[2])
    pairs = [fixed.multiplier(real) for real in effective_scales(x, weight, _q(output))]
    q, shift = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    if len(pairs) == 1:
        q, shift = q[0], shift[0]
    rescale = fixed.scaled_once if op.kind is Kind.FULLY_CONNECTED else fixed.scaled
    return fixed.clamped(rescale(total, q, shift), _q(output), op.activation)


def effective_scales(x: Quantization, weight: Quantization, output: Quantization) -> list[float]:
    """What an accumulator is multiplied by, one for all channels or one per channel."""
    return [float(x.scale[0]) * float(scale) / float(output.scale[0]) for scale in weight.scale]


def _add_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return fixed.added(inputs[0], inputs[1], _q(tensors[0]), _q(tensors[1]), _q(output), op.activation)


def _average_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    total, count = _pooled(op, inputs[0].reshape(-1, *inputs[0].shape[-3:]), np.int64)
    return np.asarray(np.clip(fixed.averaged(total, count), *fixed.limits(op.activation, _q(output))), np.int8)


def _max_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return np.clip(_maximum(op, inputs, -128), *fixed.limits(op.activation, _q(output))).astype(np.int8)


def _mean_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    x, y = _q(tensors[0]), _q(output)
    axes = tuple(a + 1 for a in op.axes)
    count = int(np.prod([inputs[0].shape[a] for a in axes]))
    total = inputs[0].astype(np.int64).sum(axis=axes) - count * int(x.zero_point[0])
    return fixed.meaned(total, count, x, y)


def _softmax_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return fixed.softmax(inputs[0], _q(tensors[0]), op.beta)


def _relu_s8(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    x, y = _q(tensors[0]), _q(output)
    real = float(np.float32(x.scale[0]) / np.float32(y.scale[0]))
    acc = fixed.scaled(inputs[0].astype(np.int64) - int(x.zero_point[0]), *fixed.multiplier(real))
    return fixed.clamped(acc, y, Activation.RELU6 if op.kind is Kind.RELU6 else Activation.RELU)


def _requantize(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    return fixed.requantized(inputs[0], _q(tensors[0]), _q(output))


def _dequantize(op: Operator, tensors: Sequence[Tensor], inputs: Sequence[Array], output: Tensor) -> Array:
    q = _q(tensors[0])
    return fixed.dequantized(inputs[0], Quantization(q.scale, q.zero_point, q.axis + 1))


_BOTH: dict[Kind, Kernel] = {Kind.CONCAT: _concat, Kind.PAD: _pad, Kind.RESHAPE: _reshape, Kind.TRANSPOSE: _transpose}
_FLOAT: dict[Kind, Kernel] = {
    **dict.fromkeys(WEIGHTED, _weighted_f32),
    **_BOTH,
    Kind.ADD: _add_f32,
    Kind.AVERAGE_POOL: _average_f32,
    Kind.MAX_POOL: _max_f32,
    Kind.MEAN: _mean_f32,
    Kind.SOFTMAX: _softmax_f32,
    Kind.RELU: lambda op, tensors, inputs, output: _fused(inputs[0], Activation.RELU),
    Kind.RELU6: lambda op, tensors, inputs, output: _fused(inputs[0], Activation.RELU6),
    Kind.QUANTIZE: _quantize_f32,
}
_INT8: dict[Kind, Kernel] = {
    **dict.fromkeys(WEIGHTED, _weighted_s8),
    **_BOTH,
    Kind.ADD: _add_s8,
    Kind.AVERAGE_POOL: _average_s8,
    Kind.MAX_POOL: _max_s8,
    Kind.MEAN: _mean_s8,
    Kind.SOFTMAX: _softmax_s8,
    Kind.RELU: _relu_s8,
    Kind.RELU6: _relu_s8,
    Kind.QUANTIZE: _requantize,
    Kind.DEQUANTIZE: _dequantize,
}
