"""Networks of one operator with random shapes, settings and scales: what simulation, engine and LiteRT are held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedtiny_export.infer.building import NetworkBuilder, quantization, same_padding, sound
from fedtiny_export.infer.check import SAME_SCALE, WEIGHTED, output_shape
from fedtiny_export.infer.network import Activation, Array, Kind, Network, Operator, Quantization

Random = np.random.Generator
ACTIVATIONS = (Activation.NONE, Activation.NONE, Activation.RELU, Activation.RELU6)


def one_operator(kind: Kind, dtype: Any, random: Random) -> Network:
    """A sound network that computes one operator of the kind, on int8 or float32."""
    return sound(_MAKERS[kind](kind, np.dtype(dtype), random))


def samples(network: Network, count: int, random: Random) -> list[Array]:
    """`count` samples per input, over the whole range of the type."""
    return [
        random.integers(-128, 128, (count, *network.tensors[i].shape)).astype(np.int8)
        if network.tensors[i].dtype == np.int8
        else random.normal(0, 3, (count, *network.tensors[i].shape)).astype(np.float32)
        for i in network.inputs
    ]


def _any_scale(random: Random, low: float = 0.004, high: float = 0.3) -> Quantization:
    return quantization(np.exp(random.uniform(np.log(low), np.log(high))), random.integers(-128, 128))


def _activation(b: NetworkBuilder, name: str, shape: Any, dtype: Any, q: Quantization) -> int:
    return b.activation(name, [int(d) for d in shape], dtype, q if dtype == np.int8 else None)


def _map(random: Random) -> tuple[int, int, int, int]:
    return (1, int(random.integers(1, 10)), int(random.integers(1, 10)), int(random.integers(1, 9)))


def _window(kind: Kind, random: Random, shape: tuple[int, ...]) -> dict[str, Any]:
    """kernel, stride, dilation and padding, as LiteRT knows them or explicit, that leave something to compute."""
    while True:
        kernel = (int(random.integers(1, 5)), int(random.integers(1, 5)))
        stride = (int(random.integers(1, 4)), int(random.integers(1, 4)))
        pooled = kind in (Kind.AVERAGE_POOL, Kind.MAX_POOL)
        dilation = (
            (1, 1) if pooled or random.random() < 0.7 else (int(random.integers(1, 3)), int(random.integers(1, 3)))
        )
        padding = same_padding((shape[1], shape[2]), kernel, stride, dilation)
        if random.random() < 0.4:
            padding = (0, 0, 0, 0)
        elif random.random() < 0.3 and kind is not Kind.AVERAGE_POOL:
            padding = tuple(int(random.integers(0, k)) for k in (*kernel, *kernel))  # type: ignore[assignment]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        room = (shape[1] + padding[0] + padding[2], shape[2] + padding[1] + padding[3])
        small = max(padding[0], padding[2]) < kernel[0] and max(padding[1], padding[3]) < kernel[1]
        if reach[0] <= room[0] and reach[1] <= room[1] and (small or not pooled):
            return {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


def _weighted(kind: Kind, dtype: Any, random: Random) -> Network:
    b = NetworkBuilder()
    shape = _map(random) if kind is not Kind.FULLY_CONNECTED else (1, int(random.integers(1, 200)))
    fields = _window(kind, random, shape) if kind is not Kind.FULLY_CONNECTED else {}
    out = int(random.integers(1, 12))
    match kind:
        case Kind.CONV2D:
            wanted = (out, *fields["kernel"], shape[3])
        case Kind.DEPTHWISE_CONV2D:
            out = shape[3] * int(random.integers(1, 4))
            wanted = (1, *fields["kernel"], out)
        case _:
            wanted = (out, shape[1])
    source = _any_scale(random)
    x = _activation(b, "x", shape, dtype, source)
    fan = int(np.prod(wanted)) // out
    if dtype == np.int8:
        per_channel = random.random() < 0.7
        scales = np.exp(random.uniform(np.log(0.002), np.log(0.05), out if per_channel else 1)).astype(np.float32)
        weight = quantization(scales, 0, WEIGHTED[kind])
        w = b.constant("w", random.integers(-127, 128, wanted).astype(np.int8), weight)
        bias = random.integers(-8000, 8001, out).astype(np.int32)
        biases = [b.constant("b", bias, quantization(scales * source.scale[0], 0))]
        spread = float(scales.mean() * source.scale[0]) * 74 * 74 * np.sqrt(fan)
        target = quantization(spread / random.uniform(20, 200), random.integers(-128, 128))
    else:
        w = b.constant("w", random.normal(0, 1, wanted).astype(np.float32))
        biases = [b.constant("b", random.normal(0, 1, out).astype(np.float32))]
        target = source
    inputs = [x, w, *(biases if random.random() < 0.8 else [])]
    op = Operator(kind, tuple(inputs), (0,), **fields)
    y = _activation(b, "y", output_shape(op, [b.tensors[i].shape for i in inputs], (1, out)), dtype, target)
    b.emit(kind, inputs, y, activation=ACTIVATIONS[random.integers(4)], **fields)
    return b.network([x], [y])


def _unary(kind: Kind, dtype: Any, random: Random) -> Network:
    """One activation in, one out; where scales need not be equal they are not."""
    b = NetworkBuilder()
    shape = _map(random)
    fields: dict[str, Any] = {}
    source = _any_scale(random)
    target = (
        source if kind in SAME_SCALE else _any_scale(random, float(source.scale[0]) / 3, float(source.scale[0]) * 5)
    )
    given: tuple[int, ...] = ()
    match kind:
        case Kind.AVERAGE_POOL | Kind.MAX_POOL:
            fields = {**_window(kind, random, shape), "activation": ACTIVATIONS[random.integers(4)]}
        case Kind.PAD:
            fields = {"pads": tuple((int(random.integers(0, 3)), int(random.integers(0, 3))) for _ in shape)}
        case Kind.MEAN:
            axes = tuple(sorted(int(a) for a in random.choice(4, int(random.integers(1, 4)), replace=False)))
            fields = {"axes": axes}
            given = tuple(d for i, d in enumerate(shape) if i not in axes) if random.random() < 0.5 else ()
        case Kind.TRANSPOSE:
            fields = {"permutation": tuple(int(p) for p in random.permutation(4))}
        case Kind.RESHAPE:
            given = (1, int(np.prod(shape)))
        case Kind.SOFTMAX:
            shape = (1, 1, 1, int(random.integers(1, 40)))
            fields, target = {"beta": float(random.choice([1.0, 1.0, 0.5, 2.0]))}, quantization(1 / 256, -128)
        case _:
            pass
    x = _activation(b, "x", shape, dtype, source)
    wanted = output_shape(Operator(kind, (x,), (0,), **fields), [shape], given)
    y = _activation(b, "y", wanted, dtype, target)
    b.emit(kind, [x], y, **fields)
    return b.network([x], [y])


def _binary(kind: Kind, dtype: Any, random: Random) -> Network:
    b = NetworkBuilder()
    shape, left = _map(random), _any_scale(random)
    if kind is Kind.ADD:
        right = _any_scale(random, float(left.scale[0]) / 4, float(left.scale[0]) * 4)
        target = _any_scale(random, float(left.scale[0]), float(left.scale[0]) * 4)
        inputs = [_activation(b, name, shape, dtype, q) for name, q in (("x", left), ("z", right))]
        y = _activation(b, "y", shape, dtype, target)
        b.emit(kind, inputs, y, activation=ACTIVATIONS[random.integers(4)])
        return b.network(inputs, [y])
    axis = int(random.integers(0, 4))
    count = int(random.integers(2, 5))
    shapes = [tuple(int(random.integers(1, 6)) if i == axis else d for i, d in enumerate(shape)) for _ in range(count)]
    inputs = [_activation(b, f"x{i}", each, dtype, left) for i, each in enumerate(shapes)]
    op = Operator(kind, tuple(inputs), (0,), axis=axis)
    y = _activation(b, "y", output_shape(op, shapes, ()), dtype, left)
    b.emit(kind, inputs, y, axis=axis)
    return b.network(inputs, [y])


def _between(kind: Kind, dtype: Any, random: Random) -> Network:
    """QUANTIZE from `dtype` to int8, DEQUANTIZE from int8 to float32."""
    b = NetworkBuilder()
    shape, source, target = _map(random), _any_scale(random), _any_scale(random)
    made = Kind.DEQUANTIZE is kind
    x = _activation(b, "x", shape, np.dtype(np.int8) if made else dtype, source)
    y = _activation(b, "y", shape, np.dtype(np.float32) if made else np.dtype(np.int8), target)
    b.emit(kind, [x], y)
    return b.network([x], [y])


_MAKERS: dict[Kind, Callable[[Kind, Any, Random], Network]] = {
    **dict.fromkeys(WEIGHTED, _weighted),
    **dict.fromkeys(
        (Kind.AVERAGE_POOL, Kind.MAX_POOL, Kind.PAD, Kind.MEAN, Kind.TRANSPOSE, Kind.RESHAPE, Kind.SOFTMAX, Kind.RELU,
         Kind.RELU6),
        _unary,
    ),
    Kind.ADD: _binary,
    Kind.CONCAT: _binary,
    Kind.QUANTIZE: _between,
    Kind.DEQUANTIZE: _between,
}  # fmt: skip
