"""firmware/PORTING.md, followed to the letter: the smallest port by its own commands, and a chip that no port knows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fedtiny.boards import load_board, root
from fedtiny.images import build_node, image_size, node_command
from fedtiny.link.connection import Connection
from fedtiny.link.links import open_link
from fedtiny.link.session import Identity

from ..firmware.boards import need
from ..link.c_build import needs_gcc
from ..link.lesson import KEY, Lesson, assert_same_bits, run, taught, write_record

FIRMWARE = root() / "firmware"
TEXT = (FIRMWARE / "PORTING.md").read_text("utf-8")
PORT = Path(__file__).parent / "porting"
LESSON = Lesson()
SMALL = Lesson(net="batch norm", count=12, micro_batch=2)  # for 64 KiB of RAM


def learns(command: list[str], lesson: Lesson) -> None:
    """The node learns with the bits of the core in this process, and keeps its model over a reset."""

    async def work() -> list[int]:
        sent = []
        for _ in range(2):
            async with Connection(open_link("process:" + shlex.join(command)), Identity("n1", key=KEY)) as host:
                assert_same_bits(await taught(host, lesson), lesson)
                sent.append(host.traffic.down["data.model"])
        return sent

    first, again = run(work())
    assert first > len(lesson.blob)
    assert again == 0


@needs_gcc
def test_the_smallest_port_is_built_by_the_commands_in_the_text(tmp_path: Path) -> None:
    section = TEXT.partition("## The smallest port\n")[2].partition("\n## ")[0]
    commands = "\n".join(re.findall(r"^    (.*)$", section, re.MULTILINE))
    shutil.copytree(FIRMWARE, tmp_path / "firmware")
    subprocess.run(["sh", "-ec", commands], check=True, cwd=tmp_path / "firmware")
    learns([str(tmp_path / "firmware" / "mine-node"), str(write_record(tmp_path / "n1.record", "n1"))], LESSON)


def test_a_chip_that_no_port_knows_takes_a_board_file_and_one_source(tmp_path: Path) -> None:
    """A Cortex-M3 without an FPU, another UART; the files lie outside of firmware/."""
    (tmp_path / "lm3s6965.toml").write_text((PORT / "lm3s6965.toml").read_text().replace("HERE", str(PORT)))
    board = need(load_board("lm3s6965", tmp_path))
    image = build_node(board, tmp_path / "node.elf", flags=["-Werror"])
    size = image_size(board, image)
    print(f"{size.flash} bytes of flash, {size.ram} of RAM beside the stack")
    assert size.flash < 64 * 1024, "PORTING.md says how much it takes"
    assert size.ram < 9 * 1024
    learns(node_command(board, image, write_record(tmp_path / "n1.record", "n1")), SMALL)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:port|examples|include|tests)/[\w./]+\.\w+)`", TEXT))))
def test_what_the_text_names_is_there(name: str) -> None:
    assert (FIRMWARE / name).is_file() or (root() / name).is_file()
