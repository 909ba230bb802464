"""Masks on the wire and in blobs: the smaller of a bitmap and byte deltas (firmware/BLOB.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from fedtiny_export.graph import Bits


class Encoding(IntEnum):
    BITMAP = 1
    DELTAS = 2


@dataclass(frozen=True)
class EncodedMask:
    encoding: Encoding
    data: bytes


def encode_mask(mask: Bits) -> EncodedMask:
    """The smaller encoding of a mask of any shape (row-major); a tie goes to the bitmap."""
    flat = np.ravel(mask)
    bitmap = np.packbits(flat, bitorder="little").tobytes()
    gaps = np.diff(np.flatnonzero(flat), prepend=-1) - 1
    runs, rests = np.divmod(gaps, 255)
    if gaps.size + int(runs.sum()) >= len(bitmap):
        return EncodedMask(Encoding.BITMAP, bitmap)
    ends = np.cumsum(runs + 1)
    deltas = np.full(int(ends[-1]) if ends.size else 0, 255, np.uint8)
    deltas[ends - 1] = rests
    return EncodedMask(Encoding.DELTAS, deltas.tobytes())


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
    if raw.size and raw[-1] == 255:
        raise ValueError("deltas end inside a gap")
    steps = raw.astype(np.int64) + (raw != 255)  # a full byte only moves on; any other also lands on an element
    positions = (np.cumsum(steps) - 1)[raw != 255]
    if positions.size and positions[-1] >= size:
        raise ValueError(f"deltas reach element {int(positions[-1])} of {size}")
    mask = np.zeros(size, np.bool_)
    mask[positions] = True
    return mask
