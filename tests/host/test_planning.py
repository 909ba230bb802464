"""Whether a model fits a node is known, and explained, before any node gets it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fedtiny.boards import load_board, node_banks
from fedtiny.config import load_config
from fedtiny.experiment import Experiment
from fedtiny.federation.tasks import Load, NodeFailure, PutData, Train
from fedtiny.fleet import open_fleet
from fedtiny.fleet.planning import ENDLESS, node_config, planned
from fedtiny.models import build
from fedtiny_export.blob import write_blob
from fedtiny_export.core import plan_banks
from fedtiny_export.errors import ConfigError, PlanError
from fedtiny_export.torch_in import from_torch

SHAPE = (1, 12, 12)


@cache
def load() -> Load:
    model = from_torch(build("resnet-mini", input_shape=SHAPE, classes=10), SHAPE)
    return Load(blob=write_blob(model.graph, model.arrays, {}), micro_batch=8)


@pytest.mark.parametrize("kind", ["native", "simulated"])
def test_a_model_that_does_not_fit_is_refused_with_what_takes_what_and_what_would_fit(kind: str) -> None:
    peak, kinds = planned(load())
    smaller, _ = planned(replace(load(), keep="int8"))
    fleet = open_fleet(kind, ("a", "b"), ram_bytes=smaller)
    with pytest.raises(PlanError) as caught:
        list(fleet.ask({"a": [load()], "b": [load()]}))
    fleet.close()
    message = str(caught.value)
    assert f"{peak:,}" in message
    assert all(kind in message and f"{size:,}" in message for kind, size in kinds.items() if size)
    assert message.endswith(".")
    assert "Try -s train.keep=int8" in message


def test_the_setting_that_the_refusal_names_makes_it_fit() -> None:
    fitting = replace(load(), keep="int8")
    fleet = open_fleet("native", ("a",), ram_bytes=planned(fitting)[0])
    (_, answers), *_ = fleet.ask({"a": [fitting]})
    fleet.close()
    assert not isinstance(answers, NodeFailure)


def banks_for(task: Load) -> dict[str, int]:
    """Two pieces of RAM that hold the task's model: neither is enough alone."""
    parts = plan_banks(task.blob, node_config(task), [ENDLESS])[1].parts
    return {"fast": parts["work"] + 16, "large": sum(size for part, size in parts.items() if part != "work") + 16}


@pytest.mark.parametrize("kind", ["native", "simulated"])
def test_a_model_that_does_not_fit_a_boards_banks_is_refused_with_what_lies_where(kind: str) -> None:
    banks = banks_for(replace(load(), keep="int8"))
    fleet = open_fleet(kind, ("a",), banks=banks)
    with pytest.raises(PlanError) as caught:
        list(fleet.ask({"a": [load()]}))
    fleet.close()
    parts = plan_banks(load().blob, node_config(load()), [ENDLESS])[1].parts
    message = str(caught.value)
    assert f"fleet.board allows {banks['fast']:,} + {banks['large']:,}" in message
    assert f"none has {parts['momentum']:,} contiguous bytes for its momentum" in message
    assert re.search(rf"^  fast +{banks['fast']:,}  node {parts['node']:,}, indices", message, re.MULTILINE)
    large = f"weights {parts['weights']:,}, work {parts['work']:,}"
    assert re.search(rf"^  large +{banks['large']:,}  {large}$", message, re.MULTILINE)
    assert re.search(rf"^  no place +momentum {parts['momentum']:,}$", message, re.MULTILINE)
    assert "Try -s train.keep=int8" in message


def test_a_model_that_fits_a_boards_banks_is_let_through() -> None:
    banks = banks_for(load())
    assert max(banks.values()) < planned(load())[0]
    fleet = open_fleet("native", ("a",), banks=banks)
    (_, answers), *_ = fleet.ask({"a": [load()]})
    fleet.close()
    assert not isinstance(answers, NodeFailure)


def test_a_run_is_planned_for_the_board_that_it_names() -> None:
    config = load_config("quick", ["fleet.board=qemu-netduinoplus2", "model.width=64", "pretrain.epochs=0"])
    with Experiment(config) as experiment, pytest.raises(PlanError, match=r"ccm +65,536"):
        experiment.prepare()
    assert node_banks(load_board("qemu-netduinoplus2")) == {"sram": 128 * 1024 - 2 * 8192, "ccm": 64 * 1024}
    for board, words in (("native", "says nothing of its memory"), ("qemu-netduino", "Did you mean")):
        with pytest.raises(ConfigError, match=words):
            Experiment(load_config("quick", [f"fleet.board={board}"]))


def test_where_nothing_fits_it_says_so() -> None:
    fleet = open_fleet("native", ("a",), ram_bytes=1000)
    with pytest.raises(PlanError, match="None fits: take a smaller model"):
        list(fleet.ask({"a": [load()]}))
    fleet.close()


def test_a_lean_node_trains_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    data = PutData(
        x=rng.normal(size=(20, *SHAPE)).astype(np.float32), y=rng.integers(0, 10, 20).astype(np.uint16), dev_count=3
    )
    train = Train(epochs=1, lr=0.05, momentum=0.9, weight_decay=1e-3, seed=1)
    fleet = open_fleet("native", ("plain", "lean"))
    asked = {"plain": [data, load(), train], "lean": [data, replace(load(), lean=True), train]}
    answers = dict(fleet.ask(asked))
    fleet.close()
    updates = [answer[-1] for answer in (answers["plain"], answers["lean"]) if not isinstance(answer, NodeFailure)]
    np.testing.assert_array_equal(updates[0].values, updates[1].values)  # type: ignore[union-attr]


def test_simulated_nodes_say_that_they_round_nothing() -> None:
    fleet = open_fleet("simulated", ("a",))
    (_, answer), *_ = fleet.ask({"a": [replace(load(), keep="int8")]})
    fleet.close()
    assert isinstance(answer, NodeFailure)
    assert "train.keep=f32" in answer.reason
