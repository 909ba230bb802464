"""What a model will take of a board, before anything is built: flash, RAM, time and energy, to infer and to train.

Instructions are estimated from live multiply-accumulates and from values written, with coefficients fitted to exact
counts in QEMU. Time is at one instruction per clock cycle, so a chip takes somewhat longer. Energy is told as a class,
a factor of ten wide, from what chips of a core typically take per cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedtiny.boards import Board, node_banks, refuse_training
from fedtiny_export.errors import FedtinyError, PlanError
from fedtiny_export.infer.check import WEIGHTED
from fedtiny_export.infer.network import Network
from fedtiny_export.infer.pack import pack

if TYPE_CHECKING:
    from fedtiny.modelsource import Source

INSTRUCTIONS: dict[tuple[str, str], tuple[float, float]] = {
    ("dsp", "int8"): (1.02, 39.0),
    ("dsp", "float32"): (5.0, 164.0),
    ("fpu", "int8"): (3.5, 71.0),
    ("fpu", "float32"): (5.0, 164.0),
    ("none", "int8"): (3.5, 71.0),
    ("none", "float32"): (145.0, 0.0),
}
"""Per live multiply-accumulate and per value written: of the engine's kernels for a Cortex-M with DSP, of portable ones
on a core with an FPU, and on one without. Counted on MLPerf Tiny's models and on a pruned one of fedtiny's, on
qemu-mps2-an386 and qemu-rv32: within 15 %."""

TRAINING = (7.4, 11.5)
"""The same of a training step, one sample, on a Cortex-M4F: within 35 % of docs/kernels.json."""
WITHOUT_FPU = 48  # times as many of a training step, as docs/boards.json counts on qemu-rv32

NANOJOULES = {"cortex-m0": 0.3, "cortex-m33": 0.3, "cortex-m4": 0.5, "cortex-m7": 0.9, "rv32": 0.5, "xtensa": 0.7}
"""Per cycle, of microcontrollers with that core while they compute: some 100 to 250 microamperes per MHz at 3.3 V."""
CLASSES = (("A", 1e-4), ("B", 1e-3), ("C", 1e-2), ("D", 1e-1))  # joules below which; E above

CODE_BYTES = 12 * 1024
"""Flash of kernels, start-up and port beside the constants: ResNet8's in `fedtiny bench export`, which has the most."""

