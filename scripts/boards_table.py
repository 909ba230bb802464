"""The README's table of boards: what a node takes on each that is built here, and what a training step takes.

    .venv/bin/python scripts/boards_table.py     # three minutes

Writes docs/boards.json and the README between its markers; tests/system/test_readme.py compares the two.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from fedtiny.bench import builds
from fedtiny.bench.cases import Case
from fedtiny.bench.counting import count_cases
from fedtiny.boards import Board, board_names, load_board
from fedtiny.flash.make import make

FIGURES, README = Path("docs/boards.json"), Path("README.md")
BEGIN, END = "<!-- boards: scripts/boards_table.py -->\n", "<!-- boards: end -->\n"
STEP = Case(model="ref", density=0.1, mode="train")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder))
    FIGURES.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + markdown(rows) + END + rest.partition(END)[2])


def measured(folder: Path) -> list[dict[str, Any]]:
    boards = [load_board(name) for name in board_names(Path("boards"))]
    counts: dict[tuple[object, ...], tuple[int, str]] = {}
    for board in boards:
        if board.emulator:
            out = folder / board.name
            out.mkdir()
            cost = count_cases(board.name, builds.DETERMINISTIC, [STEP], out)[STEP]
            counts.setdefault(compiled(board), (cost.instructions, board.name))
    return [row(board, counts, folder) for board in boards]


def compiled(board: Board) -> tuple[object, ...]:
    """What the instructions of a program depend on."""
    return (board.tools.prefix, board.tools.machine, board.tools.variant) if board.tools else (board.name,)


def row(board: Board, counts: dict[tuple[object, ...], tuple[int, str]], folder: Path) -> dict[str, Any]:
    made = make(board, folder / "images") if board.built_by == "fedtiny" else None
    instructions, counted_on = counts.get(compiled(board), (None, None))
    memory = board.memory
    return {
        "board": board.name,
        "title": board.title,
        "core": board.core,
        "fpu": board.fpu,
        "clock_mhz": board.clock_hz // 10**6 if board.clock_hz else None,
        "flash_kib": memory.flash.bytes // 1024 if memory else None,
        "banks_kib": {bank.name: bank.bytes // 1024 for bank in memory.banks} if memory else {},
        "built_by": board.built_by,
        "emulated": board.emulator is not None,
        "node_flash_bytes": made.size.flash if made else None,
        "node_ram_bytes": made.size.ram if made else None,
        "step_instructions": instructions,
        "counted_on": counted_on,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| board | core, FPU, MHz | flash; RAM, KiB | node: flash; RAM, bytes | training step, instructions | from |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        clock = f", {r['clock_mhz']}" if r["clock_mhz"] and not r["emulated"] else ""
        banks = " + ".join(f"{size} {name}" for name, size in r["banks_kib"].items())
        memory = f"{r['flash_kib']}; {banks}" if banks else ""
        node = f"{r['node_flash_bytes']:,}; {r['node_ram_bytes']:,}" if r["node_flash_bytes"] else ""
        step = f"{r['step_instructions']:,}" if r["step_instructions"] else ""
        step += "" if r["emulated"] or not step else " *"
        by = r["built_by"] + (", runs in QEMU" if r["emulated"] else "")
        lines.append(
            f"| `{r['board']}`, {r['title']} | {r['core']}, {r['fpu']}{clock} | {memory} | {node} | {step} | {by} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
