"""Post-training quantisation to int8: symmetric weights per output channel, int32 biases, activations by calibration.

Scales follow LiteRT's rules, so that the result runs in LiteRT and TensorFlow Lite Micro as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedtiny_export.errors import ExportError
from fedtiny_export.infer import fixed, simulate
from fedtiny_export.infer.building import pruned, quantization, sound
from fedtiny_export.infer.check import SAME_SCALE, SOFTMAX_SCALE, SOFTMAX_ZERO, WEIGHTED, describe
from fedtiny_export.infer.network import Array, Kind, Network, Operator, Quantization, Tensor

CHUNK = 64  # samples that are calibrated together
LARGEST_BIAS = float(1 << 30)
SMALLEST_SCALE = 1e-9

Range = tuple[float, float]


def calibrate(network: Network, samples: Sequence[Array], *, percentile: float = 100.0) -> dict[int, Range]:
    """Least and largest value of every activation over n samples, by tensor index.

    `samples`: one float32 array (n, *shape) per input. `percentile` < 100 leaves out the outermost values of each
    side: the mean over chunks of samples of that percentile and of its mirror. Raises ExportError without samples.
    """
    count = len(samples[0]) if samples else 0
    if not count:
        raise ExportError("quantising takes samples to calibrate with: give some tens that are like those to come.")
    if not 50.0 < percentile <= 100.0:
        raise ExportError(f"a percentile of {percentile:g} does not lie above 50 and up to 100.")
    found: dict[int, list[Range]] = {}
    for start in range(0, count, CHUNK):
        for tensor, values in simulate.walk(network, [given[start : start + CHUNK] for given in samples]):
            if not np.isfinite(values).all():
                name = network.tensors[tensor].name
                raise ExportError(f"{name} is not finite for a calibration sample. Check the samples and the model.")
            found.setdefault(tensor, []).append(_range(values, percentile))
    if percentile < 100.0:
        means = {t: np.mean(ranges, axis=0) for t, ranges in found.items()}
        return {t: (float(low), float(high)) for t, (low, high) in means.items()}
    return {t: (min(r[0] for r in ranges), max(r[1] for r in ranges)) for t, ranges in found.items()}


def quantize(network: Network, samples: Sequence[Array], *, percentile: float = 100.0) -> Network:
    """The int8 network of a float32 one; inputs and outputs become int8 too.

    Raises ExportError for a network that has int8 tensors already, and as `calibrate` does.
    """
    sound(network)
    if any(t.dtype == np.int8 for t in network.tensors):
        raise ExportError(f"{network.name} is quantised already. Quantise the float model that it was made from.")
    scales = _scales(network, calibrate(network, samples, percentile=percentile))
    tensors = list(network.tensors)
    for index, q in scales.items():
        tensors[index] = _as_int8(tensors[index], q)
    operators = []
    for op in network.operators:
        inputs = list(op.inputs)
        if op.kind in WEIGHTED:
            for place, tensor in enumerate(_parameters(network, op, scales[op.inputs[0]]), start=1):
                inputs[place] = len(tensors)
                tensors.append(tensor)
        operators.append(replace(op, inputs=tuple(inputs)))
    return sound(pruned(replace(network, tensors=tuple(tensors), operators=tuple(operators))))


def quantized_samples(network: Network, samples: Sequence[Array]) -> list[Array]:
    """float32 samples, one array (n, *shape) per input, as the network takes them."""
    return [_entered(network.tensors[i], given) for i, given in zip(network.inputs, samples, strict=True)]


def as_float(tensor: Tensor, values: Array) -> Array:
    """Values of an activation as float32, whatever its type."""
    if tensor.dtype == np.float32 or tensor.quantization is None:
        return values.astype(np.float32)
    return fixed.dequantized(values, tensor.quantization)


def activation_scale(low: float, high: float) -> Quantization:
    """The scale and zero point that spread [low, high], widened to hold 0, over int8; 0 has a value of its own."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255.0 or 1.0)
    scale = max(scale, np.float32(SMALLEST_SCALE))
    return quantization(scale, int(np.clip(np.round(-128.0 - low / float(scale)), -128, 127)))


