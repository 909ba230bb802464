"""The STM32F4 port's register code: all of it runs here on memory that behaves as the chips (target/stm32_chip.c)
because QEMU's model has neither clock tree nor flash controller. What runs in QEMU is in tests/link/test_boards.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fedtiny.boards import load_board, root
from fedtiny.images import node_of

HERE = Path(__file__).parent
# A crystal of 25 MHz, * 336 / 25 / 2, buses by 4 and 2; a clock of 8 MHz from elsewhere, * 336 / 8 / 2, the same buses;
# 25 MHz, * 192 / 25 / 2, buses by 2 and 1. The dividers of 115,200: 84 MHz / 729.2, 42 / 364.6, 96 / 833.3.
CHIPS = {
    "netduinoplus2": "hz 168000000 pll 27405419 buses 940a waits 5 scale 4000 bypass 0 baud 2d9 on 1",
    "nucleo_f446re": "hz 168000000 pll 27405408 buses 940a waits 5 scale c000 bypass 1 baud 16d on 1",
    "blackpill_f411ce": "hz 96000000 pll 24403019 buses 100a waits 3 scale c000 bypass 0 baud 341 on 1",
}


@pytest.fixture(scope="module", params=CHIPS)
def board(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def chip(board: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registers' code as it is built for the board, with the defines of its file."""
    firmware = root() / "firmware"
    port = firmware / "port"
    made = tmp_path_factory.mktemp("stm32") / board
    sources = [port / "stm32" / name for name in ("clock.c", "flash.c", "board.c")]
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
    defines = [f"-D{name}={value}" for name, value in node_of(load_board(board)).defines.items()]
    defines += [f"-I{firmware}", f"-I{firmware / 'include'}", "-DNODE_BAUD=115200"]
    defines += [f"-DNODE_FLASH_BYTES={flash_bytes(board)}"]
    files = [HERE / "target" / "stm32_chip.c", port / "record.c", *sources]
    subprocess.run(["gcc", *flags, *defines, *map(str, files), "-o", str(made)], check=True)
    return made


def flash_bytes(board: str) -> int:
    memory = load_board(board).memory
    assert memory is not None
    return memory.flash.bytes


def said(chip: Path, *arguments: str) -> str:
    return subprocess.run([chip, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def found(chip: Path, *arguments: str) -> dict[str, str]:
    words = said(chip, *arguments).split()
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_crystal_gives_the_full_rate_and_the_baud_rate_follows(board: str, chip: Path) -> None:
    assert said(chip, "clock", "all") == CHIPS[board]
    assert CHIPS[board].startswith(f"hz {load_board(board).clock_hz} ")


@pytest.mark.parametrize("fails", ["no-crystal", "no-pll", "no-switch"])
def test_a_clock_that_does_not_start_leaves_16_mhz_and_the_same_baud_rate(fails: str, chip: Path) -> None:
    words = found(chip, "clock", fails)
    assert (words["hz"], words["baud"]) == ("16000000", f"{139:x}")  # 16 MHz / 115,200 = 138.9
    assert (words["buses"], words["on"]) == ("0", "0")


def test_where_there_is_no_clock_tree_the_full_rate_counts(board: str, chip: Path) -> None:
    words, full = found(chip, "clock", "emulator"), CHIPS[board].split()
    assert (words["hz"], words["baud"]) == (full[1], full[-3])
    assert (words["pll"], words["waits"], words["on"]) == ("0", "0", "0")


def test_the_uart_of_the_board_is_the_one_that_is_set_up(board: str, chip: Path) -> None:
    """Function 7 of two pins of port A, the clock of USART1 (APB2, bit 4) or USART2 (APB1, bit 17), its interrupt."""
    usart1 = "out 9 modes 280000 pulled 100000 high 770 low 0 apb1 10000000 apb2 10 interrupts 20"
    usart2 = "out 2 modes a0 pulled 40 high 0 low 7700 apb1 10020000 apb2 0 interrupts 40"
    assert said(chip, "pins", "all") == (usart2 if board == "nucleo_f446re" else usart1)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [("0e000000", 1), ("04000000", 2), ("24000000", 3), ("44000000", 3), ("14000000", 6), ("06000000", 5), ("0", 0)],
)
def test_the_reason_of_a_reset_is_told_by_its_number(flags: str, reason: int, chip: Path) -> None:
    assert said(chip, "reset", flags) == str(reason)


def test_the_record_goes_through_both_sectors_of_flash_by_its_rules(chip: Path) -> None:
    """1,024 records an erasure; no other sector is touched; bits go from 1 to 0, in words, unlocked; what stays locked
    changes nothing.
    """
    assert said(chip, "record", "2060") == "bad 0 erased 3 misused 0 locked 1 refused 1 left start 2059"


def test_models_and_samples_have_sectors_of_their_own_behind_the_image(board: str, chip: Path) -> None:
    """Areas at their place and size by the reference manuals; all that is written is read, nothing else changes, and
    the image keeps clear of them.
    """
    wanted = {
        "netduinoplus2": [(0x80000, 0x20000, 1), (0xA0000, 0x20000, 1), (0x40000, 0x40000, 2)],
        "nucleo_f446re": [(0x10000, 0x10000, 1), (0x20000, 0x20000, 1), (0, 0, 0)],
        "blackpill_f411ce": [(0x10000, 0x10000, 1), (0x20000, 0x20000, 1), (0, 0, 0)],
    }[board]
    lines = [f"area {i} at {at:x} bytes {size} bad 0 erased {sectors}" for i, (at, size, sectors) in enumerate(wanted)]
    assert said(chip, "areas", "7").splitlines() == [*lines, "misused 0 changed 0"]
    assert flash_bytes(board) == min(at for at, size, _ in wanted if size)


def test_a_board_file_whose_image_may_reach_into_its_storage_is_not_compiled(board: str) -> None:
    firmware = root() / "firmware"
    defines = [f"-D{name}={value}" for name, value in node_of(load_board(board)).defines.items()]
    command = ["gcc", "-std=c99", "-fsyntax-only", f"-I{firmware / 'include'}", *defines]
    for more, code in ((0, 0), (8, 1)):
        command_now = [*command, f"-DNODE_FLASH_BYTES={flash_bytes(board) + more}", firmware / "port/stm32/flash.c"]
        done = subprocess.run(command_now, capture_output=True, text=True, check=False)
        assert (done.returncode, "lie_behind_memory_flash_bytes" in done.stderr) == (code, bool(code))
