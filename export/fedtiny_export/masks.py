"""Masks as bytes: bitmap or byte deltas, and Golomb-Rice for a mask that travels alone (firmware/BLOB.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.graph import Bits


class Encoding(IntEnum):
    BITMAP = 1
    DELTAS = 2
    RICE = 3


RICE_MOST = 15  # the largest parameter


@dataclass(frozen=True)
class EncodedMask:
    """`rice`: the parameter of Golomb-Rice, 0 for the others."""

    encoding: Encoding
    data: bytes
    rice: int = 0

    @property
    def code(self) -> int:
        """What ft_set_mask takes for an encoding."""
        return int(self.encoding) | self.rice << 8


def encode_mask(mask: Bits) -> EncodedMask:
    """The smaller encoding of a mask of any shape (row-major); a tie goes to the bitmap."""
    flat = np.ravel(mask)
    bitmap = np.packbits(flat, bitorder="little").tobytes()
    gaps = _gaps(flat)
    runs, rests = np.divmod(gaps, 255)
    if gaps.size + int(runs.sum()) >= len(bitmap):
        return EncodedMask(Encoding.BITMAP, bitmap)
    ends = np.cumsum(runs + 1)
    deltas = np.full(int(ends[-1]) if ends.size else 0, 255, np.uint8)
    deltas[ends - 1] = rests
    return EncodedMask(Encoding.DELTAS, deltas.tobytes())


def encode_rice(mask: Bits) -> EncodedMask:
    """Golomb-Rice gaps, with the parameter that makes them shortest."""
    gaps = _gaps(np.ravel(mask))
    lengths = [int((gaps >> k).sum()) + gaps.size * (k + 1) for k in range(RICE_MOST + 1)]
    k = int(np.argmin(lengths))
    quotients = gaps >> k
    bits = np.ones(-(-lengths[k] // 8) * 8, np.uint8)  # a run of ones, and the spare bits
    ends = np.cumsum(quotients + 1 + k) - 1 - k  # of each run of ones: its zero
    bits[ends] = 0
    for bit in range(k):
        bits[ends + 1 + bit] = gaps >> bit & 1
    return EncodedMask(Encoding.RICE, np.packbits(bits, bitorder="little").tobytes(), k)


def encode_smallest(mask: Bits) -> EncodedMask:
    """The smallest of all three encodings; a tie goes to the one that costs a node less."""
    return min(encode_mask(mask), encode_rice(mask), key=lambda encoded: len(encoded.data))


def entropy_bytes(size: int, live: int) -> float:
    """log2 C(size, live) / 8: no encoding of any such mask takes less on average."""
    return (lgamma(size + 1) - lgamma(live + 1) - lgamma(size - live + 1)) / log(2) / 8


def _gaps(flat: Bits) -> NDArray[np.int64]:
    """Elements that do not live before each one that does."""
    return np.diff(np.flatnonzero(flat), prepend=-1) - 1


def decode_mask(encoded: EncodedMask, size: int) -> Bits:
    """The flat mask of `size` elements. Raises ValueError when the bytes do not fit it."""
    raw = np.frombuffer(encoded.data, np.uint8)
    if encoded.encoding is Encoding.BITMAP:
        if raw.size != (size + 7) // 8:
            raise ValueError(f"bitmap of {raw.size} bytes for {size} elements")
        bits = np.unpackbits(raw, bitorder="little").astype(np.bool_)
        if bits[size:].any():
            raise ValueError("spare bits of a bitmap are set")
        return bits[:size]
    if encoded.encoding is Encoding.RICE:
        return _decode_rice(encoded, size)
    if raw.size and raw[-1] == 255:
        raise ValueError("deltas end inside a gap")
    steps = raw.astype(np.int64) + (raw != 255)  # a full byte only moves on; any other also lands on an element
    positions = (np.cumsum(steps) - 1)[raw != 255]
    if positions.size and positions[-1] >= size:
        raise ValueError(f"deltas reach element {int(positions[-1])} of {size}")
    mask = np.zeros(size, np.bool_)
    mask[positions] = True
    return mask


def _decode_rice(encoded: EncodedMask, size: int) -> Bits:
    bits = np.unpackbits(np.frombuffer(encoded.data, np.uint8), bitorder="little")
    zeros = np.flatnonzero(bits == 0)
    mask = np.zeros(size, np.bool_)
    at, element, k = 0, 0, encoded.rice
    if not 0 <= k <= RICE_MOST or len(encoded.data) > -(-size // 8):
        raise ValueError(f"{len(encoded.data)} bytes of gaps with the parameter {k} for {size} elements")
    weights = 1 << np.arange(k, dtype=np.int64)
    while (found := int(np.searchsorted(zeros, at))) < zeros.size:
        end = int(zeros[found])
        if end + 1 + k > bits.size:
            raise ValueError("a gap ends outside of the mask's bytes")
        element += (end - at << k) + int(bits[end + 1 : end + 1 + k] @ weights)
        if element >= size:
            raise ValueError(f"a gap reaches element {element} of {size}")
        mask[element] = True
        element, at = element + 1, end + 1 + k
    if bits.size - at >= 8:
        raise ValueError("a whole byte of spare bits")
    return mask
