"""Nodes that train in one stack answer as each of them does alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedtiny.federation.tasks import Install, Load, MeasureBn, NodeFailure, PutData, Score, Subset, Train
from fedtiny.fleet.simulated import SimulatedFleet
from fedtiny.pruning import allocate, magnitude_masks
from fedtiny.pruning.pool import by_name
from fedtiny.pruning.ranking import random_masks
from fedtiny_export.blob import write_blob
from fedtiny_export.masks import encode_mask
from fedtiny_export.values import pack_values

from .runs import full_model, model, samples

TRAIN = Train(epochs=2, lr=0.05, momentum=0.9, weight_decay=1e-3, seed=0xFFFFFFFF)
SIZES = (20, 45, 8, 33)  # steps of 2, 5, 1 and 4 micro-batches an epoch


def fleet(stacked: bool, sizes=SIZES, threads=1) -> SimulatedFleet:
    made = SimulatedFleet([f"n{k}" for k in range(len(sizes))], threads=threads, stacked=stacked)
    orders = {}
    for k, size in enumerate(sizes):
        x, y = samples(size, seed=k)
        orders[f"n{k}"] = [PutData(x=x, y=y, dev_count=2)]
    list(made.ask(orders))
    return made


def load(norm: str = "batch", **changes) -> Load:
    graph = model(norm).graph
    masks = by_name(graph, magnitude_masks(model(norm), allocate(graph, 0.3, "uniform")))
    return Load(blob=write_blob(graph, model(norm).arrays, masks), micro_batch=8, topk_max=20, **changes)


def answers(stacked: bool, orders, sizes=SIZES, threads=1):
    return dict(fleet(stacked, sizes, threads).ask(orders))


def assert_alike(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for node, replies in theirs.items():
        for reply, other in zip(ours[node], replies, strict=True):
            assert type(reply) is type(other)
            for name, value in vars(other).items():
                mine = getattr(reply, name)
                if isinstance(value, np.ndarray):
                    np.testing.assert_allclose(mine, value, rtol=2e-3, atol=2e-4, err_msg=f"{node} {name}")
                elif isinstance(value, float):
                    assert mine == pytest.approx(value, rel=1e-3)
                elif name not in ("indices", "gradients"):
                    assert mine == value, (node, name)


@pytest.mark.parametrize(
    ("norm", "changes"),
    [("batch", {}), ("batch", {"loss": "mse"}), ("batch", {"last_layers": 2}), ("group", {})],
    ids=str,
)
def test_a_stack_trains_as_its_nodes_do_alone(norm: str, changes: dict) -> None:
    """Nodes of unequal size: values, moments, losses, hits and counts; the tolerance is that of 20 steps in float32."""
    orders = {f"n{k}": [load(norm, **changes), TRAIN, MeasureBn(subset=Subset.ALL)] for k in range(len(SIZES))}
    assert_alike(answers(True, orders), answers(False, orders))


@pytest.mark.parametrize("name", ["lenet-mini", "ds-cnn-mini", "resnet8"])
def test_a_stack_knows_every_operator_of_the_reference_models(name: str) -> None:
    """Biases, pools, depthwise convolutions, a shortcut without a norm; dense, so that values go whole."""
    whole = full_model(name)
    blob = write_blob(whole.graph, whole.arrays, {})
    generator = np.random.default_rng(0)
    orders = {}
    for k, size in enumerate((8, 24)):
        x = generator.normal(size=(size, 1, 28, 28)).astype(np.float32)
        y = generator.integers(0, 10, size).astype(np.uint16)
        values = pack_values(whole.graph, whole.arrays, {})
        tasks = [Load(blob=blob, micro_batch=8), Install(values=values), replace(TRAIN, epochs=1, lr=0.001)]
        orders[f"n{k}"] = [PutData(x=x, y=y, dev_count=2), *tasks]
    assert_alike(answers(True, orders, (8, 24)), answers(False, orders, (8, 24)))


def test_nodes_may_have_masks_of_their_own() -> None:
    graph, orders = model().graph, {}
    for k in range(len(SIZES)):
        masks = random_masks(graph, allocate(graph, 0.3, "uniform"), seed=k)
        values = pack_values(graph, model().arrays, by_name(graph, masks))
        install = Install(values=values, masks={layer: encode_mask(mask) for layer, mask in masks.items()})
        orders[f"n{k}"] = [load(), install, TRAIN, Score(k={6: 10}, batches=2, seed=3)]
    assert_alike(answers(True, orders, threads=2), answers(False, orders))  # two stacks of two nodes


def test_what_cannot_be_stacked_trains_alone_and_answers_too() -> None:
    sizes = (20, 5, 33)  # the second has no whole micro-batch
    tasks = [TRAIN, TRAIN, replace(TRAIN, augment="shift")]
    orders = {f"n{k}": [load(), task] for k, task in enumerate(tasks)}
    assert_alike(answers(True, orders, sizes), answers(False, orders, sizes))


def test_a_node_that_fails_before_training_fails_alone() -> None:
    orders = {f"n{k}": [load(), TRAIN] for k in range(len(SIZES))}
    orders["n1"] = [load(), Install(values=np.zeros(3, np.float32)), TRAIN]
    found = answers(True, orders)
    assert isinstance(found["n1"], NodeFailure)
    assert all(not isinstance(reply, NodeFailure) for node, reply in found.items() if node != "n1")
