"""Slices, transpositions and constants as moves of four-dimensional blocks (firmware/infer/move.c)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from fedtiny_export.infer.network import Array
from fedtiny_export.infer.program import Code, Step

DIMENSIONS = 4


def moves(
    dtype: np.dtype[np.generic],
    shape: Sequence[int],
    steps_from: Sequence[int],
    steps_to: Sequence[int],
    *,
    y: int,
    x: int = -1,
    y_at: int = 0,
    fill: tuple[int, int] | None = None,
    constant: Array | None = None,
) -> list[Step]:
    """One step, or several where the block has more than four dimensions. Steps from and to are in elements.

    `fill`: the elements of y, and what all of them become before the first move; `constant` stands in place of x.
    """
    axes = _merged(list(zip(shape, steps_from, steps_to, strict=True)))
    outer, inner = axes[:-DIMENSIONS], axes[-DIMENSIONS:]
    inner = [(1, 0, 0)] * (DIMENSIONS - len(inner)) + inner
    code = Code.MOVE_S8 if dtype == np.int8 else Code.MOVE_F32
    size = 1 if dtype == np.int8 else 4
    found: list[Step] = []
    for places in itertools.product(*(range(n) for n, _, _ in outer)):
        skip_x = sum(i * step for i, (_, step, _) in zip(places, outer, strict=True))
        skip_y = sum(i * step for i, (_, _, step) in zip(places, outer, strict=True))
        first = fill is not None and not found
        table = np.array([[n for n, _, _ in inner], [a for _, a, _ in inner], [b for _, _, b in inner]], np.int32)
        numbers = {} if fill is None else {"a": fill[0], "x2_zero": fill[1]}
        found.append(
            Step(
                code=code,
                x=x,
                x2=y if fill is not None else -1,
                y=y,
                x_at=skip_x * size,
                y_at=y_at + skip_y * size,
                weight=np.append(table.reshape(-1), np.int32(first)),
                bias=None if constant is None else constant.reshape(-1)[skip_x:].astype(dtype),
                numbers=numbers,
            )
        )
    return found


def _merged(axes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same block with as few axes as there can be: those of one element go, neighbours without a gap become one."""
    found: list[tuple[int, int, int]] = []
    for n, a, b in axes:
        if n == 1:
            continue
        if found and found[-1][1] == n * a and found[-1][2] == n * b:
            found[-1] = (found[-1][0] * n, a, b)
        else:
            found.append((n, a, b))
    return found


def strides(shape: Sequence[int]) -> list[int]:
    """Elements from one index of an axis to the next."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
