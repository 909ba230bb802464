"""Which layers are held pruned, and how a sparse convolution goes over its map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.infer.network import Array

PLACES_MOST = 65535
SUM_MOST = 32767
"""Of a channel's absolute weights: two sums share a 64-bit register on a Cortex-M4 (sparse_conv_s8_m4.c)."""
DENSE_LAYER_COST, SPARSE_LAYER_COST = 1.6, 6.0
"""The same of a fully connected layer."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`hold`: "by_cost" holds a layer pruned where that takes fewer instructions, "dense" never, "sparse" where it can.
    `band_bytes`: scratch that a sparse convolution may take; less of it means narrower bands, and more time."""

    hold: str = "by_cost"
    band_bytes: int = 14_000


@dataclass(frozen=True)
class Bands:
    """`half`: output rows of half a band."""

    half: int


def choose(numbers: dict[str, int], weight: Array, options: Options) -> Bands | None:
    """How a convolution's pruned weights go over its map, or None where it is dense. weight: (O, KH, KW, I)."""
    live = int(np.count_nonzero(weight))
    if options.hold == "dense":
        return None
    if options.hold == "by_cost" and sparse_cost(numbers, live) >= dense_cost(numbers):
        return None
    if np.abs(weight.astype(np.int32)).reshape(len(weight), -1).sum(axis=1).max() > SUM_MOST:
        return None
    most = -(-numbers["yh"] // 2)
    fitting = [half for half in range(1, most + 1) if _fits(numbers, half)]
    if not fitting:
        return None
    small = [half for half in fitting if _planes(numbers, half) <= options.band_bytes] or fitting[:1]
    bands = -(-most // small[-1])
    return Bands(min(half for half in fitting if -(-most // half) == bands))  # as many bands, each as small as can be


def dense_cost(numbers: dict[str, int]) -> float:
    """Instructions per output pixel on a Cortex-M4F, as counted: a column of samples, products in quads, results."""
    depth, channels = numbers["kh"] * numbers["kw"] * numbers["xc"], numbers["yc"]
    return 70 + 1.9 * depth + -(-channels // 2) * (8 * -(-depth // 4) + 37)


def sparse_cost(numbers: dict[str, int], live: int) -> float:
    """The same with `live` weights: products of eight pixels at a time, results, planes."""
    return 20 + 5 * numbers["xc"] * numbers["sh"] * numbers["sw"] + 1.15 * live + 16.5 * numbers["yc"]


def work_bytes(numbers: dict[str, int]) -> int:
    """As fti_bands_of in firmware/infer/sparse_s8.h."""
    depth = numbers["kh"] * numbers["kw"] * numbers["xc"]
    return -(-2 * depth // 4) * 4 + (numbers["b"] + 2) * 8 + -(-_planes(numbers, numbers["a"]) // 4) * 4


def bias_without_zero(bias: Array | None, weight: Array, zero: int) -> NDArray[np.int32]:
    """The bias of sums over samples whose zero point was not taken off."""
    flat = weight.reshape(len(weight), -1).astype(np.int32)
    found: NDArray[np.int32] = -zero * flat.sum(axis=1, dtype=np.int32)
    return found if bias is None else (found + bias).astype(np.int32)


def dense_layer_is_sparse(weight: Array, options: Options) -> bool:
    """Whether a fully connected layer is held pruned. weight: (O, I)."""
    if options.hold != "by_cost":
        return options.hold == "sparse"
    return int(np.count_nonzero(weight)) * SPARSE_LAYER_COST < weight.size * DENSE_LAYER_COST


def _geometry(numbers: dict[str, int], half: int) -> tuple[int, int, int]:
    """Rows of a plane, rows of half a plane, samples of a row."""
    reach_h, reach_w = ((numbers[k] - 1) * numbers[d] for k, d in (("kh", "dh"), ("kw", "dw")))
    phases = min(numbers["sw"], reach_w + 1)
    pitch = max(numbers["yw"], 4) - 1 + reach_w // numbers["sw"] + 1
    rows = (2 * half - 1) * numbers["sh"] + reach_h + 1
    return rows, (half - 1) * numbers["sh"] + reach_h + 1, phases * pitch


def _planes(numbers: dict[str, int], half: int) -> int:
    rows, half_rows, row = _geometry(numbers, half)
    return max(rows, 4 * half_rows) * row * numbers["xc"]


def _fits(numbers: dict[str, int], half: int) -> bool:
    """What check.c wants of a blob."""
    rows, _, row = _geometry(numbers, half)
    most = (2 * half * numbers["sh"] + numbers["kh"] * numbers["dh"]) * (
        numbers["yw"] + 4 + numbers["kw"] * numbers["dw"]
    )
    depth = math.prod(numbers[name] for name in ("kh", "kw", "xc"))
    return (
        rows * row * numbers["xc"] <= PLACES_MOST and most * numbers["sw"] * numbers["xc"] <= 1 << 24 and depth <= 32767
    )
