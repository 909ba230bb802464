"""How a density is shared out: what stays dense, what counts, and what happens when little is left."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fedtiny.pruning import allocate, density_of, layer_sizes, magnitude_masks
from fedtiny_export.errors import ConfigError

from .runs import full_model


@pytest.mark.parametrize("rule", ["fedtiny", "erk"])
@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
def test_the_target_counts_every_weight_dense_layers_included(rule, density):
    model = full_model()
    masks = magnitude_masks(model, allocate(model.graph, density, rule))
    total = sum(layer_sizes(model.graph))
    # floor leaves less than one weight per layer, and less than one per classifier row, unused
    assert density - (len(model.graph.layers) + 10) / total < density_of(model.graph, masks) <= density + 1e-9


def test_first_convolution_and_classifier_stay_dense():
    graph = full_model().graph
    densities = allocate(graph, 0.05).densities
    assert densities[0] == 1.0
    assert densities[len(graph.layers) - 1] == 1.0
    assert len({densities[layer] for layer in range(1, len(graph.layers) - 1)}) == 1


def test_depthwise_convolutions_stay_dense():
    graph = full_model("ds-cnn-mini").graph
    densities = allocate(graph, 0.3).densities
    depthwise = [layer for layer, op in enumerate(graph.layer_ops) if op.groups > 1]
    assert depthwise
    assert all(densities[layer] == 1.0 for layer in depthwise)


@pytest.mark.parametrize("density", [0.02, 0.01])
def test_a_classifier_that_would_take_too_much_is_pruned_to_equal_rows(density):
    model = full_model()
    allocation = allocate(model.graph, density)
    mask = magnitude_masks(model, allocation)[len(model.graph.layers) - 1]
    per_row = np.count_nonzero(mask, axis=1)
    assert len(set(per_row)) == 1
    assert 1 <= per_row[0] < 64
    dense = layer_sizes(model.graph)[0] + per_row.sum()
    assert dense <= density * sum(layer_sizes(model.graph)) / 2


def test_a_density_below_the_dense_layers_is_refused_with_the_smallest_possible():
    graph = full_model().graph
    with pytest.raises(ConfigError, match="at least") as refused:
        allocate(graph, 0.001)
    smallest = float(re.search(r"at least ([0-9.]+)", str(refused.value)).group(1))
    allocate(graph, smallest)
    with pytest.raises(ConfigError):
        allocate(graph, smallest * 0.97)


def test_the_published_rule_prunes_all_but_the_first_layer_alike():
    graph = full_model().graph
    densities = allocate(graph, 0.02, "uniform").densities
    assert densities[0] == 1.0
    assert set(list(densities.values())[1:]) == {0.02}


def test_erdos_renyi_gives_small_layers_more():
    graph = full_model().graph
    sizes, densities = layer_sizes(graph), allocate(graph, 0.1, "erk").densities
    sparse = sorted((layer for layer in densities if densities[layer] < 1.0), key=lambda layer: sizes[layer])
    assert densities[sparse[0]] > 2 * densities[sparse[-1]]


def test_density_one_masks_nothing():
    assert allocate(full_model().graph, 1.0).masked == ()


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01, float("nan")])
def test_a_density_out_of_range_is_refused(density):
    with pytest.raises(ConfigError, match="0 < density <= 1"):
        allocate(full_model().graph, density)
