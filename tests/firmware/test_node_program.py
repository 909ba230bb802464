"""fedtiny-node, the C core as a program: what it prints, and how much memory a native node takes beside its arena."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, plan, plan_banks

from .nets import ALL_MODES, make, node_of, random_masks, random_samples

PROGRAM = Path(sys.executable).parent / "fedtiny-node"


def call(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PROGRAM, *arguments], input=stdin, capture_output=True, check=False)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    _, model = make("residual")
    masks = random_masks(model, 0.3)
    x, y = random_samples(20, model.graph.classes)
    blob, samples = tmp_path / "model.ftm", tmp_path / "samples.bin"
    arrays = {name: array * masks.get(name, np.float32(1)) for name, array in model.arrays.items()}
    blob.write_bytes(write_blob(model.graph, arrays, masks))
    samples.write_bytes(b"".join(label.tobytes() + sample.tobytes() for sample, label in zip(x, y, strict=True)))
    return blob, samples


def test_it_gives_the_logits_and_the_loss_of_the_library(files: tuple[Path, Path]) -> None:
    blob, samples = files
    _, model = make("residual")
    node = node_of(model, random_masks(model, 0.3))
    x, y = random_samples(20, model.graph.classes)
    node.set_samples(x, y, 0)
    logits = np.frombuffer(call("infer", blob, stdin=x.tobytes()).stdout, np.float32).reshape(20, -1)
    np.testing.assert_array_equal(logits, node.infer(x))
    told = json.loads(call("eval", blob, samples).stdout)
    tally = node.evaluate(1)
    assert told["loss"] == pytest.approx(tally.loss_sum / 20, abs=1e-6)
    assert told["accuracy"] == pytest.approx(tally.correct / 20)


def test_it_trains_as_the_library_does_and_plans_the_same_bytes(files: tuple[Path, Path]) -> None:
    blob, samples = files
    config = NodeConfig(micro_batch=8, modes=("train",))
    node = CoreNode(blob.read_bytes(), config)
    node.set_samples(*random_samples(20, 4), 0)
    tally, _ = node.train(epochs=3, lr=0.05, momentum=0.9, weight_decay=0.0, seed=0)
    told = json.loads(call("train", blob, samples, "3", "0.05").stdout)
    assert told["loss"] == pytest.approx(tally.loss_sum / tally.samples, abs=1e-6)
    assert told["arena_bytes"] == json.loads(call("plan", blob).stdout)["train"]["peak"] == node.memory.peak


def test_it_plans_over_banks_as_the_library_does(files: tuple[Path, Path]) -> None:
    blob, _ = files
    one = json.loads(call("plan", blob).stdout)["train"]
    assert "parts" not in one
    sizes = [one["peak"] - 64, 4096]
    told = json.loads(call("plan", blob, *(word for size in sizes for word in ("--bank", str(size)))).stdout)["train"]
    memory, spread = plan_banks(blob.read_bytes(), NodeConfig(micro_batch=8, modes=("train",)), sizes)
    assert told["missing"] is None
    assert {part: at["bank"] for part, at in told["parts"].items()} == dict(spread.banks)
    assert {part: at["bytes"] for part, at in told["parts"].items()} == dict(spread.parts)
    assert set(spread.banks.values()) == {0, 1}
    assert (told["peak"], memory.peak) == (one["peak"], one["peak"])
    assert all(0 < used <= size for used, size in zip(told["banks"], sizes, strict=True))


def test_it_names_the_part_that_no_bank_holds(files: tuple[Path, Path]) -> None:
    blob, _ = files
    done = call("plan", blob, "--bank", "4096", "--bank", "0x1000")
    assert done.returncode == 0
    missing = plan_banks(blob.read_bytes(), NodeConfig(micro_batch=8, modes=("train",)), [4096, 4096])[1]
    told = json.loads(done.stdout)["train"]["missing"]
    assert told == {"part": missing.missing, "bytes": missing.parts[missing.missing or ""]}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["plan"],
        ["dance", "x"],
        ["plan", "missing.ftm"],
        ["train", "a", "b"],
        ["plan", "a", "--bank"],
        ["plan", "a", "--bank", "x"],
        ["plan", "a", "--bank", "0"],
        ["plan", "a", *["--bank", "9"] * 5],
    ],
)
def test_a_wrong_call_says_so_and_exits_with_2(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert b"usage:" in done.stderr or b"cannot be read" in done.stderr


def test_a_native_node_takes_its_arena_and_less_than_a_megabyte_besides() -> None:
    _, model = make("residual")
    blob = write_blob(model.graph, model.arrays, {})
    config = NodeConfig(micro_batch=64, modes=ALL_MODES)
    samples = random_samples(64, model.graph.classes)

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def working_node() -> CoreNode:
        node = CoreNode(blob, config)
        node.set_samples(*samples, 10)
        node.train(epochs=1, lr=0.01, momentum=0.9, weight_decay=0.0, seed=0)
        return node

    nodes = [working_node()]
    before = resident_bytes()
    nodes += [working_node() for _ in range(20)]
    each = (resident_bytes() - before) / 20
    assert each < plan(blob, config).peak + 1_000_000
