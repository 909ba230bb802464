"""LiteRT's arithmetic of scales: real factors as 31-bit multipliers with shifts, and what an activation clamps to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.infer.network import Activation, Array, Quantization


def multiplier_of(real: float) -> tuple[int, int]:
    """(m, s) with real = m 2^(s - 31) and 2^30 <= m < 2^31; (0, 0) for what is too small to matter."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    fixed = int(_nearest(fraction * (1 << 31)))
    if fixed == 1 << 31:
        fixed, shift = fixed // 2, shift + 1
    return (0, 0) if shift < -31 else (fixed, shift)


def multipliers_of(reals: NDArray[np.float64]) -> tuple[Array, Array]:
    pairs = [multiplier_of(float(real)) for real in reals]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int8)


def _nearest(value: float) -> float:
    """Ties away from zero, as C's round."""
    return math.copysign(math.floor(abs(value) + 0.5), value)


def scalar(quantization: Quantization) -> tuple[float, int]:
    """Scale (a float32 as a float64) and zero point of a tensor that has one of each."""
    return float(np.float32(quantization.scale[0])), int(quantization.zero_point[0])


def clamp_of(activation: Activation, quantization: Quantization) -> tuple[int, int]:
    """The smallest and largest int8 that an operator with this fused activation stores."""
    scale, zero = np.float32(quantization.scale[0]), int(quantization.zero_point[0])
    low = max(-128, zero) if activation != Activation.NONE else -128
    high = min(127, zero + int(_nearest(float(np.float32(6.0) / scale)))) if activation == Activation.RELU6 else 127
    return low, high


def softmax_scale(beta: float, scale: float) -> tuple[int, int, int]:
    """Multiplier and shift that take a difference of int8 to 26 bits after the point, and the least one that counts."""
    real = min(beta * scale * (1 << 26), (1 << 31) - 1.0)
    multiplier, shift = multiplier_of(real)
    return multiplier, shift, -math.floor(31.0 * (1 << 26) / (1 << shift))


def scaled(x: int, multiplier: int, shift: int) -> int:
    """x m 2^(shift - 31), rounded as LiteRT rounds it: twice, to 31 bits with ties up, then with ties away from zero."""
    high = ((x << max(shift, 0)) * multiplier + (1 << 30)) >> 31
    right = max(-shift, 0)
    if right == 0:
        return high
    return (high + (1 << (right - 1)) - (high < 0)) >> right
