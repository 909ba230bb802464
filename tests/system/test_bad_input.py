"""Bad input: one clear message, exit code 2, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.system.conftest import Fedtiny

CASES = {
    "an unknown preset": (["fashion-mni"], ["unknown preset 'fashion-mni'", "fashion-mini"]),
    "a file that is not there": (["mine.toml"], ["cannot read mine.toml"]),
    "an unknown key": (["quick", "-s", "pruning.densty=0.1"], ["pruning.densty", "pruning.density"]),
    "no setting at all": (["quick", "-s", "fast"], ["key=value"]),
    "density 0": (["quick", "--density", "0"], ["pruning.density", "0 < density <= 1"]),
    "density above 1": (["quick", "--density", "1.5"], ["pruning.density", "0 < density <= 1"]),
    "a density too small for the model": (["quick", "--density", "0.0001"], ["density 0.0001", "at least"]),
    "an unknown fleet": (["quick", "--fleet", "nativ"], ["fleet.kind", "native"]),
    "an unknown model": (["quick", "-s", "model.name=resnet-mni"], ["resnet-mni", "resnet-mini"]),
    "an unknown data set": (["quick", "-s", "data.name=fashion-mni"], ["fashion-mni", "fashion-mini"]),
    "a data set that is missing": (["quick", "-s", "data.name=cifar10", "-s", "data.data_dir=none"], ["cifar-10"]),
    "more nodes than samples": (["quick", "--nodes", "5000"], ["5000 nodes", "1950"]),
    "a split by users without users": (["quick", "-s", "data.split=user"], ["users", "dirichlet"]),
    "all samples public": (["quick", "-s", "pretrain.per_class=200"], ["200", "199"]),
    "a folder that cannot be made": (["quick", "--out", "file/run"], ["file/run", "--out"]),
    "a folder that exists": (["quick", "--out", "there"], ["there exists already", "--out"]),
    "a run to go on with that is none": (["--resume", "there"], ["there is no run folder"]),
    "a preset beside --resume": (["quick", "--resume", "there"], ["--resume"]),
}


@pytest.fixture
def _something_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "there").mkdir()


@pytest.mark.usefixtures("_something_there")
@pytest.mark.parametrize(("arguments", "parts"), CASES.values(), ids=CASES.keys())
def test_a_run_is_refused_with_one_message(
    fedtiny: Fedtiny, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = fedtiny("run", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("fedtiny: ")
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_class_that_no_node_has_is_refused(fedtiny: Fedtiny, tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 3], 40)  # 2 is missing
    np.savez(tmp_path / "gap.npz", x=np.zeros((120, 1, 28, 28), np.float32), y=labels)
    done = fedtiny("run", "quick", "-s", "data.name=gap.npz")
    assert done.code == 2
    assert "class 2" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["gap.npz"]


def test_a_damaged_npz_is_refused(fedtiny: Fedtiny, tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing more")
    done = fedtiny("run", "quick", "-s", "data.name=broken.npz")
    assert done.code == 2
    assert "broken.npz" in done.err


@pytest.mark.parametrize("command", [["report"], ["eval"], ["export", "--to", "onnx"]])
def test_commands_refuse_a_folder_that_is_no_run(fedtiny: Fedtiny, tmp_path: Path, command: list[str]) -> None:
    done = fedtiny(command[0], str(tmp_path), *command[1:])
    assert done.code == 2
    assert "no run folder" in done.err


def test_an_unknown_option_or_format_is_refused(fedtiny: Fedtiny) -> None:
    assert fedtiny("run", "--densty", "0.1").code == 2
    assert fedtiny("export", "run", "--to", "tflite").code == 2
