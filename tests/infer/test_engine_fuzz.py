"""Programs of any bytes: the loader refuses, or the run touches nothing outside of blob and arena."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedtiny.emulation import infer_sources
from fedtiny_export.infer.network import Kind
from fedtiny_export.infer.pack import pack
from fedtiny_export.infer.sparse import Options

from .operators import one_operator

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'firmware/infer'}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc on this machine")


def build(folder: Path, sources: list[Path], *flags: str) -> Path:
    fuzz = folder / "fuzz"
    command = ["gcc", *FLAGS, *SANITIZERS, *flags, "-o", fuzz, *sources, ROOT / "tests/infer/fuzz/fuzz.c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("gcc has no sanitizers here: apt-get install libasan8 libubsan1")
    assert done.returncode == 0, done.stderr
    return fuzz


def seeds(folder: Path) -> list[Path]:
    """A program of every kernel, dense and pruned."""
    found = []
    for dtype in (np.int8, np.float32):
        for kind in Kind:
            if (kind, dtype) == (Kind.DEQUANTIZE, np.float32):
                continue
            for hold in ("dense", "sparse"):
                network = one_operator(kind, dtype, np.random.default_rng(int(kind)))
                path = folder / f"{kind.name}-{np.dtype(dtype).name}-{hold}"
                path.write_bytes(pack(network, Options(hold=hold)).blob)
                found.append(path)
    return found


def fuzz(program: Path, folder: Path, count: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=8"}
    command = [program, str(count), "1", *seeds(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_hundred_thousand_bad_programs_break_nothing(tmp_path: Path) -> None:
    done = fuzz(build(tmp_path, infer_sources()), tmp_path, 200_000)
    assert done.returncode == 0, done.stderr[-3000:]
    inputs, taken = (int(part.split()[0]) for part in done.stdout.split(", "))
    assert inputs == 200_000
    assert taken > 40_000  # the kernels ran, on programs that nobody wrote


@pytest.mark.parametrize(
    ("check", "without"),
    [
        ("fits(c, op->y, y_size(op), size)", "1"),
        ("if ((at += p[0]) >= depth)", "if ((at += p[0]) >= 2 * depth)"),
        ("if (!there(c, op->multiplier, 4ull * n, 4) ||", "if (!op->multiplier ||"),
        ("fits(c, op->work, (b.work_bytes + 3) / 4, 4)", "1"),
    ],
)
def test_the_fuzzer_finds_a_check_that_is_taken_away(check: str, without: str, tmp_path: Path) -> None:
    sources = infer_sources()
    original = next(path for path in sources if path.name == "check.c")
    text = original.read_text("utf-8")
    assert check in text
    weaker = tmp_path / "check.c"
    weaker.write_text(text.replace(check, without))
    done = fuzz(build(tmp_path, [weaker if path == original else path for path in sources]), tmp_path, 200_000)
    assert done.returncode != 0
