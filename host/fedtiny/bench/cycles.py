"""Modelled cycles of a Cortex-M4F: a cost per executed instruction, after ARM's Technical Reference Manual (DDI 0439,
tables 3-1 and 7-1), without wait states. For ranking builds; no chip was timed.

| instruction | cycles |
|---|---|
| arithmetic, moves, compares, IT, multiply | 1 |
| multiply and accumulate (MLA, MLS) | 2 |
| divide | 12 (2 to 12 by the data) |
| load, store of one register | 2, 1; a load or store right behind another one: 1 |
| load, store of N registers (LDM, STM, LDRD, STRD, PUSH, POP) | 1 + N |
| branch | 1; taken 3 (1 + P, P = 1 to 3 to refill the pipeline, here 2) |
| VADD, VSUB, VMUL, VABS, VNEG, VCMP, VCVT, VMOV, VMRS | 1; one more when the next instruction reads the result of a VADD, VSUB or VMUL |
| VMLA, VMLS, VFMA, VFMS and their negated forms | 3 |
| VDIV, VSQRT | 14 |
| VLDR, VSTR | 2 |
| VLDM, VSTM, VPUSH, VPOP of N registers | 1 + N |
"""  # noqa: E501

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtiny.bench.counting import Block
from fedtiny.boards import Board
from fedtiny_export.errors import ConfigError

REFILL = 2
_ADDRESSED = re.compile(r"^\s*([0-9a-f]+):\t[0-9a-f ]+\t([a-z][\w.]*)\s*(.*)$")
_REGISTERS = re.compile(r"\b([rsd]\d+|sp|lr|pc|sl|fp|ip|sb)(?:-([rsd]\d+))?")
_CONDITION = r"(?:eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|hs|lo)?"
_LOAD = re.compile(rf"^(ldr|str)(b|h|sb|sh)?{_CONDITION}(\.[nw])?$")
_SHORT_FLOAT = re.compile(rf"^v(add|sub|mul|nmul){_CONDITION}\.f32$")
_FUSED = re.compile(rf"^v(fma|fms|fnma|fnms|mla|mls|nmla|nmls){_CONDITION}\.f32$")
_BRANCH = re.compile(rf"^(b|bl|bx|blx|cbz|cbnz){_CONDITION}(\.[nw])?$")


@dataclass(frozen=True)
class Instruction:
    name: str
    operands: str


def disassemble(board: Board, elf: Path) -> dict[int, Instruction]:
    """Instructions by address."""
    command = [board.toolchain.prefix + "objdump", "-d", "--no-show-raw-insn", str(elf)]
    command.remove("--no-show-raw-insn")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    found = {}
    for line in done.stdout.splitlines():
        match = _ADDRESSED.match(line)
        if match:
            found[int(match[1], 16)] = Instruction(match[2], match[3].partition(";")[0].partition("@")[0].strip())
    return found


def registers(text: str) -> int:
    """How many registers a list in braces names."""
    total = 0
    inside = re.search(r"\{(.*)\}", text)
    for first, last in _REGISTERS.findall(inside[1] if inside else ""):
        total += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return total


def cost(instruction: Instruction, before: Instruction | None, after: Instruction | None) -> int:
    """Cycles of one execution, a taken branch's refill left out."""
    name, operands = instruction.name, instruction.operands
    if _LOAD.match(name):
        if name.startswith("str") or (before and _LOAD.match(before.name)):
            return 1
        return 2
    if name.startswith(("vldm", "vstm", "vpush", "vpop")):
        doubles = "{d" in operands
        return 1 + registers(operands) * (2 if doubles else 1)
    if name.startswith(("ldm", "stm", "push", "pop")):
        return 1 + registers(operands)
    if name.startswith(("ldrd", "strd")):
        return 3
    if name.startswith(("vldr", "vstr")):
        return 3 if operands.startswith("d") else 2
    if name.startswith(("vdiv", "vsqrt")):
        return 14
    if _FUSED.match(name):
        return 3
    if _SHORT_FLOAT.match(name):
        return 1 + _reads(after, operands.split(",")[0].strip())
    if name.startswith(("sdiv", "udiv")):
        return 12
    if name.startswith(("mla", "mls")):
        return 2
    return 1


def _reads(instruction: Instruction | None, register: str) -> bool:
    if instruction is None:
        return False
    operands = [word.strip() for word in instruction.operands.split(",")]
    stores = instruction.name.startswith(("vstr", "vcmp", "vmov", "vfma", "vmla", "vfms", "vmls"))
    return register in (operands if stores else operands[1:])


def cycles(program: dict[int, Instruction], executed: Counter[Block], taken: Counter[Block]) -> tuple[int, int]:
    """Modelled cycles and instructions of what ran."""
    order = sorted(program)
    place = {address: i for i, address in enumerate(order)}
    total = instructions = 0
    for (start, length), times in executed.items():
        if not times:
            continue
        addresses: Sequence[int] = order[place[start] : place[start] + length]
        row = [program[a] for a in addresses]
        instructions += length * times
        for i, instruction in enumerate(row):
            before, after = row[i - 1] if i else None, row[i + 1] if i + 1 < length else None
            total += times * cost(instruction, before, after)
        if _jumps(row[-1]):
            total += REFILL * taken[start, length]
    return total, instructions


def _jumps(instruction: Instruction) -> bool:
    """A block that an emulator ended elsewhere, such as at a page's end, goes on without a branch."""
    writes_pc = "pc" in instruction.operands and instruction.name.startswith(("pop", "ldm", "ldr", "mov"))
    return bool(_BRANCH.match(instruction.name)) or writes_pc or instruction.name.startswith(("tbb", "tbh"))
