"""What a run is said to cost: the published ratios of ResNet18, and counts that are the same for every method."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fedtiny.federation.cost import paper_memory_bytes, round_flops, score_flops
from fedtiny.models import build
from fedtiny.pruning import FedAvg, allocate, blocks
from fedtiny_export import limits
from fedtiny_export.flops import training_flops
from fedtiny_export.graph import Graph
from fedtiny_export.torch_in import from_torch

from .runs import WatchedFleet, method, model, server, shards

SAMPLES, EPOCHS, BATCH = 5000, 5, 64  # |D_k| and E of the paper on CIFAR-10 over ten devices, and its batch


@cache
def resnet18() -> Graph:
    reach, limits.CONV_REACH_MAX = limits.CONV_REACH_MAX, 1 << 20  # no node holds it; it is only counted
    try:
        return from_torch(build("resnet18", input_shape=(3, 32, 32), classes=10), (3, 32, 32)).graph
    finally:
        limits.CONV_REACH_MAX = reach


def published(density: float = 0.01) -> dict[str, float]:
    """Layer densities by the published rule."""
    graph = resnet18()
    return {graph.layer_names[layer]: d for layer, d in allocate(graph, density, "uniform").densities.items()}


def ratio(flops: float) -> float:
    return flops / training_flops(resnet18(), None, samples=SAMPLES, epochs=EPOCHS)


def test_a_dense_round_takes_the_published_flops():
    assert training_flops(resnet18(), None, samples=SAMPLES, epochs=EPOCHS) == pytest.approx(8.33e13, rel=1e-3)


def test_prunefl_takes_the_published_share_of_them():
    dense_gradients = round_flops(
        resnet18(), published(), samples=SAMPLES, epochs=EPOCHS, dense_gradients=resnet18().layer_names
    )
    assert ratio(dense_gradients) == pytest.approx(0.342, abs=5e-4)


def test_fedtiny_takes_the_published_share_of_them():
    graph, plain = resnet18(), training_flops(resnet18(), published(), samples=SAMPLES, epochs=EPOCHS)
    assert ratio(plain) == pytest.approx(0.0132, abs=5e-5)
    masks = {layer: np.ones(1, bool) for layer, d in enumerate(published().values()) if d < 1}
    for _, layers in blocks(graph, masks):
        names = [graph.layer_names[layer] for layer in layers]
        whole = ratio(plain + score_flops(graph, published(), names, samples=BATCH))
        assert whole == pytest.approx(0.014, abs=7e-4)  # published with three digits after the point


def test_memory_is_the_published_one():
    graph = resnet18()
    assert paper_memory_bytes(graph, {}) / 1e6 == pytest.approx(89.4, abs=0.05)
    every = graph.layer_names
    assert paper_memory_bytes(graph, published(), dense_gradients=every) / 1e6 == pytest.approx(45.6, abs=0.05)
    assert paper_memory_bytes(graph, published()) / 1e6 == pytest.approx(1.9, abs=0.05)


def test_the_total_is_the_sum_of_the_rounds_and_dense_averaging_takes_most():
    dense = server(WatchedFleet(shards()), how=FedAvg())
    sparse = server(WatchedFleet(shards()))
    for run in (dense, sparse):
        records = list(run.rounds())
        assert run.costs.flops_total == sum(record.flops for record in records)
    assert dense.costs.flops_preparation == 0
    assert sparse.costs.flops_preparation == sparse.selection.flops > 0
    assert sparse.costs.flops_total < dense.costs.flops_total / 2
    assert sparse.costs.paper_memory < dense.costs.paper_memory == paper_memory_bytes(model().graph, {})


def test_models_given_count_what_a_node_would_write_to_flash():
    run = server(WatchedFleet(shards()), how=FedAvg(), rounds=3, bn_refresh="train")
    list(run.rounds())
    assert run.costs.models_given == 4  # one to load, two after the first round's, one to measure at the end


def test_top_k_memory_is_counted_by_its_entries():
    run = server(WatchedFleet(shards()), how=method(selection=False, granularity="all"), rounds=1)
    run.prepare()
    bare = paper_memory_bytes(run.model.graph, run.densities)
    record = next(run.rounds())
    assert record.adjustment
    largest = max(int(0.15 * 2 * mask.sum()) for mask in run.masks.values())
    assert bare < run.costs.paper_memory <= bare + 8 * (largest + 1)
