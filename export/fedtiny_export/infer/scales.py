"""Scales as the engine's kernels want them: multipliers and shifts by fixed.py, for each channel."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fedtiny_export.infer import fixed
from fedtiny_export.infer.network import Array, Quantization


def multipliers_of(reals: Iterable[float]) -> tuple[Array, Array]:
    """int32 multipliers and int8 shifts."""
    pairs = [fixed.multiplier(float(real)) for real in reals]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int8)


def scalar(quantization: Quantization) -> tuple[float, int]:
    """Scale (a float32 as a float64) and zero point of a tensor that has one of each."""
    return float(np.float32(quantization.scale[0])), int(quantization.zero_point[0])


def softmax_scale(beta: float, scale: float) -> tuple[int, int, int]:
    """Multiplier and shift that take a difference of int8 to 26 bits after the point, and the least one that counts."""
    bits = 31 - fixed.DIFF_INTEGER_BITS
    multiplier, shift = fixed.multiplier(min(beta * scale * (1 << bits), float(fixed.I32_MAX)))
    return multiplier, shift, -math.floor(31.0 * (1 << bits) / (1 << shift)) if shift >= 0 else 0
