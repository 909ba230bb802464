"""A bench of emulated boards of two kinds, by the one command; and what is refused before anything is built for it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedtiny import images, load_config
from fedtiny.boards import load_board
from fedtiny.fleet import file_settings

from ..conftest import Outcome
from ..firmware.boards import need
from ..fleet.fleets import ROOT, Lab, environment
from .conftest import Fedtiny
from .conftest import Outcome as Done

BENCH = ROOT / "bench-qemu.toml"
KINDS = {"qemu-netduinoplus2": "abcd", "qemu-rv32": "efgh"}


def parsed(outcome: Done) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """The bench that ships, with half its boards and two rounds."""
    for kind in KINDS:
        need(load_board(kind))
    lines = [line for line in BENCH.read_text().splitlines() if line[:2] not in ("c.", "d.", "g.", "h.")]
    file = tmp_path / "bench.toml"
    file.write_text("\n".join(lines).replace("train.rounds = ", "train.rounds = 2 # "))
    return file


def test_boards_of_two_kinds_train_the_model_of_the_run_in_process(
    fedtiny: Fedtiny, short: Path, outcome: Outcome
) -> None:
    """From nothing but the file: images, keys, more samples than an STM32F405 has RAM for, all boards in all rounds."""
    more = ("-s", "pruning.delta_rounds=1", "-s", "data.per_node=150", "-s", "pruning.pool_size=2")
    done = fedtiny("run", "fashion-mini", "--fleet", str(short), *more, "--out", "over", "--json")
    over_uarts = parsed(done)
    assert "bench.toml sets train.rounds=2, " in done.err
    boards = {node["node"]: node["board"] for node in over_uarts["nodes_report"]}
    assert boards == {node: kind for kind, nodes in KINDS.items() for node in nodes[:2]}
    assert not over_uarts["failures"]
    assert not over_uarts["rejections"]
    in_process = parsed(fedtiny("run", "over/config.toml", "--fleet", "native", "--json"))
    assert over_uarts["model_sha256"] == in_process["model_sha256"]
    assert over_uarts["accuracy"] == in_process["accuracy"]
    stored = (short.with_name("bench.boards") / "a.record.samples").stat().st_size
    assert stored > 150 * 784 > 131_072 - 2 * 8192  # bytes of its RAM
    outcome("FedTiny over boards of two kinds in QEMU", end="both", tried=1, what="run of 2 rounds on 4 boards",
            result="the same model, bit for bit")  # fmt: skip


def test_the_bench_that_ships_is_eight_boards_of_two_kinds_within_its_settings() -> None:
    table = tomllib.loads(BENCH.read_text())
    links = {node: entry["link"] for node, entry in table["nodes"].items()}
    assert links == {node: f"qemu:{kind}" for kind, nodes in KINDS.items() for node in nodes}
    assert load_config("fashion-mini", file_settings(str(BENCH))).model.width == 4


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: object, **more: object) -> None:
        raise AssertionError("an image was built")

    monkeypatch.setattr(images, "build_node", build)


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("model.width=16", "data.per_node=300"),
            "node a on qemu-netduinoplus2, beside its samples and the model's own bytes, allows",
        ),
        (
            ("data.split=even", "fleet.nodes=1"),
            "a gets 1,900 samples of 1,507,848 bytes, and qemu-netduinoplus2 has storage for 262,144",
        ),
    ],
)
def test_what_does_not_fit_a_board_is_refused_before_anything_is_built(
    fedtiny: Fedtiny, short: Path, settings: tuple[str, ...], said: str
) -> None:
    nodes = ("--nodes", "1") if "fleet.nodes=1" in settings else ()
    refused = fedtiny("run", "--fleet", str(short), *nodes, *(word for s in settings for word in ("-s", s)))
    assert refused.code == 2
    assert said in refused.err
    assert "What takes what" in refused.err or "-s data.per_node=" in refused.err
    assert list(short.parent.glob("runs/*")) == []


def test_an_override_wins_over_the_fleet_files_settings_and_a_wrong_one_names_the_file(
    fedtiny: Fedtiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    lab = Lab(tmp_path / "lab", head="[settings]\ntrain.rounds = 3\nmodel.width = 4\n").write()
    assert fedtiny("fleet", "enrol", str(lab.file)).code == 0
    run = ("run", "quick", "--fleet", str(lab.file), "--out", "run")
    assert fedtiny(*run, "--rounds", "1", "-s", "train.micro_batch=6").code == 0
    config = load_config(Path("run/config.toml"))
    assert (config.train.rounds, config.train.micro_batch, config.model.width) == (1, 6, 4)
    Lab(tmp_path / "lab", head="[settings]\ntrain.round = 3\n").write()
    refused = fedtiny("run", "quick", "--fleet", str(lab.file))
    assert (
        refused.code,
        "lab.toml: [settings]: unknown key train.round. Did you mean train.rounds?" in refused.err,
    ) == (2, True)


@pytest.mark.parametrize("known", ["by the file", "by what it says"])
def test_a_board_that_does_not_train_is_refused_with_the_reason_unless_it_is_forced(
    fedtiny: Fedtiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """Before anything is sent where the file says which board it is, before it trains where the node says so."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    lab = Lab(tmp_path / "lab", options="" if known == "by the file" else "--board esp32c3").write()
    if known == "by the file":
        lab.file.write_text(lab.file.read_text().replace("[nodes.n2]\n", '[nodes.n2]\nboard = "esp32c3"\n'))
    assert fedtiny("fleet", "enrol", str(lab.file)).code == 0
    run = ("run", "board-mini", "--fleet", str(lab.file), "--rounds", "1")
    refused = fedtiny(*run)
    reason = load_board("esp32c3").no_training
    assert refused.code == 2
    assert f"esp32c3 does not train: {reason}" in refused.err
    assert "-s fleet.force_training=true" in refused.err
    assert parsed(fedtiny(*run, "-s", "fleet.force_training=true", "--json"))["rounds"] == 1
