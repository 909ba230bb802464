"""Each variant of the kernels against their definitions, on maps of every small shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtiny.boards import load_board
from fedtiny.emulation import build, core_sources, run

from .boards import need

PROGRAM = Path(__file__).parent / "target/kernels.c"
KERNELS = ("taps", "dense", "pointwise", "num")


def check(name: str, variant: str, out: Path, *flags: str) -> None:
    board = need(load_board(name))
    sources = [path for path in core_sources(variant) if path.stem.split("_")[0] in KERNELS]
    elf = build(board, [PROGRAM, *sources], out=out, flags=["-Werror", *flags])
    done = run(board, elf)
    assert (done.exit_code, done.output) == (0, "ok\n")


@pytest.mark.parametrize("variant", ["", "vector"])
def test_kernels_do_what_their_header_says(variant: str, tmp_path: Path) -> None:
    check("native", variant, tmp_path / "kernels", "-O2", "-Wno-psabi")


def test_kernels_of_a_cortex_m4_give_the_same_bits(tmp_path: Path) -> None:
    check("qemu-netduinoplus2", "m4", tmp_path / "kernels")


def test_fused_kernels_of_a_cortex_m4_are_close(tmp_path: Path) -> None:
    check("qemu-netduinoplus2", "m4", tmp_path / "kernels", "-DFT_FAST", "-DTOLERANCE=2e-6f")
