"""The order in which a node visits its samples: ft_shuffle of the C core, for a whole epoch at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shuffled(count: int, key: int) -> NDArray[np.int64]:
    """The order of an epoch: ft_shuffle(i, count, key) for i = 0..count-1, a keyed bijection of [0, count).

    Four Feistel rounds over the smallest even number of bits that holds it; what falls outside is walked on.
    """
    half = np.uint32((max(2, (count - 1).bit_length()) + 1) // 2)
    low = np.uint32((1 << int(half)) - 1)
    x = np.arange(count, dtype=np.uint32)
    outside = np.ones(count, np.bool_)
    while outside.any():
        left, right = x[outside] >> half, x[outside] & low
        for turn in range(4):
            step = np.uint32((turn * 0x9E3779B9 + key) & 0xFFFFFFFF)
            left, right = right, (left ^ _mix(right + step)) & low
        x[outside] = (left << half) | right
        outside = x >= count
    return x.astype(np.int64)


def _mix(v: NDArray[np.uint32]) -> NDArray[np.uint32]:
    v = (v ^ (v >> np.uint32(16))) * np.uint32(0x7FEB352D)
    v = (v ^ (v >> np.uint32(15))) * np.uint32(0x846CA68B)
    return v ^ (v >> np.uint32(16))
