"""Whether a model fits a node is known, and explained, before any node gets it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fedtiny.federation.tasks import Load, NodeFailure, PutData, Train
from fedtiny.fleet import open_fleet
from fedtiny.fleet.planning import planned
from fedtiny.models import build
from fedtiny_export.blob import write_blob
from fedtiny_export.errors import PlanError
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
