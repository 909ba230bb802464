"""The STM32F405 port's register code: all of it runs here on memory that behaves as the chip (target/stm32_chip.c)
because QEMU's model has neither clock tree nor flash controller. What runs in QEMU is in tests/link/test_boards.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fedtiny.boards import root

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    firmware = root() / "firmware"
    port = firmware / "port"
    made = tmp_path_factory.mktemp("stm32") / "chip"
    sources = [port / "stm32" / name for name in ("clock.c", "flash.c", "board.c")]
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
    defines = [f"-I{firmware}", "-DSTM32_HSE_HZ=25000000", "-DNODE_BAUD=115200"]
    files = [HERE / "target" / "stm32_chip.c", port / "record.c", *sources]
    subprocess.run(["gcc", *flags, *defines, *map(str, files), "-o", str(made)], check=True)
    return made


def said(chip: Path, *arguments: str) -> str:
    return subprocess.run([chip, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_the_crystal_gives_168_mhz_and_the_baud_rate_follows(chip: Path) -> None:
    """25 MHz / 25 * 336 / 2; buses by 4 and by 2; 84 MHz / 115,200 = 729.2."""
    assert said(chip, "clock", "all") == f"hz 168000000 pll 7405419 buses 940a waits 5 baud {729:x} on 1"


@pytest.mark.parametrize("fails", ["no-crystal", "no-pll", "no-switch"])
def test_a_clock_that_does_not_start_leaves_16_mhz_and_the_same_baud_rate(fails: str, chip: Path) -> None:
    words = said(chip, "clock", fails).split()
    found = dict(zip(words[::2], words[1::2], strict=True))
    assert (found["hz"], found["baud"]) == ("16000000", f"{139:x}")  # 16 MHz / 115,200 = 138.9
    assert (found["buses"], found["on"]) == ("0", "0")


def test_where_there_is_no_clock_tree_the_full_rate_counts(chip: Path) -> None:
    assert said(chip, "clock", "emulator") == f"hz 168000000 pll 0 buses 0 waits 0 baud {729:x} on 0"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [("0e000000", 1), ("04000000", 2), ("24000000", 3), ("44000000", 3), ("14000000", 6), ("06000000", 5), ("0", 0)],
)
def test_the_reason_of_a_reset_is_told_by_its_number(flags: str, reason: int, chip: Path) -> None:
    assert said(chip, "reset", flags) == str(reason)


def test_the_record_goes_through_both_sectors_of_flash_by_its_rules(chip: Path) -> None:
    """1,024 records an erasure; bits go from 1 to 0, in words, unlocked; what stays locked changes nothing."""
    assert said(chip, "record", "2060") == "bad 0 erased 3 misused 0 locked 1 refused 1 left start 2059"