WITH_DSP = ("cortex-m4", "cortex-m7", "cortex-m33")


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of work on a board. `ram`: bytes taken of each bank, and `banks`: bytes of these that there are.

    `model_flash_bytes`: constants in flash; a model that trains lies in RAM. `code_flash_bytes`: of a program that
    infers; 0 of a node, whose image has a size of its own (fedtiny build). `problem`: why it does not fit, and what
    would make it fit; None where it fits.
    """

    work: str
    model_flash_bytes: int
    code_flash_bytes: int
    flash_bytes: int | None
    ram: dict[str, int]
    banks: dict[str, int]
    instructions: int | None
    seconds: float | None
    energy_class: str | None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "fits": self.problem is None}


def plan_model(source: Source, board: Board, works: Sequence[str]) -> list[Work]:
    """Plans of `works`: "infer", "infer-int8" and "train". Raises PlanError where a model is to train that fedtiny
    did not make, and what importing and quantising raise."""
    planned = []
    for work in works:
        if work == "train":
            planned.append(_training(source, board))
        else:
            planned.append(_inference(source.network(int8=work == "infer-int8"), board, work))
    return planned


def _inference(network: Network, board: Board, work: str) -> Work:
    program = pack(network)
    banks = node_banks(board)
    flash = board.memory.flash.bytes if board.memory else None
    place = next((name for name, size in banks.items() if size >= program.arena_bytes), None)
    constants = len(program.blob)
    problem = None
    if place is None:
        problem = (
            f"{work} takes {program.arena_bytes:,} bytes of RAM in one piece, and {board.name} has "
            f"{' + '.join(f'{size:,} {name}' for name, size in banks.items())} left beside stack and data. "
            f"{_smaller(network, max(banks.values(), default=0))}"
        )
    elif flash is not None and constants + CODE_BYTES > flash:
        smaller = "A lower density stores less" if network.int8 else "int8 takes a quarter (--for infer-int8)"
        problem = (
            f"{work} takes {constants:,} bytes of flash and some {CODE_BYTES:,} of code, and {board.name}'s file gives "
            f"a program {flash:,}. {smaller}; where a node's storage takes the rest, a board file for inference alone "
            "may give the program more."
        )
    instructions = round(_cost(INSTRUCTIONS[_kind(board), "int8" if network.int8 else "float32"], *_work(network)))
    return Work(
        work=work,
        model_flash_bytes=constants,
        code_flash_bytes=CODE_BYTES,
        flash_bytes=flash,
        ram={place or next(iter(banks)): program.arena_bytes},
        banks=banks,
        instructions=instructions,
        problem=problem,
        **_time(board, instructions),
    )


def _smaller(network: Network, room: int) -> str:
    """What would make an arena fit."""
    largest = sorted((t.nbytes for t in network.tensors if t.data is None), reverse=True)[:2]
    words = f"Its two largest maps take {sum(largest):,}. "
    if not network.int8 and sum(largest) // 4 <= room:
        return words + "int8 takes a quarter of it and may fit: --for infer-int8."
    return words + "Take smaller inputs, fewer channels in the first layers, or a board with more RAM."


def _training(source: Source, board: Board) -> Work:
    from fedtiny.flash.fit import refuse_unfit, training_load
    from fedtiny.fleet.planning import planned
    from fedtiny_export.flops import macs

    model = source.loaded.training
    if model is None:
        raise PlanError("only a model that fedtiny made can be trained: name a run's folder or a .ftm file.")
    path = source.run.path if source.run else source.loaded.path
    load = training_load(path)
    arena, _ = planned(load)
    problem = None
    try:
        refuse_training(board, force=False, how=f"fedtiny build {board.name} --model {path} --force")
        refuse_unfit(board, path, work="train", samples_bytes=0, force=False)
    except FedtinyError as error:
        problem = str(error)
    live = {n: float(np.count_nonzero(model.arrays[n])) / model.arrays[n].size for n in model.graph.layer_names}
    values = sum(t.size for t in model.graph.tensors)
    instructions = round(_cost(TRAINING, sum(macs(model.graph, live).values()), values))
    if board.fpu == "none":
        instructions *= WITHOUT_FPU
    banks = node_banks(board)
    return Work(
        work="train",
        model_flash_bytes=0,
        code_flash_bytes=0,
        flash_bytes=board.memory.flash.bytes if board.memory else None,
        ram={next(iter(banks)): arena + len(load.blob)},
        banks=banks,
        instructions=instructions,
        problem=problem,
        **_time(board, instructions),
    )


def _work(network: Network) -> tuple[float, float]:
    """Live multiply-accumulates of one sample, and values that operators write."""
    count = 0.0
    for op in network.operators:
        weight = network.tensors[op.inputs[1]] if op.kind in WEIGHTED else None
        if weight is not None and weight.data is not None:
            channels = weight.shape[WEIGHTED[op.kind]]
            count += network.tensors[op.outputs[0]].size * float(np.count_nonzero(weight.data)) / channels
    return count, float(sum(network.tensors[i].size for op in network.operators for i in op.outputs))


def _cost(coefficients: tuple[float, float], macs: float, values: float) -> float:
    return coefficients[0] * macs + coefficients[1] * values


def _kind(board: Board) -> str:
    if board.core.startswith(WITH_DSP):
        return "dsp"
    return "none" if board.fpu == "none" else "fpu"


def _time(board: Board, instructions: int) -> dict[str, Any]:
    clock = board.clock_hz
    each = next((nj for core, nj in NANOJOULES.items() if board.core.startswith(core)), None)
    joules = None if each is None else instructions * each * 1e-9
    letter = None if joules is None else next((name for name, most in CLASSES if joules < most), "E")
    return {"seconds": instructions / clock if clock else None, "energy_class": letter}
