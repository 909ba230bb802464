"""The candidate pool: nested, within two per cent of the target, and said by thresholds alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedtiny.pruning import allocate, density_of, draw_pool, layer_sizes
from fedtiny.pruning.pool import layer_weights
from fedtiny_export.errors import ConfigError

from .runs import full_model


@pytest.fixture(scope="module", params=[0.2, 0.05, 0.01])
def drawn(request):
    model = full_model()
    return model, request.param, draw_pool(model, allocate(model.graph, request.param), size=12, seed=3)


def test_every_candidate_lies_within_two_per_cent_of_the_target(drawn):
    model, density, pool = drawn
    rounding = 20 / sum(layer_sizes(model.graph))  # floor per layer and per classifier row
    for candidate in range(len(pool)):
        assert abs(density_of(model.graph, pool.masks(candidate, model)) - density) < 0.02 * density + rounding


def test_candidates_are_nested_in_each_layer_and_in_the_union(drawn):
    model, _, pool = drawn
    masks = [pool.masks(candidate, model) for candidate in range(len(pool))]
    for layer, union in pool.union.items():
        chain = sorted((m[layer] for m in masks), key=np.count_nonzero)
        for smaller, larger in zip(chain, [*chain[1:], union], strict=True):
            assert not (smaller & ~larger).any()
        assert np.array_equal(chain[-1], union)


def test_a_candidate_keeps_the_largest_weights_of_each_layer(drawn):
    model, _, pool = drawn
    for layer, mask in pool.masks(0, model).items():
        if layer == len(model.graph.layers) - 1:
            continue  # the classifier keeps the largest of each row
        weights = torch.from_numpy(layer_weights(model, layer)).abs().flatten()
        top = torch.topk(weights, int(mask.sum())).indices.numpy()
        assert set(top) == set(np.flatnonzero(mask))


def test_layer_densities_are_spread_by_half_around_the_allocation(drawn):
    model, density, pool = drawn
    allocation = allocate(model.graph, density)
    sizes = layer_sizes(model.graph)
    ratios = [
        np.count_nonzero(mask) / (allocation.densities[layer] * sizes[layer])
        for candidate in range(len(pool))
        for layer, mask in pool.masks(candidate, model).items()
        if layer not in allocation.rows and sizes[layer] * density > 50
    ]
    assert 0.45 < min(ratios) < 0.75
    assert 1.25 < max(ratios) < 1.55


def test_all_candidates_share_a_classifier_of_equal_rows():
    model = full_model()
    pool = draw_pool(model, allocate(model.graph, 0.01), size=5, seed=0)
    last = len(model.graph.layers) - 1
    assert (pool.thresholds[:, last] == 0).all()
    assert len({int(n) for n in np.count_nonzero(pool.union[last], axis=1)}) == 1


def test_every_layer_keeps_at_least_one_weight():
    model = full_model()
    pool = draw_pool(model, allocate(model.graph, 0.005), size=5, seed=0)
    for candidate in range(5):
        assert all(mask.any() for mask in pool.masks(candidate, model).values())


def test_the_seed_alone_decides_the_pool():
    model = full_model()
    allocation = allocate(model.graph, 0.05)
    first, again, other = (draw_pool(model, allocation, size=4, seed=seed).thresholds for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_spread_means_one_and_the_same_candidate():
    model = full_model()
    pool = draw_pool(model, allocate(model.graph, 0.05), size=3, spread=0.0, seed=0)
    assert (pool.thresholds == pool.thresholds[0]).all()


def test_a_pool_that_cannot_be_drawn_is_an_error_and_no_endless_loop(monkeypatch):
    monkeypatch.setattr("fedtiny.pruning.pool.TOLERANCE", 0.0)
    monkeypatch.setattr("fedtiny.pruning.pool._DRAWS", 50)
    model = full_model()
    with pytest.raises(ConfigError, match="larger density or a smaller spread"):
        draw_pool(model, allocate(model.graph, 0.05), size=1, seed=0)
