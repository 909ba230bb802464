"""The inference engine on emulated boards: the C that a board runs, fed by files; exact counts of instructions."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtiny import emulation
from fedtiny.boards import Board, root
from fedtiny_export.errors import FleetError
from fedtiny_export.infer.engine import checked_inputs, wanted_tensors
from fedtiny_export.infer.program import Program

OPTIMISE = "-O2"
SPARE = 48 * 1024
"""Of a bank of RAM, what samples leave for the program's data, its stack and rounding."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class BoardRun:
    """`outputs` by tensor, as the engine on this computer gives them. Where instructions were counted: those of one
    whole run, the most that any sample took; with `every` those of each step for the first sample instead."""

    outputs: dict[int, Array]
    instructions: int | None = None
    steps: tuple[int, ...] = ()


def run_on_board(
    program: Program,
    inputs: Sequence[Array],
    board: Board,
    *,
    every: bool = False,
    count: bool = False,
    elf: Path | None = None,
) -> BoardRun:
    """Runs samples as fedtiny_export.infer.engine.run does, in the board's emulator. `elf`: what `build` made for the
    board; None: built now.

    Raises ConfigError where compiler or emulator are missing, FleetError where the program does not fit the board.
    """
    samples = checked_inputs(program.network, inputs)
    wanted = sorted(wanted_tensors(program, every=every), key=lambda t: program.places[t].made)
    last = len(program.steps)
    tensors = program.network.tensors
    table = [(program.places[t].made + 1 if every else last, program.places[t].at, tensors[t].nbytes) for t in wanted]
    size = sum(bytes_ for _, _, bytes_ in table)
    one = sum(values[0].nbytes for values in inputs)
    found = np.zeros((samples, size), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elf = elf or build(board, folder)
        (folder / "program").write_bytes(program.blob)
        (folder / "wanted").write_bytes(np.array(table, "<u4").tobytes())
        at_once = _samples_at_once(board, program, one + size)
        counts: dict[str, list[int]] = {"run": [], "op": []}
        for first in range(0, samples, at_once):
            some = range(first, min(first + at_once, samples))
            (folder / "inputs").write_bytes(b"".join(values[s].tobytes() for s in some for values in inputs))
            files = ("program", "wanted", "inputs", "outputs")
            done = emulation.run(board, elf, arguments=files, folder=folder, count=count, timeout_s=600)
            if done.exit_code:
                raise FleetError(f"inference on {board.name} failed: {done.output.strip() or 'a fault'}")
            for word, number in (line.split() for line in done.output.splitlines()):
                counts[word].append(int(number))
            found[first : some.stop] = np.fromfile(folder / "outputs", np.uint8).reshape(len(some), size)
    outputs, at = {}, 0
    for t, (_, _, bytes_) in zip(wanted, table, strict=True):
        tensor = tensors[t]
        values = np.ascontiguousarray(found[:, at : at + bytes_]).view(tensor.dtype)
        outputs[t] = values.reshape(samples, *tensor.shape)
        at += bytes_
    if not count:
        return BoardRun(outputs)
    return BoardRun(outputs, max(counts["run"], default=None), tuple(counts["op"][:last]))


def build(board: Board, folder: Path, *, variant: str | None = None, optimise: str = OPTIMISE) -> Path:
    """The program that runs blobs from files, for a board. `variant`: of the kernels; None: the board's own."""
    kernels = emulation.infer_sources(board.toolchain.variant if variant is None else variant)
    sources = [root() / "firmware" / "port" / "infer" / "main.c", *kernels]
    return emulation.build(
        board, sources, out=folder / "infer.elf", optimise=optimise, flags=emulation.infer_flags(board)
    )


def _samples_at_once(board: Board, program: Program, one: int) -> int:
    if not board.memory:
        return 64
    free = board.memory.banks[0].bytes - SPARE - len(program.blob) - program.arena_bytes
    if free < one:
        raise FleetError(
            f"the program takes {len(program.blob) + program.arena_bytes:,} bytes here, where a blob lies in RAM, and "
            f"{board.name} has {board.memory.banks[0].bytes:,}. Generate C, whose constants lie in flash."
        )
    return int(free // one)
