"""The engine on emulated boards: the same bits as on this computer, no system beneath it, and C that compiles alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedtiny import infer_boards
from fedtiny.boards import Board, load_board, root
from fedtiny.emulation import build, compile_command, infer_flags, infer_sources, run
from fedtiny_export.errors import ExportError
from fedtiny_export.infer import engine
from fedtiny_export.infer.c_out import to_c
from fedtiny_export.infer.network import Array, Kind, Network
from fedtiny_export.infer.pack import pack
from fedtiny_export.infer.sparse import Options
from fedtiny_export.infer.tflite_in import from_tflite

from ..firmware.boards import need
from .mlperf import model_bytes, random_samples
from .operators import one_operator, samples
from .pruned import pruned, wide_convolution

SMALL = ("qemu-netduinoplus2", "qemu-rv32")
LARGE = ("qemu-mps2-an386", "qemu-rv32")
"""Boards whose RAM holds a model, its arena and all of its activations."""
FREESTANDING = re.compile(r"mem(cpy|set|move|cmp)|__aeabi_\w+|__[a-z]+(si|di|sf|df)[a-z]*[23]?")
ALONE = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-Os")
SPARSE = Options(hold="sparse")
CORTEX_M0 = ("-mcpu=cortex-m0plus", "-mthumb")


def networks() -> list[tuple[Network, str]]:
    """Each kernel, and convolutions as wide as real ones, with how their weights are held."""
    found: list[tuple[Network, str]] = []
    for dtype in ("int8", "float32"):
        for kind in Kind:
            if (kind, dtype) != (Kind.DEQUANTIZE, "float32"):
                random = np.random.default_rng(int(kind))
                found.append((one_operator(kind, dtype, random), "dense"))
    for seed in range(10):
        random = np.random.default_rng(seed)
        network = wide_convolution(random, float(random.choice([0.1, 1.0])))
        found += [(network, "dense"), (network, "sparse")]
    return found


def test_every_kernel_gives_the_bits_of_this_computer_on_every_board(tmp_path: Path) -> None:
    """Random networks of each kind; the M4's kernels and the portable ones, with and without a floating point unit."""
    for board in map(load_board, SMALL):
        need(board)
        elf = infer_boards.build(board, tmp_path)
        for number, (network, hold) in enumerate(networks()):
            x = samples(network, 2, np.random.default_rng(number))
            program = pack(network, Options(hold=hold, band_bytes=3000))
            found = infer_boards.run_on_board(program, x, board, elf=elf)
            for t, wanted in engine.run(program, x).items():
                assert found.outputs[t].tobytes() == wanted.tobytes(), f"{board.name}, network {number}, {hold}"


@pytest.mark.parametrize("board", LARGE)
@pytest.mark.parametrize(("name", "density"), [("pretrainedResnet_quant", 0.1), ("kws_ref_model", 1.0)])
def test_a_whole_model_gives_the_bits_of_this_computer_after_every_operator(
    board: str, name: str, density: float, tmp_path: Path
) -> None:
    there = need(load_board(board))
    network = from_tflite(model_bytes(name))
    program = pack(pruned(network, density) if density < 1 else network)
    x = random_samples(network, 1)
    found = infer_boards.run_on_board(program, x, there, every=True, count=True)
    for t, wanted in engine.run(program, x, every=True).items():
        assert np.array_equal(found.outputs[t], wanted), program.network.tensors[t].name
    assert len(found.steps) == len(program.steps)


@pytest.mark.parametrize(
    ("name", "variant"), [("qemu-netduinoplus2", ""), ("qemu-netduinoplus2", "m4"), ("qemu-rv32", "")]
)
def test_the_engine_calls_no_system_and_owns_no_memory(name: str, variant: str, tmp_path: Path) -> None:
    board = need(load_board(name))
    symbols: list[tuple[str, str]] = []
    for source in infer_sources(variant):
        out = tmp_path / f"{source.name}.o"
        command = [
            *compile_command(board, optimise="-Os"),
            *infer_flags(board),
            "-Werror",
            "-c",
            str(source),
            "-o",
            str(out),
        ]
        subprocess.run(command, check=True)
        told = subprocess.run([board.toolchain.prefix + "nm", out], capture_output=True, text=True, check=True).stdout
        symbols += [(words[-2], words[-1]) for line in told.splitlines() if len(words := line.split()) >= 2]
    assert [symbol for kind, symbol in symbols if kind in "BbDdCGgSs"] == []
    defined = {symbol for kind, symbol in symbols if kind in "TtRr"}
    outside = {symbol for kind, symbol in symbols if kind in "Uwv"} - defined
    assert {symbol for symbol in outside if not FREESTANDING.fullmatch(symbol)} == set()
    public = {symbol for kind, symbol in symbols if kind in "TR"}
    assert {symbol for symbol in public if not symbol.startswith("fti_")} == set()


