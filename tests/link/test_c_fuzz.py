"""Every decoder of the C node under fuzzing with sanitizers: messages, lines, sessions, tasks and their objects."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..conftest import Outcome
from .c_build import SANITIZERS, TARGET, build, needs_gcc, sources
from .fuzz.seeds import write_seeds

FUZZ = Path(__file__).parent / "fuzz"
OWN = [*sorted(FUZZ.glob("*.c")), TARGET / "codec.c"]
pytestmark = needs_gcc


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Each source compiled for fuzzing."""
    folder = tmp_path_factory.mktemp("objects")
    files = [*OWN, *sources()]
    made = {path: folder / f"{number}-{path.stem}.o" for number, path in enumerate(files)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: compiled(path, made[path]), files))
    return made


def compiled(source: Path, out: Path, *flags: str) -> Path:
    return build(out, [source], "-O1", "-c", *flags, *SANITIZERS)


def linked(objects: dict[Path, Path], folder: Path) -> Path:
    return build(folder / "driver", list(objects.values()), *SANITIZERS)


def fuzz(driver: Path, folder: Path, count: int) -> subprocess.CompletedProcess[str]:
    model, seeds = write_seeds(folder / "seeds")
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=8", "FUZZ_MODEL": str(model)}
    command = [driver, str(count), "1", *seeds]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_hundred_thousand_bad_inputs_break_nothing(
    objects: dict[Path, Path], tmp_path: Path, outcome: Outcome
) -> None:
    done = fuzz(linked(objects, tmp_path), tmp_path, 200_000)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "200000 inputs\n"
    outcome("fuzzed decoders", end="node", tried=200_000, what="inputs under ASan and UBSan", result="0 reports")


@pytest.mark.parametrize(
    ("file", "check", "without"),
    [
        ("service.c", "if (ref->length <= room && ft_align8(ref->length) <= room)", "if (room || !room)"),
        ("work.c", "if (length < MASK_HEAD || ft_load_u32(bytes + 4) > length - MASK_HEAD)", "if (0)"),
    ],
)
def test_the_fuzzer_finds_a_check_that_is_taken_away(
    objects: dict[Path, Path], file: str, check: str, without: str, tmp_path: Path
) -> None:
    original = next(path for path in sources() if path.name == file and path.parent.name == "wire")
    text = original.read_text("utf-8")
    assert check in text
    weaker = tmp_path / file
    weaker.write_text(text.replace(check, without))
    flags = [f"-I{original.parent}", f"-I{original.parent.parent / 'op'}"]
    changed = {**objects, original: compiled(weaker, tmp_path / "weaker.o", *flags)}
    assert fuzz(linked(changed, tmp_path), tmp_path, 400_000).returncode != 0
