"""Reads FlatBuffers of unknown origin: every offset and length is checked before it is followed.

The generated readers of other libraries trust their bytes; a damaged file ends in them as an odd exception or an
endless loop. Here it ends as one DamagedModel.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny_export.errors import DamagedModel

_WIDTH = {"b": 1, "B": 1, "?": 1, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


class Flat:
    """The bytes of one file."""

    def __init__(self, data: bytes, identifier: bytes, what: str) -> None:
        self.data = data
        self.what = what
        if len(data) < 8 or data[4:8] != identifier:
            raise DamagedModel(f"these {len(data):,} bytes are no {what} file: they lack its mark {identifier!r}")
        self.limit = len(data)

    def number(self, code: str, at: int) -> Any:
        if not 0 <= at <= self.limit - _WIDTH[code]:
            raise self.broken(at)
        return struct.unpack_from(f"<{code}", self.data, at)[0]

    def broken(self, at: int) -> DamagedModel:
        return DamagedModel(
            f"this {self.what} file is truncated or damaged: it points to byte {at:,} of {self.limit:,}. Get it anew."
        )

    @property
    def root(self) -> Table:
        return Table(self, self.number("I", 0))


class Table:
    """A table at `at`; fields are named by their numbers in the schema."""

    def __init__(self, flat: Flat, at: int) -> None:
        self._flat, self._at = flat, at
        self._vtable = at - flat.number("i", at)
        self._size = self._u16(self._vtable)
        if self._size < 4 or self._vtable + self._size > flat.limit:
            raise flat.broken(self._vtable + self._size)

    def scalar(self, field: int, code: str, default: Any) -> Any:
        at = self._field(field)
        return default if at is None else self._flat.number(code, at)

    def table(self, field: int) -> Table | None:
        at = self._offset(field)
        return None if at is None else Table(self._flat, at)

    def tables(self, field: int) -> list[Table]:
        start, count = self._vector(field, 4)
        return [Table(self._flat, at + self._flat.number("I", at)) for at in range(start, start + 4 * count, 4)]

    def array(self, field: int, dtype: Any) -> NDArray[Any]:
        """A vector of numbers; empty where the field is absent."""
        kind = np.dtype(dtype).newbyteorder("<")
        start, count = self._vector(field, kind.itemsize)
        return np.frombuffer(self._flat.data, kind, count, start).astype(dtype)

    def text(self, field: int) -> str:
        start, count = self._vector(field, 1)
        return self._flat.data[start : start + count].decode("utf-8", "replace")

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        at = self._offset(field)
        if at is None:
            return 0, 0
        count = self._flat.number("I", at)
        if at + 4 + count * width > self._flat.limit:
            raise self._flat.broken(at + 4 + count * width)
        return at + 4, count

    def _offset(self, field: int) -> int | None:
        at = self._field(field)
        return None if at is None else at + self._flat.number("I", at)

    def _field(self, field: int) -> int | None:
        place = 4 + 2 * field
        if place + 2 > self._size:
            return None
        offset = self._u16(self._vtable + place)
        return self._at + offset if offset else None

    def _u16(self, at: int) -> int:
        if not 0 <= at <= self._flat.limit - 2:
            raise self._flat.broken(at)
        return int(struct.unpack_from("<H", self._flat.data, at)[0])
