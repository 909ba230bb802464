"""The same bits everywhere: one script of everything a node does, on this computer and on each emulated board.

A digest covers weights, moments, losses, top-K gradients and logits of 50 training steps with a mask change between.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fedtiny.boards import Board, load_board
from fedtiny.emulation import build, core_sources, run
from fedtiny_export.blob import write_blob
from fedtiny_export.core import LOSSES, NORMS, CoreNode
from fedtiny_export.masks import EncodedMask, Encoding

from .boards import need
from .nets import NETS, make, node_of, random_masks, random_samples

PROGRAM = [Path(__file__).parent / "target" / name for name in ("bits.c", "sha256.c")]
SAMPLES, DEV, LAYER, TOPK, INFERS, MICRO_BATCH = 20, 7, 1, 10, 3, 4
TASK = {"epochs": 5, "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


class Case(NamedTuple):
    net: str
    norm: str
    loss: str = "cross_entropy"
    last_layers: int = 0
    banks: bool = False  # on the target; here it is one arena, and the bits are the same
    density: float = 0.3
    micro_batch: int = MICRO_BATCH
    hold: str = "sparse"  # here; on the target by cost, and the bits are the same

    @property
    def file(self) -> str:
        extras = [self.loss, str(self.last_layers)] if self[2:4] != ("cross_entropy", 0) else []
        extras += ["banks"] if self.banks else []
        extras += [str(self.density)] if self.density != 0.3 else []
        return "-".join([*self.net.replace(",", "").split(), self.norm, *extras])


CASES = [Case(net, norm) for net in NETS for norm in (("batch", "frozen") if "batch norm" in net else ("batch",))]
CASES.append(Case("residual", "frozen"))
CASES += [Case("autoencoder", "batch", "mse"), Case("autoencoder", "batch", "reconstruction")]
CASES += [Case("residual", "batch", last_layers=4), Case("separable", "batch", last_layers=5)]
CASES += [Case("residual", "batch", banks=True), Case("group norm", "batch", banks=True)]
# layers that are held whole for their density (test_hold.py)
CASES += [Case("conv over rows of 14", "batch", density=0.9, micro_batch=1)]
# what the printed table shows: both ways of a batch norm, the other norm, both kinds of convolution
SHOWN = [
    Case("residual", "batch"),
    Case("residual", "frozen"),
    Case("group norm", "batch"),
    Case("depthwise", "batch"),
]


def host_digest(case: Case) -> str:
    """The script of target/bits.c through the library that is installed here."""
    _, model = make(case.net)
    masks = random_masks(model, case.density)
    node = node_of(
        model,
        masks,
        hold=case.hold,
        micro_batch=case.micro_batch,
        norm=case.norm,
        topk_max=TOPK,
        loss=case.loss,
        last_layers=case.last_layers,
    )
    x, y = random_samples(SAMPLES, model.graph.classes)
    node.set_samples(x, y, DEV)
    total = hashlib.sha256()

    def train(node: CoreNode, seed: int) -> None:
        tally, moments = node.train(seed=seed, **TASK)
        for part in (node.values(), moments, np.float64(tally.loss_sum)):
            total.update(part.tobytes())

    train(node, 0)
    indices, gradients = node.score(LAYER, TOPK, batches=2, seed=0)
    for index, gradient in zip(indices, gradients, strict=True):
        total.update(index.tobytes() + gradient.tobytes())
    mask = masks[model.graph.layer_names[LAYER]].ravel().copy()
    mask[np.flatnonzero(mask)[0]] = False
    mask[indices[0]] = True
    values = node.values()
    node.set_mask(LAYER, EncodedMask(Encoding.BITMAP, bitmap(mask)))
    node.set_values(values)
    train(node, 1)
    gradient, loss = node.gradient(1, case.micro_batch)
    tally = node.evaluate(1)
    parts = (gradient, np.float64(loss), node.measure_bn(0)[0], np.float64(tally.loss_sum), node.infer(x[:INFERS]))
    for part in parts:
        total.update(part.tobytes())
    return total.hexdigest()


def bitmap(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> bytes:
    return np.packbits(mask, bitorder="little").tobytes()


def write_case(case: Case, folder: Path) -> None:
    """The file that target/bits.c reads."""
    _, model = make(case.net)
    masks = random_masks(model, case.density)
    arrays = {name: array * masks[name] if name in masks else array for name, array in model.arrays.items()}
    blob = write_blob(model.graph, arrays, masks)
    mask = bitmap(masks[model.graph.layer_names[LAYER]].ravel())
    x, y = random_samples(SAMPLES, model.graph.classes)
    numbers = (NORMS[case.norm], case.micro_batch, SAMPLES, DEV, LAYER, TOPK, INFERS, len(blob), len(mask))
    knobs = LOSSES[case.loss] | case.last_layers << 8 | case.banks << 24
    parts = (struct.pack("<10I", *numbers, knobs), blob, mask, x.tobytes(), y.tobytes())
    (folder / case.file).write_bytes(b"".join(part + bytes(-len(part) % 8) for part in parts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for case in CASES:
        write_case(case, folder)
    return folder


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    found = {case.file: host_digest(case) for case in CASES}
    show("this computer, as installed", found)
    return found


def show(target: str, found: dict[str, str]) -> None:
    """A part of the table of targets and digests, whole with pytest -s."""
    print()
    for case in SHOWN:
        print(f"{target:34s} {case.file:22s} {found[case.file]}")
    total = hashlib.sha256("".join(found[file] for file in sorted(found)).encode()).hexdigest()
    print(f"{target:34s} {f'all {len(found)} cases':22s} {total}")


RUNS = 5


def digests(board: Board, elf: Path, folder: Path, cases: Sequence[Case]) -> dict[str, str]:
    """By case: what the program prints. Several runs, two at a time: one core of this computer emulates one board."""

    def of(some: Sequence[Case]) -> str:
        done = run(board, elf, arguments=[case.file for case in some], folder=folder, timeout_s=300)
        assert done.exit_code == 0, done.output
        return done.output

    with ThreadPoolExecutor(2) as pool:
        printed = "".join(pool.map(of, [cases[i::RUNS] for i in range(min(RUNS, len(cases)))]))
    return dict(line.split() for line in printed.splitlines())


# another optimisation on each; portable C on all, and the tuned kernels where a board has some
BOARDS = {
    "qemu-netduinoplus2": "-O2",
    "qemu-mps2-an386": "-Os",
    "qemu-mps2-an500": "-O3",
    "qemu-mps2-an505": "-O2",
    "qemu-rv32": "-O2",
}
BUILDS = [(name, variant) for name in BOARDS for variant in sorted({"", load_board(name).toolchain.variant})]


@pytest.mark.parametrize(("name", "variant"), BUILDS)
def test_a_board_gives_this_computers_bits(
    name: str, variant: str, folder: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    board, optimise = need(load_board(name)), BOARDS[name]
    sources = [*PROGRAM, *core_sources(variant)]
    elf = build(board, sources, out=tmp_path / "bits.elf", optimise=optimise, flags=["-Werror"])
    found = digests(board, elf, folder, CASES)
    show(f"{name} {optimise} {variant}", found)
    assert found == expected


def test_a_fused_multiply_add_would_be_noticed(folder: Path, expected: dict[str, str], tmp_path: Path) -> None:
    board = need(load_board("qemu-netduinoplus2"))
    flags = ["-ffp-contract=fast", "-std=gnu99"]
    elf = build(board, [*PROGRAM, *core_sources()], out=tmp_path / "bits.elf", flags=flags)
    found = digests(board, elf, folder, SHOWN)
    assert all(found[case.file] != expected[case.file] for case in SHOWN)


@pytest.mark.parametrize("variant", ["", "vector"])
@pytest.mark.parametrize(
    "command", [["gcc", "-O0"], ["gcc", "-O3", "-march=native"], ["clang", "-O3"]], ids=lambda c: " ".join(c)
)
def test_a_compiler_gives_the_installed_cores_bits(
    command: list[str], variant: str, folder: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    native = load_board("native")
    compiler, optimise, *flags = command
    board = native.model_copy(
        update={"tools": native.toolchain.model_copy(update={"compiler": compiler, "packages": (compiler,)})}
    )
    need(board)
    sources = [*PROGRAM, *core_sources(variant)]
    elf = build(board, sources, out=tmp_path / "bits", optimise=optimise, flags=["-Werror", "-Wno-psabi", *flags])
    found = digests(board, elf, folder, CASES)
    show(f"{' '.join(command)} {variant}", found)
    assert found == expected
