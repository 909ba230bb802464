"""What the compiled core asks of a system and what it keeps: no memory but the caller's, no input or output."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedtiny.boards import Board, load_board
from fedtiny.emulation import compile_command, core_sources, wire_flags, wire_sources

from .boards import need

# What needs no system: a C library's string.h, a root, and the compiler's own arithmetic (double, 64-bit integers).
FREESTANDING = re.compile(r"mem(cpy|set|move|cmp)|strlen|sqrtf|__aeabi_\w+|__[a-z]+(si|di|sf|df)[a-z]*[23]?")


def compiled(board: Board, folder: Path, sources: Sequence[Path], *, optimise: str) -> list[Path]:
    need(board)
    objects = []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        command = [*compile_command(board, optimise=optimise), *wire_flags(), "-Werror"]
        command += ["-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    return objects


def tool(board: Board, name: str, *arguments: str | Path) -> list[str]:
    command = [board.toolchain.prefix + name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("name", ["qemu-netduinoplus2", "qemu-rv32"])
def test_core_and_wire_call_no_system_and_own_no_memory(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    objects = compiled(board, tmp_path, [*core_sources(), *wire_sources(forward_secrecy=True)], optimise="-Os")
    symbols = symbols_of(board, objects)
    assert [symbol for kind, symbol in symbols if kind in "BbDdCGgSs"] == []
    defined = {symbol for kind, symbol in symbols if kind in "TtRr"}
    outside = {symbol for kind, symbol in symbols if kind in "Uwv"} - defined
    assert {symbol for symbol in outside if not FREESTANDING.fullmatch(symbol)} == set()
    assert {
        symbol
        for kind, symbol in symbols
        if kind.isupper() and kind != "U" and not symbol.startswith(("ft_", "crypto_"))
    } == set()


def symbols_of(board: Board, objects: list[Path]) -> list[tuple[str, str]]:
    lines = [line.split() for line in tool(board, "nm", *objects)]
    return [(words[-2], words[-1]) for words in lines if len(words) >= 2]


def test_the_core_fits_the_flash_of_a_node(tmp_path: Path) -> None:
    """48 KiB is what a node that trains may take, its wire included: the core alone must leave room."""
    board = load_board("qemu-netduinoplus2")
    objects = compiled(board, tmp_path, core_sources(), optimise="-Os")
    total = 0
    for line in tool(board, "size", *objects)[1:]:
        text, data, bss, *_, path = line.split()
        print(f"{Path(path).stem:12} {int(text):6} bytes of flash")
        assert (int(data), int(bss)) == (0, 0)
        total += int(text)
    print(f"{'core':12} {total:6} bytes of flash")
    assert total <= 40 * 1024
