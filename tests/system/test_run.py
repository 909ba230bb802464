"""A whole run through the command: real data, the C core, the folder it leaves, and what happens when disturbed."""

from __future__ import annotations

import hashlib
import json
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedtiny as package
from fedtiny.federation.tasks import NodeFailure, Reply, Task, Train, Update
from fedtiny.fleet.native import NativeFleet
from fedtiny.journal import SqliteJournal
from tests.system.conftest import Fedtiny, Outcome

Answer = tuple[Reply, ...] | NodeFailure

FILES = {
    "config.toml",
    "metrics.jsonl",
    "model-int8.tflite",
    "model.ftm",
    "model.onnx",
    "model.tflite",
    "model_card.md",
    "report.html",
    "result.json",
    "run.db",
}

# key -> type; a dict stands for an object with at least these keys
SCHEMA: dict[str, Any] = {
    "schema_version": int,
    "run_id": str,
    "state": str,
    "preset": str,
    "method": str,
    "fleet": str,
    "dataset": str,
    "model": str,
    "classes": int,
    "seed": int,
    "nodes": int,
    "rounds": int,
    "rounds_planned": int,
    "density_target": float,
    "density_actual": float,
    "accuracy": float,
    "loss": float,
    "accuracy_by_round": list,
    "loss_by_round": list,
    "candidates": {"count": int, "losses": list, "chosen": int, "bytes": int, "bytes_if_sent_apart": int},
    "adjustments": list,
    "failures": list,
    "rejections": list,
    "bytes": {"down": int, "up": int, "by_kind": dict, "dense_fedavg": int},
    "flops": {"per_round_max": float, "ratio_to_dense": float},
    "costs": {
        "flops_total": float,
        "flops_preparation": float,
        "flops_dense_total": float,
        "paper_memory_bytes": int,
        "models_given": int,
        "weights": int,
        "weights_live": int,
        "down_by_kind": dict,
        "up_by_kind": dict,
    },
    "memory": {"plan_bytes": int, "peak_bytes": int, "by_kind": dict},
    "layers": list,
    "density_by_round": dict,
    "nodes_report": list,
    "boards": list,
    "model_sha256": str,
    "model_bytes": int,
    "files": list,
    "parity": {"onnxruntime_max_abs": float, "node_max_abs": float, "samples": int},
    "preparation_s": float,
    "wall_s": float,
}


