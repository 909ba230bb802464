"""Blobs of any bytes, masks of any bytes, calls in any order: an error code, never a crash, never a byte outside."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fedtiny.emulation import core_sources
from fedtiny_export.blob import write_blob
from fedtiny_export.core import NodeConfig, plan
from fedtiny_export.errors import PlanError
from fedtiny_export.graph import Graph, Op, OpKind, Tensor

from .fuzz.seeds import write_seeds

ROOT = Path(__file__).parents[2]
SOURCES = core_sources()
FUZZ = ROOT / "tests/firmware/fuzz"
FLAGS = ["-std=c99", "-O2", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'firmware/include'}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(folder: Path, sources: list[Path], *flags: str) -> Path:
    driver = folder / "driver"
    command = ["gcc", *FLAGS, *SANITIZERS, *flags, "-o", driver, *sources, *sorted(FUZZ.glob("*.c")), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("gcc has no sanitizers here: apt-get install libasan8 libubsan1")
    assert done.returncode == 0, done.stderr
    return driver


def fuzz(driver: Path, folder: Path, count: int) -> subprocess.CompletedProcess[str]:
    seeds = folder / "seeds"
    seeds.mkdir()
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=8"}
    command = [driver, str(count), "1", *write_seeds(seeds)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc on this machine")
def test_two_hundred_thousand_bad_inputs_break_nothing(tmp_path: Path) -> None:
    done = fuzz(build(tmp_path, SOURCES), tmp_path, 200_000)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "200000 inputs\n"


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc on this machine")
@pytest.mark.parametrize(
    ("file", "check", "without"),
    [
        ("blob.c", "|| !inside(blob, p.values_at, p.live, 4)", ""),
        ("node.c", "if (!ft_mask_check(mask, &live))", "if (!ft_mask_check(mask, &live) && (live = 0))"),
        (
            "train.c",
            "return ft_num_all_finite(net->weights + start, values) ? FT_OK : FT_ERR_NONFINITE;",
            "return FT_OK;",
        ),
    ],
)
def test_the_fuzzer_finds_a_check_that_is_taken_away(file: str, check: str, without: str, tmp_path: Path) -> None:
    original = next(path for path in SOURCES if path.name == file)
    text = original.read_text("utf-8")
    assert check in text
    weaker = tmp_path / file
    weaker.write_text(text.replace(check, without))
    sources = [weaker if path == original else path for path in SOURCES]
    done = fuzz(build(tmp_path, sources, f"-I{original.parent}"), tmp_path, 400_000)
    assert done.returncode != 0


def test_activations_that_overflow_32_bits_when_added_up_are_refused() -> None:
    """300 ReLUs over 2^24 elements: each is allowed, their sum in bytes is not; a wrapped sum would look small."""
    kinds = [OpKind.RELU] * 300
    tensors = [Tensor(f"t{i}", (1, 4096, 4096)) for i in range(len(kinds) + 1)]
    ops = [Op(kind, (i,), i + 1) for i, kind in enumerate(kinds)]
    ops.append(Op(OpKind.AVGPOOL, (len(kinds),), len(kinds) + 1, kernel=(4096, 4096), stride=(1, 1)))
    tensors.append(Tensor("logits", (1, 1, 1)))
    graph = Graph(tuple(tensors), (), tuple(ops), 0, len(tensors) - 1)
    with pytest.raises(PlanError):
        plan(write_blob(graph, {}, {}), NodeConfig(micro_batch=1, modes=("infer", "train")))
