"""Weights as the engine's int8 kernels read them: in pairs of channels (firmware/infer/columns_s8.h) or pruned
(firmware/infer/sparse_s8.h)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.infer.network import Array

LONGEST_STEP = 255


def in_pairs(weight: Array) -> NDArray[np.int8]:
    """(O, ...) int8 -> the bytes of pairs of channels, depth and channels padded with zeros."""
    flat = weight.reshape(len(weight), -1)
    channels, depth = flat.shape
    padded = np.zeros((-(-channels // 2) * 2, -(-depth // 4) * 4), np.int8)
    padded[:channels, :depth] = flat
    quads = padded.reshape(len(padded) // 2, 2, -1, 4)[..., [0, 2, 1, 3]]
    return np.ascontiguousarray(quads.transpose(0, 2, 1, 3)).reshape(-1)


def stream_of(weight: Array) -> tuple[NDArray[np.uint8], int]:
    """(O, ...) int8 -> the bytes of its live entries, and the most entries of a channel."""
    flat = weight.reshape(len(weight), -1)
    rows = [_entries(row) for row in flat]
    parts = [np.array([len(row) // 2], "<u2").tobytes() + row.tobytes() for row in rows]
    return np.frombuffer(b"".join(parts), np.uint8), max(len(row) // 2 for row in rows)


def _entries(row: Array) -> NDArray[np.uint8]:
    found, at = [], 0
    for index in np.flatnonzero(row):
        while index - at > LONGEST_STEP:
            at += LONGEST_STEP
            found += [LONGEST_STEP, 0]
        found += [int(index) - at, int(row[index]) & 255]
        at = int(index)
    return np.array(found, np.uint8)