def against_schema(value: Any, schema: Any, where: str) -> list[str]:
    if isinstance(schema, dict):
        missing = [f"{where}.{key} is missing" for key in schema if key not in value]
        return missing + [p for key in schema if key in value for p in against_schema(value[key], schema[key], key)]
    fits = isinstance(value, schema) and not (isinstance(value, bool) and schema is int)
    return [] if fits else [f"{where} is {type(value).__name__}, not {schema.__name__}"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `fedtiny run quick`, started as a user starts it."""
    place = tmp_path_factory.mktemp("quick")
    done = subprocess.run(
        [sys.executable, "-m", "fedtiny", "run", "quick", "--out", "one"], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no terminal, no progress
    assert "accuracy" in done.stdout
    return place / "one"


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return found


def test_a_run_leaves_exactly_the_files_it_names(quick: Path) -> None:
    assert {path.name for path in quick.iterdir()} == FILES
    assert set(result_of(quick)["files"]) == FILES


def test_the_tflite_files_are_the_model(quick: Path) -> None:
    from fedtiny_export.infer.load import load_model
    from fedtiny_export.infer.simulate import run

    trained, whole, small = (load_model(quick / f"model{end}").network for end in (".ftm", ".tflite", "-int8.tflite"))
    x = [np.random.default_rng(0).normal(size=(4, *trained.tensors[trained.inputs[0]].shape)).astype(np.float32)]
    wanted, found = (run(network, x)[network.outputs[0]] for network in (trained, whole))
    np.testing.assert_array_equal(found, wanted)
    assert small.int8


def test_result_json_has_every_promised_key(quick: Path) -> None:
    result = result_of(quick)
    assert against_schema(result, SCHEMA, "result") == []
    assert (result["schema_version"], result["state"], result["run_id"]) == (1, "finished", "one")
    assert result["rounds"] == len(result["accuracy_by_round"]) == 4
    assert result["accuracy"] == result["accuracy_by_round"][-1]
    assert sum(result["bytes"]["by_kind"].values()) == result["bytes"]["down"] + result["bytes"]["up"]
    assert result["candidates"]["chosen"] == int(np.argmin(result["candidates"]["losses"]))


def test_every_key_of_result_json_is_documented(quick: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "result.md").read_text("utf-8")
    assert [key for key in result_of(quick) if f"`{key}`" not in text] == []
    line = json.loads((quick / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    assert [key for key in line if f"`{key}`" not in text] == []


def test_the_model_learns_and_stays_sparse(quick: Path) -> None:
    result = result_of(quick)
    assert result["accuracy"] > 0.6  # ten balanced classes: guessing gives 0.1
    assert result["density_actual"] == pytest.approx(0.2, rel=0.05)
    live = sum(layer["live"] for layer in result["layers"])
    assert live / sum(layer["size"] for layer in result["layers"]) == pytest.approx(result["density_actual"])


def test_the_final_model_gives_the_same_logits_in_torch_in_onnx_runtime_and_on_a_node(quick: Path) -> None:
    parity = result_of(quick)["parity"]
    assert parity["samples"] == 500
    assert parity["onnxruntime_max_abs"] < 1e-4
    assert parity["node_max_abs"] < 1e-4


def test_the_hash_is_that_of_the_blob(quick: Path) -> None:
    assert result_of(quick)["model_sha256"] == hashlib.sha256((quick / "model.ftm").read_bytes()).hexdigest()


def test_metrics_have_one_line_per_round(quick: Path) -> None:
    rows = [json.loads(line) for line in (quick / "metrics.jsonl").read_text("utf-8").splitlines()]
    result = result_of(quick)
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert [row["accuracy"] for row in rows] == result["accuracy_by_round"]
    assert [row["adjusted"] for row in rows if row["adjusted"]] == result["adjustments"]


def test_the_report_needs_no_network(quick: Path) -> None:
    text = (quick / "report.html").read_text("utf-8")
    assert "<svg" in text
    for pattern in ("<script src", "<link", "<img", "@import", "url(http"):
        assert pattern not in text


def test_the_same_seed_gives_the_same_bits_and_another_does_not(quick: Path, fedtiny: Fedtiny) -> None:
    again = json.loads(fedtiny("run", "quick", "--json").out)
    assert again["model_sha256"] == result_of(quick)["model_sha256"]
    assert json.loads(fedtiny("run", "quick", "--seed", "1", "--json").out)["model_sha256"] != again["model_sha256"]


def test_the_resolved_settings_do_the_same_run_again(quick: Path, fedtiny: Fedtiny) -> None:
    again = json.loads(fedtiny("run", str(quick / "config.toml"), "--json").out)
    assert again["model_sha256"] == result_of(quick)["model_sha256"]


def test_a_simulated_fleet_comes_to_the_same_candidates_and_bytes(quick: Path, fedtiny: Fedtiny) -> None:
    native, simulated = result_of(quick), json.loads(fedtiny("run", "quick", "--fleet", "simulated", "--json").out)
    assert simulated["fleet"] == "simulated"
    assert simulated["candidates"]["losses"] == pytest.approx(native["candidates"]["losses"], abs=1e-4)
    assert simulated["bytes"]["down"] == pytest.approx(native["bytes"]["down"], rel=0.01)
    assert simulated["memory"]["plan_bytes"] == native["memory"]["plan_bytes"]


def test_a_second_run_takes_the_next_folder(fedtiny: Fedtiny, tmp_path: Path) -> None:
    for _ in range(2):
        assert fedtiny("run", "quick", "--rounds", "1").code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["quick-s0-1", "quick-s0-2"]


def test_report_eval_and_export_work_on_the_folder(quick: Path, fedtiny: Fedtiny, tmp_path: Path) -> None:
    result = result_of(quick)
    before = (quick / "report.html").read_bytes()
    (quick / "report.html").unlink()
    shown = fedtiny("report", str(quick))
    assert shown.code == 0
    assert f"{result['accuracy']:.1%}" in shown.out
    assert (quick / "report.html").read_bytes() == before

    found = json.loads(fedtiny("eval", str(quick), "--json").out)
    assert found["node"]["accuracy"] == found["onnxruntime"]["accuracy"] == result["accuracy"]
    assert found["agreement"] == 1.0

    assert fedtiny("export", str(quick), "--to", "ftm", "--out", "my.ftm").code == 0
    assert (tmp_path / "my.ftm").read_bytes() == (quick / "model.ftm").read_bytes()
    refused = fedtiny("export", str(quick), "--to", "ftm", "--out", "my.ftm")
    assert (refused.code, "--force" in refused.err) == (2, True)
    listed = json.loads(fedtiny("export", str(quick), "--to", "c", "--out", "c", "--json").out)["files"]
    assert {Path(path).suffix for path in listed} == {".c", ".h"}
    assert fedtiny("export", str(quick), "--to", "onnx").code == 0
    assert (tmp_path / "one.onnx").read_bytes() == (quick / "model.onnx").read_bytes()


def test_dense_averaging_is_the_same_command(fedtiny: Fedtiny) -> None:
    result = json.loads(fedtiny("run", "quick", "-s", "pruning.method=fedavg", "--rounds", "1", "--json").out)
    assert result["density_actual"] == result["density_target"] == 1.0
    assert (result["candidates"]["count"], result["candidates"]["chosen"]) == (0, None)
    assert result["bytes"]["down"] + result["bytes"]["up"] == result["bytes"]["dense_fedavg"]


def test_the_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fifteen_lines.py", "quick", "by-hand"])
    runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "fifteen_lines.py"), run_name="__main__")
    assert "round 1: accuracy" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "by-hand").iterdir()} == FILES


def test_a_users_own_module_and_arrays_take_the_place_of_the_named_ones(tmp_path: Path) -> None:
    from torch import nn

    generator = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 60)
    x = (generator.normal(size=(180, 2, 1, 16)) + y[:, None, None, None]).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    module = nn.Sequential(
        nn.Conv2d(2, 8, (1, 3), padding=(0, 1)), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    )
    config = package.load_config("quick", {"data.name": str(tmp_path / "own.npz"), "pruning.density": 0.5})
    with package.Experiment(config, module=module) as experiment:
        records = list(experiment)
        result = experiment.save(tmp_path / "run")
    assert records[-1].accuracy > 0.8
    assert result["model"] == "Sequential"


def test_a_fleet_that_is_open_does_the_run_and_stays_open() -> None:
    """With the bits of a run that opens its own; as many nodes as the settings ask for."""
    config = package.load_config("quick", ["train.rounds=1", "fleet.nodes=3"])
    fleet = NativeFleet(["a", "b", "c"])
    hashes = []
    for given in (fleet, fleet, None):
        with package.Experiment(config, fleet=given) as experiment:
            assert [record.participants for record in experiment] == [experiment.fleet.nodes]
            hashes.append(experiment.result()["model_sha256"])
    assert len(set(hashes)) == 1
    fleet.close()
    with pytest.raises(package.FedtinyError, match=r"has 3 nodes, and the settings ask for 4\. Set fleet\.nodes=3"):
        package.Experiment(package.load_config("quick"), fleet=fleet)


def test_a_module_that_a_node_cannot_run_is_refused_by_name(tmp_path: Path) -> None:
    from torch import nn

    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Hardswish(), nn.Flatten(), nn.Softplus(), nn.Linear(4 * 26 * 26, 10))
    with (
        package.Experiment(package.load_config("quick"), module=module) as experiment,
        pytest.raises(package.FedtinyError) as caught,
    ):
        experiment.prepare()
    assert "HardSwish" in str(caught.value)
    assert "Softplus" in str(caught.value)


def test_a_run_that_goes_on_ends_with_the_bits_of_one_that_never_stopped(quick: Path) -> None:
    config = package.load_config("quick")
    with SqliteJournal() as journal:
        with package.Experiment(config, journal=journal) as first:
            rounds = iter(first)
            next(rounds)
            next(rounds)
        with package.Experiment(config, journal=journal) as second:
            assert [record.round for record in second] == [3, 4]
            result = second.result()
    whole = result_of(quick)
    assert result["model_sha256"] == whole["model_sha256"]
    assert result["accuracy_by_round"] == whole["accuracy_by_round"]


INTERRUPTIBLE = (  # a shell's background job may have been started with SIGINT ignored
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from fedtiny.cli import main; main()"
)


def interrupted(place: Path, *, after: str, arguments: Sequence[str]) -> Outcome:
    """`fedtiny run` in a process of its own that gets Ctrl-C as soon as a file named `after` is in its folder."""
    run = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "run", *arguments],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (place / "run" / after).exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    return Outcome(run.returncode, out, err)


def test_ctrl_c_keeps_what_is_there_and_says_how_to_see_it_and_go_on(fedtiny: Fedtiny, tmp_path: Path) -> None:
    done = interrupted(tmp_path, after="metrics.jsonl", arguments=["quick", "--rounds", "5000", "--out", "run"])
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert "fedtiny report run" in done.err
    result = result_of(tmp_path / "run")
    assert result["state"] == "stopped"
    assert 1 <= result["rounds"] < 5000
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert fedtiny("report", "run").code == 0

    target = result["rounds"] + 1
    on = json.loads(fedtiny("run", "--resume", "run", "--rounds", str(target), "--json").out)
    assert (on["state"], on["rounds"]) == ("finished", target)
    assert on["accuracy_by_round"][:-1] == result["accuracy_by_round"]

    refused = fedtiny("run", "--resume", "run")
    assert (refused.code, "has all its" in refused.err) == (2, True)
    refused = fedtiny("run", "--resume", "run", "--density", "0.3", "--rounds", "9999")
    assert (refused.code, "pruning.density" in refused.err) == (2, True)


def test_ctrl_c_before_the_first_round_leaves_nothing(tmp_path: Path) -> None:
    slow = ["-s", "pretrain.epochs=10000"]
    done = interrupted(tmp_path, after="run.db", arguments=["quick", "--out", "run", *slow])
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


class Disturbed(NativeFleet):
    """Real nodes, of which some fail or lie in some rounds: `fails` and `lies` by number of the training round."""

    fails: Mapping[int, tuple[str, ...]] = {}
    lies: Mapping[int, tuple[str, ...]] = {}
    training = 0

    def ask(self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0) -> Iterator[tuple[str, Answer]]:
        if any(isinstance(task, Train) for tasks in orders.values() for task in tasks):
            type(self).training += 1
        for node, answer in super().ask(orders):
            if node in self.fails.get(self.training, ()):
                yield node, NodeFailure(reason="its battery is empty: charge it")
            elif node in self.lies.get(self.training, ()) and not isinstance(answer, NodeFailure):
                yield node, tuple(_spoilt(reply) for reply in answer)
            else:
                yield node, answer


def _spoilt(reply: Reply) -> Reply:
    return replace(reply, values=reply.values * np.float32("nan")) if isinstance(reply, Update) else reply


def test_a_node_that_fails_or_lies_is_left_out_of_that_round_named_and_asked_again(
    fedtiny: Fedtiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disturbed, "fails", {2: ("node-02",)})
    monkeypatch.setattr(Disturbed, "lies", {3: ("node-03",)})
    monkeypatch.setattr(Disturbed, "training", 0)
    monkeypatch.setattr("fedtiny.fleet.native.NativeFleet", Disturbed)
    result = json.loads(fedtiny("run", "quick", "--out", "run", "--json").out)
    assert result["state"] == "finished"
    failures = {(problem["round"], problem["node"]) for problem in result["failures"]}
    assert failures == {(2, "node-02")}
    assert "battery" in result["failures"][0]["reason"]
    (rejection,) = result["rejections"]
    assert (rejection["round"], rejection["node"]) == (3, "node-03")
    assert "NaN" in rejection["reason"]
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text("utf-8").splitlines()]
    everyone = ["node-01", "node-02", "node-03", "node-04"]
    assert [row["participants"] for row in rows] == [
        everyone,
        ["node-01", "node-03", "node-04"],
        ["node-01", "node-02", "node-04"],
        everyone,
    ]
    text = Path("run/report.html").read_text("utf-8")
    assert "battery" in text


def test_fewer_nodes_than_the_quorum_stop_the_run_with_its_state_kept(
    quick: Path, fedtiny: Fedtiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as disturbed:
        disturbed.setattr(Disturbed, "fails", {3: ("node-01", "node-02", "node-03")})
        disturbed.setattr(Disturbed, "training", 0)
        disturbed.setattr("fedtiny.fleet.native.NativeFleet", Disturbed)
        done = fedtiny("run", "quick", "--out", "run")
    assert done.code == 2
    assert "quorum" in done.err
    assert "fedtiny run --resume run" in done.err
    assert (result_of(Path("run"))["state"], result_of(Path("run"))["rounds"]) == ("stopped", 2)
    on = json.loads(fedtiny("run", "--resume", "run", "--json").out)
    assert on["model_sha256"] == result_of(quick)["model_sha256"]
