"""What stands in for a C library on boards whose compiler comes without one, against this computer's."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest

from fedtiny.boards import root

NAMES = ("memcpy", "memmove", "memset", "memcmp", "strcmp", "strlen", "sqrtf")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The functions under other names, so that the C library's stay what they are."""
    folder = root() / "firmware" / "port" / "freestanding"
    library = tmp_path_factory.mktemp("freestanding") / "own.so"
    names = [f"-D{name}=own_{name}" for name in NAMES]
    sources = [folder / "memory.c", folder / "sqrt.c"]
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-shared", "-fPIC", f"-I{folder}"]
    subprocess.run(["gcc", *flags, *names, *map(str, sources), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.own_sqrtf.argtypes, loaded.own_sqrtf.restype = [ctypes.c_float], ctypes.c_float
    loaded.own_strlen.restype = ctypes.c_size_t
    return loaded


def test_the_root_is_the_nearest_float(own: ctypes.CDLL) -> None:
    """numpy takes the processor's, which by IEEE 754 is the nearest. Every kind of float, and 20,000 random ones."""
    edges = [0, 1, 2, 0x7FFFFF, 0x800000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x407FFFFF, 0x7F7FFFFF, 0x7F800000]
    bits = np.array([*edges, *np.random.default_rng(0).integers(0, 0x7F800000, 20000)], np.uint32)
    x = bits.view(np.float32)
    found = np.array([own.own_sqrtf(float(value)) for value in x], np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), np.sqrt(x).view(np.uint32))
    assert np.signbit(np.float32(own.own_sqrtf(-0.0)))
    assert all(np.isnan(own.own_sqrtf(value)) for value in (-1.0, -1e-45, float("-inf"), float("nan")))


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("to", [0, 1, 8, 40])
def test_bytes_move_as_asked_wherever_they_lie(own: ctypes.CDLL, start: int, to: int) -> None:
    rng = np.random.default_rng(0)
    for length in (0, 1, 3, 4, 5, 8, 31):
        memory = rng.integers(0, 256, 96).astype(np.uint8)
        before, address = memory.copy(), memory.ctypes.data
        move = own.own_memcpy if to == 40 else own.own_memmove  # only to 40 the two never meet
        move(ctypes.c_void_p(address + to), ctypes.c_void_p(address + start), ctypes.c_size_t(length))
        wanted = before.copy()
        wanted[to : to + length] = before[start : start + length]
        np.testing.assert_array_equal(memory, wanted)
        own.own_memset(ctypes.c_void_p(address + to), 0x1A5, ctypes.c_size_t(length))
        wanted[to : to + length] = 0xA5
        np.testing.assert_array_equal(memory, wanted)


def test_bytes_and_texts_compare_as_in_the_c_library(own: ctypes.CDLL) -> None:
    def sign(number: int) -> int:
        return (number > 0) - (number < 0)

    texts = [b"", b"a", b"ab", b"abc", b"abd", b"b", b"\xff"]
    for a in texts:
        assert own.own_strlen(a) == len(a)
        for b in texts:
            assert sign(own.own_strcmp(a, b)) == (a > b) - (a < b)
            shorter = min(len(a), len(b))
            equal = (a[:shorter] > b[:shorter]) - (a[:shorter] < b[:shorter])
            assert sign(own.own_memcmp(a, b, ctypes.c_size_t(shorter))) == equal
