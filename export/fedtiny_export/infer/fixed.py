"""LiteRT's integer arithmetic: the definition that int8 inference follows to the bit.

Accumulators are int64 arrays that hold int32 values. Rounding is that of LiteRT's reference kernels: doubling high
product to nearest, then division by a power of two to nearest, ties away from zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fedtiny_export.infer.network import Activation, Array, Quantization

I32_MIN, I32_MAX = -(1 << 31), (1 << 31) - 1
LEFT_SHIFT = 20  # by which ADD widens its inputs
DIFF_INTEGER_BITS = 5  # of the differences that SOFTMAX takes to the power of e
SUM_INTEGER_BITS = 12  # of its sums


def round_away(value: Any) -> Any:
    """To the nearest integer, halves away from zero; numpy's own rint takes them to even. Keeps the float type."""
    whole = np.trunc(value)
    return whole + np.where(np.abs(value - whole) >= 0.5, np.sign(value), 0).astype(np.asarray(value).dtype)


def multiplier(real: float) -> tuple[int, int]:
    """(q, shift) with real = q * 2^(shift - 31) to nearest, 2^30 <= q < 2^31; (0, 0) for what is too small."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    q = math.floor(fraction * (1 << 31) + 0.5)
    if q == 1 << 31:
        q, shift = q // 2, shift + 1
    return (0, 0) if shift < -31 else (q, shift)


def scaled(acc: Any, q: Any, shift: Any) -> Any:
    """acc * q * 2^(shift - 31), rounded twice. `q` and `shift` are numbers or arrays along the last axis."""
    shift = np.asarray(shift)
    return rounding_shift(doubling_high(acc << np.maximum(shift, 0), q), np.maximum(-shift, 0))


def scaled_once(acc: Any, q: Any, shift: Any) -> Any:
    """acc * q * 2^(shift - 31), rounded once, halves up: as LiteRT's fully connected kernel does it."""
    right = 31 - np.asarray(shift, np.int64)
    return (acc * q + (np.int64(1) << (right - 1))) >> right


