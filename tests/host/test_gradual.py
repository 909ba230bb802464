"""The server's own sparse model: its dense one pruned gradually by LAMP."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedtiny.federation.server import first_load
from fedtiny.federation.tasks import Load
from fedtiny.pruning import Public, allocate, make_method
from fedtiny.pruning.gradual import Gradual, lamp, prune_gradually
from fedtiny_export.errors import ConfigError
from fedtiny_export.reference import GraphModule

from .runs import CLASSES, WatchedFleet, model, samples, server, settings, shards

DENSITY = 0.2
HOW = Gradual(dense_steps=60, pruning_steps=120)


@cache
def public() -> Public:
    x, y = samples(40, seed=50)
    return Public(x=x, y=y)


@cache
def sparse(taught: float = 0.0):
    how = replace(HOW, taught=taught)
    return prune_gradually(model(), public(), allocate(model().graph, DENSITY, "ranked"), how, seed=3)


def loss_of(arrays) -> float:
    module = GraphModule(model().graph, arrays).eval()
    with torch.no_grad():
        return F.cross_entropy(module(torch.from_numpy(public().x)), torch.from_numpy(public().y.astype(int))).item()


def gradual(**options):
    settings = {"density": DENSITY, "rule": "ranked", "initial": "gradual", "progressive": False}
    return make_method("fedtiny", settings, {"dense_steps": 60, "pruning_steps": 120} | options)


def test_lamp_scores_are_those_of_the_paper():
    scores = lamp({0: np.array([[3.0, -1.0], [2.0, 0.0]], np.float32), 4: np.array([0.5, -0.5], np.float32)})
    assert np.allclose(scores[0], [[1.0, 1 / 14], [4 / 13, 0.0]])
    assert np.allclose(scores[4], [1.0, 0.5])  # of two equal ones the first counts as the larger


def test_the_sparse_model_has_exactly_the_weights_that_it_is_allowed():
    masks, arrays = sparse()
    allowed = allocate(model().graph, DENSITY, "ranked")
    sizes = {layer: mask.size for layer, mask in masks.items()}
    assert masks.keys() == set(allowed.masked)
    assert sum(int(mask.sum()) for mask in masks.values()) == sum(
        int(allowed.densities[layer] * size + 1e-6) for layer, size in sizes.items()
    )
    assert all(mask.any() for mask in masks.values())
    for layer, mask in masks.items():
        assert not arrays[model().graph.layer_names[layer]][~mask].any()


def test_layers_find_shares_of_their_own_where_all_are_ranked_together():
    masks, _ = sparse()
    assert len({round(float(mask.mean()), 3) for mask in masks.values()}) > 1


def test_the_sparse_model_knows_more_than_the_same_mask_on_the_servers_dense_model():
    masks, arrays = sparse()
    cut = dict(model().arrays)
    for layer, mask in masks.items():
        cut[model().graph.layer_names[layer]] = cut[model().graph.layer_names[layer]] * mask
    assert loss_of(arrays) < 0.7 * loss_of(cut)
    assert loss_of(arrays) < np.log(CLASSES)


def test_a_teacher_changes_what_is_learned():
    assert any(not np.array_equal(sparse()[1][name], array) for name, array in sparse(0.7)[1].items())


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads():
    before = torch.get_num_threads()
    masks, arrays = sparse()
    try:
        torch.set_num_threads(3)
        again = prune_gradually(model(), public(), allocate(model().graph, DENSITY, "ranked"), HOW, seed=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(mask, again[0][layer]) for layer, mask in masks.items())
    assert all(np.array_equal(array, again[1][name]) for name, array in arrays.items())


def test_nodes_begin_with_its_weights():
    fleet = WatchedFleet(shards(2))
    run = server(fleet, how=gradual(), rounds=1, public=public())
    run.prepare()
    start, arrays = gradual().start(model(), seed=0, public=public()), run.model.arrays
    assert loss_of(arrays) < loss_of(model().arrays)
    load = fleet.tasks(Load)[0][2]
    assert load.blob == first_load(model(), start, gradual(), settings()).blob
    assert run.density == pytest.approx(DENSITY, abs=0.02)
    assert all(np.array_equal(mask, run.masks[model().graph.layer_names[layer]]) for layer, mask in start.masks.items())


def test_masks_may_go_on_changing_from_its():
    method = make_method("fedtiny", {"density": DENSITY, "rule": "ranked", "initial": "gradual", "delta_rounds": 1})
    assert method.request(model().graph, sparse()[0], round_number=1, adjustments=0).k


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"taught = 2.0.*0 to 1"):
        gradual(taught=2.0)
    squared = Public(x=public().x, y=public().y, loss="mse")
    with pytest.raises(ConfigError, match=r"the loss is mse: set taught = 0"):
        gradual(taught=0.5).start(model(), seed=0, public=squared)
    with pytest.raises(ConfigError, match=r"public samples: set pretrain.per_class"):
        gradual().start(model(), seed=0, public=None)
