"""Storage of the node in C (fedtiny_storage.h) that behaves as flash: erased whole, then each word written once."""

from __future__ import annotations

import ctypes as ct

U8, U32, PTR = ct.c_uint8, ct.c_uint32, ct.c_void_p
READ = ct.CFUNCTYPE(ct.c_int, PTR, U32, U32, PTR, U32)
WRITE = ct.CFUNCTYPE(ct.c_int, PTR, U32, U32, PTR, U32)
ERASE = ct.CFUNCTYPE(ct.c_int, PTR, U32)
AREAS, SAMPLES, WORD = 3, 2, 8


class _Storage(ct.Structure):
    _fields_ = [("ctx", PTR), ("bytes", U32 * AREAS), ("read", READ), ("write", WRITE), ("erase", ERASE)]


class Flash:
    """One area for samples. `misused`: what a chip would not have done; `fails`: names of calls that fail."""

    def __init__(self, samples: int) -> None:
        self.bytes = bytearray(b"\x5a" * samples)  # what another program left there
        self.misused: list[str] = []
        self.erased = 0
        self.fails: set[str] = set()
        sizes = (U32 * AREAS)(0, 0, samples)
        self.table = _Storage(None, sizes, READ(self._read), WRITE(self._write), ERASE(self._erase))

    def _inside(self, what: str, area: int, at: int, count: int) -> bool:
        if area != SAMPLES or at + count > len(self.bytes):
            self.misused.append(f"{what} of {count} at {at} in area {area}")
            return False
        return what not in self.fails

    def _read(self, _: None, area: int, at: int, to: int, count: int) -> int:
        if not self._inside("read", area, at, count):
            return 1
        ct.memmove(to, bytes(self.bytes[at : at + count]), count)
        return 0

    def _write(self, _: None, area: int, at: int, data: int, count: int) -> int:
        if not self._inside("write", area, at, count):
            return 1
        if at % WORD or count % WORD or self.bytes[at : at + count] != b"\xff" * count:
            self.misused.append(f"write of {count} at {at}")
        self.bytes[at : at + count] = ct.string_at(data, count)
        return 0

    def _erase(self, _: None, area: int) -> int:
        if not self._inside("erase", area, 0, 0):
            return 1
        self.bytes[:] = b"\xff" * len(self.bytes)
        self.erased += 1
        return 0