def doubling_high(a: Any, b: Any) -> Any:
    """High half of 2 * a * b, to nearest."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.minimum(_divided(nudged, 1 << 31), I32_MAX)


def rounding_shift(x: Any, exponent: Any) -> Any:
    """x / 2^exponent to nearest, ties away from zero."""
    mask = (np.int64(1) << np.asarray(exponent, np.int64)) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def _divided(a: Any, b: int) -> Any:
    """a / b towards zero, as C divides."""
    return np.where(a >= 0, a // b, -((-a) // b))


def limits(activation: Activation, q: Quantization) -> tuple[int, int]:
    """Least and largest int8 that an operator with a fused activation gives."""
    scale, zero = np.float32(q.scale[0]), int(q.zero_point[0])
    low = -128 if activation is Activation.NONE else max(-128, zero)
    six = zero + int(round_away(np.float32(6.0) / scale))
    return low, min(127, six) if activation is Activation.RELU6 else 127


def clamped(acc: Any, q: Quantization, activation: Activation = Activation.NONE) -> Array:
    low, high = limits(activation, q)
    return np.asarray(np.clip(acc + int(q.zero_point[0]), low, high), np.int8)


def quantized(x: Array, q: Quantization) -> Array:
    """float32 -> int8, per tensor."""
    scaled_down = round_away(x.astype(np.float32) / np.float32(q.scale[0])).astype(np.float64)
    return np.asarray(np.clip(scaled_down + int(q.zero_point[0]), -128, 127), np.int8)


def dequantized(x: Array, q: Quantization) -> Array:
    """int8 or int32 -> float32, per tensor or along `q.axis`."""
    shape = [1] * x.ndim
    if len(q.scale) > 1:
        shape[q.axis] = -1
    scale, zero = q.scale.astype(np.float64).reshape(shape), q.zero_point.astype(np.int64).reshape(shape)
    result: Array = (scale * (x.astype(np.int64) - zero)).astype(np.float32)
    return result


def requantized(x: Array, source: Quantization, target: Quantization) -> Array:
    q, shift = multiplier(float(source.scale[0]) / float(target.scale[0]))
    return clamped(scaled(x.astype(np.int64) - int(source.zero_point[0]), q, shift), target)


def added(a: Array, b: Array, qa: Quantization, qb: Quantization, target: Quantization, fused: Activation) -> Array:
    twice = float(np.float32(2) * max(qa.scale[0], qb.scale[0]))
    total = sum(
        scaled((x.astype(np.int64) - int(q.zero_point[0])) << LEFT_SHIFT, *multiplier(float(q.scale[0]) / twice))
        for x, q in ((a, qa), (b, qb))
    )
    q, shift = multiplier(twice / float(np.float32(1 << LEFT_SHIFT) * target.scale[0]))
    return clamped(scaled(total, q, shift), target, fused)


def averaged(total: Any, count: Any) -> Any:
    """total / count to nearest, halves away from zero, towards zero as C divides."""
    half = count // 2
    return np.where(total > 0, (total + half) // count, -((-total + half) // count))


def softmax(x: Array, q: Quantization, beta: float) -> Array:
    """int8 (..., N) -> int8 of scale 1/256 and zero point -128, over the last axis."""
    real = min(float(beta) * float(q.scale[0]) * (1 << (31 - DIFF_INTEGER_BITS)), float(I32_MAX))
    mult, shift = multiplier(real)
    radius = (
        ((1 << DIFF_INTEGER_BITS) - 1) * float(1 << (31 - DIFF_INTEGER_BITS)) / float(1 << shift) if shift >= 0 else 0
    )
    least = -math.floor(radius)
    diff = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    near = diff >= least
    wide = np.where(near, diff, 0) << shift
    powers = _exp(doubling_high(wide, mult))
    total = np.where(near, rounding_shift(powers, SUM_INTEGER_BITS), 0).sum(axis=-1, keepdims=True)
    ahead = 31 - np.floor(np.log2(np.maximum(total, 1))).astype(np.int64)  # leading zeros of 32 bits
    units = SUM_INTEGER_BITS - ahead
    shifted = ((total << ahead) & 0xFFFFFFFF) - (1 << 31)
    inverse = _one_over_one_plus(shifted)
    result = rounding_shift(doubling_high(inverse, powers), units + 31 - 8)
    return np.where(near, np.clip(result - 128, -128, 127), -128).astype(np.int8)


def _exp(a: Any) -> Any:
    """exp of a <= 0 in Q5.26 -> Q0.31: a barrel shifter over a polynomial on [-1/4, 0)."""
    bits = 31 - DIFF_INTEGER_BITS
    quarter = 1 << (bits - 2)
    remainder = (a & (quarter - 1)) - quarter
    result = _exp_quarter(remainder << DIFF_INTEGER_BITS)
    gone = remainder - a
    for exponent, factor in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242), start=-2):
        if exponent < DIFF_INTEGER_BITS:
            result = np.where(gone & (1 << (bits + exponent)), doubling_high(result, factor), result)
    return np.where(a == 0, I32_MAX, result)


def _exp_quarter(a: Any) -> Any:
    """exp of a in [-1/4, 0), Q0.31: Taylor around -1/8."""
    x = a + (1 << 28)
    x2 = doubling_high(x, x)
    x3, x4 = doubling_high(x2, x), doubling_high(x2, x2)
    inner = rounding_shift(doubling_high(rounding_shift(x4, 2) + x3, 715827883) + x2, 1)
    return 1895147668 + doubling_high(1895147668, x + inner)


def _one_over_one_plus(a: Any) -> Any:
    """1 / (1 + a) of a in [0, 1), Q0.31: three steps of Newton's division."""
    half = (a + I32_MAX + 1) // 2
    x = 1515870810 + doubling_high(half, -1010580540)
    for _ in range(3):
        error = (1 << 29) - doubling_high(half, x)
        x = x + (doubling_high(x, error) << 2)
    return np.minimum(x << 1, I32_MAX)


def meaned(total: Any, count: int, source: Quantization, target: Quantization) -> Array:
    """Mean of `count` int8 values whose sum, less their zero points, is `total`; the division is part of the scale."""
    q, shift = multiplier(float(source.scale[0]) / float(target.scale[0]))
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    q = (q << bits) // count
    return clamped(scaled(total, q, shift - bits), target)