def _range(values: Array, percentile: float) -> Range:
    if percentile == 100.0:
        return float(values.min()), float(values.max())
    low, high = np.percentile(values, [100.0 - percentile, percentile])
    return float(low), float(high)


def _entered(tensor: Tensor, given: Array) -> Array:
    if tensor.dtype != np.int8 or given.dtype == np.int8 or tensor.quantization is None:
        return given
    return fixed.quantized(given, tensor.quantization)


def _scales(network: Network, ranges: dict[int, Range]) -> dict[int, Quantization]:
    """A scale for every activation, and for constants that operators read as such."""
    ranges = dict(ranges)
    for op in network.operators:
        for i in op.inputs[:1] if op.kind in WEIGHTED else op.inputs:
            data = network.tensors[i].data
            if data is not None:
                ranges[i] = (float(data.min()), float(data.max()))
    group = {i: i for i in ranges}
    fixed_scale: dict[int, Quantization] = {}
    for op in network.operators:
        if op.kind is Kind.SOFTMAX:
            fixed_scale[op.outputs[0]] = quantization(SOFTMAX_SCALE, SOFTMAX_ZERO)
        if op.kind in SAME_SCALE:
            for i in op.inputs:
                _join(group, i, op.outputs[0])
    members: dict[int, list[int]] = {}
    for i in ranges:
        members.setdefault(_root(group, i), []).append(i)
    scales: dict[int, Quantization] = {}
    for several in members.values():
        low, high = min(ranges[i][0] for i in several), max(ranges[i][1] for i in several)
        told = [fixed_scale[i] for i in several if i in fixed_scale]
        if told and (low < 0.0 or high > 1.0):
            names = ", ".join(network.tensors[i].name for i in several)
            raise ExportError(
                f"{names} share a scale with a softmax, whose values end at 1. Join them after the model."
            )
        scales |= dict.fromkeys(several, told[0] if told else activation_scale(low, high))
    return scales


def _root(group: dict[int, int], i: int) -> int:
    while group[i] != i:
        i = group[i]
    return i


def _join(group: dict[int, int], a: int, b: int) -> None:
    group[_root(group, a)] = _root(group, b)


def _as_int8(tensor: Tensor, q: Quantization) -> Tensor:
    data = None if tensor.data is None else fixed.quantized(tensor.data, q)
    return Tensor(tensor.name, tensor.shape, np.dtype(np.int8), q, data)


def _parameters(network: Network, op: Operator, x: Quantization) -> list[Tensor]:
    """Weight and bias of an operator, quantised for an input of scale `x`."""
    tensors = [network.tensors[i] for i in op.inputs]
    if any(t.data is None for t in tensors[1:]):
        raise ExportError(f"{describe(network, op)} computes its weight at run time. It must be stored.")
    weight: Any = tensors[1].data
    bias: Any = tensors[2].data if len(tensors) > 2 else None
    return weighted_parameters(tensors[1], weight, tensors[2] if len(tensors) > 2 else None, bias, op.kind, x)


def weighted_parameters(
    weight: Tensor, array: Array, bias: Tensor | None, shift: Array | None, kind: Kind, x: Quantization
) -> list[Tensor]:
    """int8 weight with a scale per output channel, and int32 bias in the scale of the products.

    A channel whose weights are too small to hold its bias in 32 bits gets a larger scale.
    """
    axis = WEIGHTED[kind]
    others = tuple(a for a in range(array.ndim) if a != axis)
    scale = np.maximum(np.abs(array).max(axis=others) / np.float32(127), np.float32(SMALLEST_SCALE))
    if shift is not None:
        scale = np.maximum(scale, np.abs(shift) / (np.float32(x.scale[0]) * np.float32(LARGEST_BIAS)))
    scale = scale.astype(np.float32)
    spread = [1] * array.ndim
    spread[axis] = -1
    values = np.clip(np.round(array / scale.reshape(spread)), -127, 127).astype(np.int8)
    made = [Tensor(weight.name, values.shape, values.dtype, quantization(scale, 0, axis), values)]
    if bias is not None and shift is not None:
        product = (x.scale[0] * scale).astype(np.float32)
        rounded = np.round(shift.astype(np.float64) / product).astype(np.int32)
        made.append(Tensor(bias.name, rounded.shape, rounded.dtype, quantization(product, 0), rounded))
    return made