def sample_network(dtype: str) -> tuple[Network, list[Array]]:
    """A sparse int8 convolution, or a float32 one."""
    random = np.random.default_rng(3)
    network = wide_convolution(random, 0.1) if dtype == "int8" else one_operator(Kind.CONV2D, dtype, random)
    return network, samples(network, 1, random)


def write_c(folder: Path, network: Network, x: list[Array], variant: str) -> list[Path]:
    """Generated C with a main that runs one sample and prints the output's bytes as numbers."""
    files = to_c(network, "net", variant=variant, options=SPARSE)
    for name, text in files.items():
        (folder / name).write_text(text)
    data = ",".join(map(str, x[0].view(np.uint8).reshape(-1)))
    size = network.tensors[network.outputs[0]].nbytes
    (folder / "main.c").write_text(
        f"""#include <string.h>
#include "net.h"
#include "port.h"
static uint64_t arena[(NET_ARENA_BYTES + 7) / 8];
static const uint8_t x[] = {{{data}}};
int main(void)
{{
    memcpy(net_input(arena), x, sizeof x);
    net_run(arena);
    for (int i = 0; i < {size}; i++) {{
        port_print_number(((const uint8_t *)net_output(arena))[i]);
        port_print(" ");
    }}
    return 0;
}}
"""
    )
    return [folder / name for name in files if name.endswith((".c", ".S"))]


def as_cortex_m0(board: Board) -> Board:
    """A Cortex-M4 runs what is compiled for a Cortex-M0+."""
    return board.model_copy(update={"toolchain": board.toolchain.model_copy(update={"machine": list(CORTEX_M0)})})


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize(
    ("target", "variant"),
    [("native", ""), ("qemu-mps2-an386", ""), ("qemu-mps2-an386", "m4"), ("cortex-m0plus", ""), ("qemu-rv32", "")],
)
def test_generated_c_compiles_alone_and_prints_the_same_results(
    target: str, variant: str, dtype: str, tmp_path: Path
) -> None:
    board = need(load_board("qemu-mps2-an386" if target == "cortex-m0plus" else target))
    board = as_cortex_m0(board) if target == "cortex-m0plus" else board
    network, x = sample_network(dtype)
    generated = write_c(tmp_path, network, x, variant)
    for path in generated:  # alone: no folder of the project's
        libc = [f"-I{root() / 'firmware' / name}" for name in board.toolchain.include]  # a board without a C library
        command = [board.toolchain.prefix + board.toolchain.compiler, *board.toolchain.machine, *ALONE, *libc]
        subprocess.run([*command, "-c", path, "-o", tmp_path / "alone.o"], check=True)
    elf = build(board, [*generated, tmp_path / "main.c"], out=tmp_path / "net.elf", flags=[f"-I{tmp_path}"])
    printed = [int(word) for word in run(board, elf).output.split()]
    wanted = engine.run(pack(network), x)[network.outputs[0]]
    assert bytes(printed) == wanted.tobytes()


def test_generated_c_brings_only_the_kernels_that_it_uses() -> None:
    network, _ = sample_network("int8")
    names = set(to_c(network, "net", options=SPARSE))
    assert names == {"net.h", "net.c", "fedtiny_infer.h", "sparse_conv_s8.c", "sparse_s8.h", "scale.h"}
    assert "sparse_conv_s8_m4.S" in to_c(network, "net", variant="m4", options=SPARSE)
    assert {"conv_s8.c", "columns_s8.c"} < set(to_c(network, "net", options=Options(hold="dense")))


def test_a_name_that_a_kernel_has_is_refused() -> None:
    for name in ("sparse_conv_s8", "fedtiny_infer", "scale"):
        with pytest.raises(ExportError, match="Choose another name"):
            to_c(sample_network("int8")[0], name, options=SPARSE)


@pytest.mark.parametrize("name", ["", "2nd", "a-b", "x y"])
def test_a_name_that_c_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="cannot name C functions"):
        to_c(sample_network("int8")[0], name)


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler on this machine")
def test_the_generated_header_is_also_cpp(tmp_path: Path) -> None:
    network, x = sample_network("int8")
    write_c(tmp_path, network, x, "")
    (tmp_path / "use.cpp").write_text('#include "net.h"\nvoid f(void *arena) { net_run(arena); }\n')
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", "-c", "use.cpp", "-o", "use.o"], cwd=tmp_path, check=True)
