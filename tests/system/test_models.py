"""The commands on a trained or given model: export, verify, plan."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from fedtiny.boards import load_board
from fedtiny.cli import app
from fedtiny.emulation import missing_packages
from fedtiny_export.infer import simulate
from fedtiny_export.infer.onnx_in import from_onnx
from fedtiny_export.infer.tflite_in import from_tflite
from tests.infer.mlperf import FOLDER, model_bytes
from tests.system.conftest import Fedtiny

BOARD = "qemu-mps2-an386"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("run") / "one"
    done = CliRunner().invoke(app, ["run", "quick", "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture
def emulated() -> None:
    if missing_packages(load_board(BOARD)):
        pytest.skip("the compiler or the emulator of a Cortex-M is not installed: make tools")


def test_a_trained_model_goes_all_the_way_and_loses_less_than_a_point(
    run: Path, fedtiny: Fedtiny, emulated: None
) -> None:
    pytest.importorskip("ai_edge_litert")
    done = fedtiny("verify", str(run), "--json")
    assert done.code == 0, done.out + done.err
    found = json.loads(done.out)
    rows = {(row["precision"], row["runtime"]): row for row in found["comparisons"]}
    assert {runtime for _, runtime in rows} == {
        "numpy", "ONNX Runtime", "LiteRT", "C here", f"C on {BOARD}", "quantised",
    }  # fmt: skip
    assert not [row["missing"] for row in rows.values() if "missing" in row]
    assert all(row["max_error"] < 1e-4 for (precision, _), row in rows.items() if precision == "float32")
    assert rows["float32", "C here"]["against"] == "PyTorch"
    assert rows["int8", "LiteRT"]["bits"]
    assert rows["int8", "C here"]["bits"]
    assert rows["int8", f"C on {BOARD}"]["bits"]
    assert found["points_lost_to_int8"] < 1.0
    shown = fedtiny("verify", str(run), "--board", "none", "--count", "20")
    assert "every runtime computes the model" in shown.out


def test_what_is_exported_computes_what_the_run_computes(run: Path, fedtiny: Fedtiny, tmp_path: Path) -> None:
    for form, name in (("tflite", "one.tflite"), ("onnx", "one.onnx"), ("ftm", "one.ftm")):
        assert fedtiny("export", str(run), "--to", form).code == 0
        assert (tmp_path / name).is_file()
    network = from_tflite((tmp_path / "one.tflite").read_bytes())
    again = from_onnx((tmp_path / "one.onnx").read_bytes())
    x = np.random.default_rng(0).normal(size=(4, *network.tensors[network.inputs[0]].shape)).astype(np.float32)
    a, b = (simulate.run(n, [x.reshape(4, *n.tensors[n.inputs[0]].shape)])[n.outputs[0]] for n in (network, again))
    np.testing.assert_allclose(a.reshape(4, -1), b.reshape(4, -1), atol=1e-4)

    assert fedtiny("export", str(run), "--to", "tflite", "--int8").code == 0
    assert fedtiny("export", str(run), "--to", "onnx", "--int8").code == 0
    small = from_tflite((tmp_path / "one-int8.tflite").read_bytes())
    assert small.int8
    kinds = {node.op_type for node in onnx.load(tmp_path / "one-int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert (tmp_path / "one-int8.tflite").stat().st_size < (tmp_path / "one.tflite").stat().st_size / 2

    listed = json.loads(fedtiny("export", str(run), "--to", "c", "--int8", "--out", "c", "--json").out)["files"]
    sources = [path for path in listed if path.endswith(".c")]
    if shutil.which("gcc"):
        command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-c", *(Path(p).name for p in sources)]
        subprocess.run(command, cwd=tmp_path / "c", check=True)
    refused = fedtiny("export", str(run), "--to", "tflite")
    assert (refused.code, "--force" in refused.err) == (2, True)


def test_a_file_is_quantised_with_samples_of_ones_own(run: Path, fedtiny: Fedtiny, tmp_path: Path) -> None:
    assert fedtiny("export", str(run), "--to", "tflite").code == 0
    without = fedtiny("export", "one.tflite", "--to", "tflite", "--int8", "--out", "small.tflite")
    assert (without.code, "--samples FILE" in without.err) == (2, True)
    network = from_tflite((tmp_path / "one.tflite").read_bytes())
    shape = network.tensors[network.inputs[0]].shape
    np.savez(tmp_path / "some.npz", x=np.random.default_rng(0).normal(size=(20, *shape[1:])).astype(np.float32))
    again = ("export", "one.tflite", "--to", "tflite", "--int8", "--out", "small.tflite", "--samples", "some.npz")
    assert fedtiny(*again).code == 0
    assert from_tflite((tmp_path / "small.tflite").read_bytes()).int8
    done = fedtiny("verify", "small.tflite", "--samples", "some.npz", "--board", "none", "--json")
    assert json.loads(done.out)["good"]


def test_a_damaged_file_is_refused_with_one_line(fedtiny: Fedtiny, tmp_path: Path) -> None:
    for name in ("bad.tflite", "bad.onnx", "bad.ftm"):
        (tmp_path / name).write_bytes(b"\x1c\x00\x00\x00TFL3 and nothing more")
        done = fedtiny("verify", name)
        assert done.code == 2
        assert done.err.count("\n") == 1, done.err
    assert "a file that ends in .tflite, .onnx, .ftm" in fedtiny("verify", "model.pt").err


def test_a_plan_says_what_a_board_holds(run: Path, fedtiny: Fedtiny) -> None:
    done = fedtiny("plan", str(run), "--board", "qemu-mps2-an386", "--json")
    assert done.code == 0, done.err
    works = {row["work"]: row for row in json.loads(done.out)["works"]}
    assert set(works) == {"infer", "infer-int8", "train"}
    assert all(row["fits"] for row in works.values())
    assert works["infer-int8"]["model_flash_bytes"] < works["infer"]["model_flash_bytes"] / 2
    assert works["train"]["instructions"] > works["infer-int8"]["instructions"]
    assert works["infer-int8"]["ram"]["ssram"] < works["infer"]["ram"]["ssram"]


def test_what_does_not_fit_is_refused_with_what_would(run: Path, fedtiny: Fedtiny) -> None:
    small = fedtiny("plan", str(run), "--board", "nucleo_f446re", "--for", "train")
    assert small.code == 2
    assert "train.lean=true" in small.err
    assert "refused" in small.out
    if FOLDER.is_dir():
        model = FOLDER / "models" / "pretrainedResnet.tflite"
        assert model_bytes("pretrainedResnet")
        large = fedtiny("plan", str(model), "--board", "nucleo_f446re")
        assert large.code == 2
        assert re.search(r"infer takes [\d,]+ bytes of RAM in one piece", large.err)
        assert "--for infer-int8" in large.err


def test_estimates_are_near_what_the_emulator_counts(run: Path, fedtiny: Fedtiny, emulated: None) -> None:
    from fedtiny.infer_boards import run_on_board
    from fedtiny.modelsource import open_source
    from fedtiny_export.infer.pack import pack

    network = open_source(run).network(int8=True)
    x = [np.zeros((1, *network.tensors[i].shape), np.int8) for i in network.inputs]
    counted = run_on_board(pack(network), x, load_board(BOARD), count=True).instructions
    planned = json.loads(fedtiny("plan", str(run), "--board", BOARD, "--for", "infer-int8", "--json").out)["works"][0]
    assert counted is not None
    assert 0.6 < planned["instructions"] / counted < 1.6
