"""Networks with pruned weights: what the engine's sparse kernels are held to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtiny_export.infer.building import NetworkBuilder, quantization, sound
from fedtiny_export.infer.check import output_shape
from fedtiny_export.infer.network import Activation, Kind, Network, Operator, Tensor

WEIGHTED = (Kind.CONV2D, Kind.FULLY_CONNECTED)


def pruned(network: Network, density: float) -> Network:
    """Keeps the largest weights of each convolution but the first, so that `density` of all weights are left; first
    convolution and fully connected layers stay dense, as in training."""
    weights = [op.inputs[1] for op in network.operators if op.kind in WEIGHTED]
    thinned = [op.inputs[1] for op in network.operators if op.kind is Kind.CONV2D][1:]
    tensors = list(network.tensors)
    total, some = (sum(tensors[i].size for i in part) for part in (weights, thinned))
    share = (density * total - (total - some)) / some
    for i in thinned:
        tensors[i] = _thinned(tensors[i], share)
    return replace(network, tensors=tuple(tensors))


def _thinned(weight: Tensor, share: float) -> Tensor:
    assert weight.data is not None
    assert weight.quantization is not None
    real = np.abs(weight.data * weight.quantization.scale.reshape(-1, *[1] * (weight.data.ndim - 1)))
    threshold = np.sort(real, axis=None)[-max(1, round(share * weight.size))]
    return replace(weight, data=np.where(real >= threshold, weight.data, 0).astype(weight.data.dtype))


def wide_convolution(random: np.random.Generator, density: float) -> Network:
    """One int8 convolution over a map as wide as real ones, its settings and its scales drawn."""
    b = NetworkBuilder()
    shape = (1, int(random.integers(1, 14)), int(random.integers(1, 23)), int(random.integers(1, 18)))
    kernel = (int(random.integers(1, 4)), int(random.integers(1, 4)))
    stride, dilation = (int(random.integers(1, 4)), int(random.integers(1, 3))), (int(random.integers(1, 3)), 1)
    padding = (kernel[0] * dilation[0], kernel[1], int(random.integers(0, 3)), int(random.integers(0, 3)))
    out = int(random.integers(1, 20))
    source = quantization(0.05, int(random.integers(-128, 128)))
    scales = np.exp(random.uniform(np.log(0.002), np.log(0.05), out)).astype(np.float32)
    weight = random.integers(-127, 128, (out, *kernel, shape[3]))
    weight = np.where(random.random(weight.shape) < density, weight, 0).astype(np.int8)
    x = b.activation("x", shape, np.dtype(np.int8), source)
    w = b.constant("w", weight, quantization(scales, 0))
    bias = b.constant(
        "b", random.integers(-8000, 8001, out).astype(np.int32), quantization(scales * source.scale[0], 0)
    )
    fields = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    made = Operator(Kind.CONV2D, (x, w, bias), (0,), **fields)  # type: ignore[arg-type]
    # from results of a hundredth of the range to ones far outside of it, so that shifts go both ways
    live = max(1.0, weight.size * density / out)
    spread = float(scales.mean() * 0.05) * 74 * 74 * np.sqrt(live) / 60
    target = quantization(spread * float(np.exp(random.uniform(-6, 3))), int(random.integers(-128, 128)))
    y = b.activation("y", output_shape(made, [b.tensors[i].shape for i in (x, w, bias)], ()), np.dtype(np.int8), target)
    activation = (Activation.NONE, Activation.RELU, Activation.RELU6)[random.integers(3)]
    b.emit(Kind.CONV2D, [x, w, bias], y, activation=activation, **fields)
    return sound(b.network([x], [y]))
