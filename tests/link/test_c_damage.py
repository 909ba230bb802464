"""Damaged and forged frames against the C node: of millions none is taken."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ..conftest import Outcome
from .c_build import TARGET, build, needs_gcc, sources

DAMAGED, FORGED = 2_000_000, 1_000_000
pytestmark = needs_gcc


@pytest.fixture(scope="module")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = ("frame", "cobs", "blob", "mask", "num", "monocypher")
    files = [TARGET / "damage.c", *(path for path in sources() if path.stem in wanted)]
    return build(tmp_path_factory.mktemp("damage") / "damage", files)


def judged(program: Path, what: str, count: int) -> tuple[int, int, int]:
    """Tried, decoded, taken. A genuine frame is taken at the end, so that the program does look."""
    done = subprocess.run([program, what, str(count), "1"], capture_output=True, text=True, check=True)
    found = re.fullmatch(r"(\d+) tried, (\d+) decoded, (\d+) taken, \d+ whole, genuine 1\n", done.stdout)
    assert found, done.stdout
    tried, decoded, taken = map(int, found.groups())
    return tried, decoded, taken


def test_of_two_million_damaged_frames_none_is_taken(damage: Path, outcome: Outcome) -> None:
    """Half of them carry a tag, half a CRC-32 alone; a fifth or more still form a frame for it to judge."""
    tried, decoded, taken = judged(damage, "flips", DAMAGED)
    assert (tried, taken) == (DAMAGED, 0)
    assert decoded > DAMAGED // 5
    outcome("damaged frames", end="node", tried=tried, what="frames, psk and plain", result="0 taken")


def test_of_a_million_forged_tags_none_is_taken(damage: Path, outcome: Outcome) -> None:
    assert judged(damage, "tags", FORGED) == (FORGED, FORGED, 0)
    outcome("forged tags", end="node", tried=FORGED, what="tags", result="0 taken")
