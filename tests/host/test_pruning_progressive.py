"""Progressive pruning: how much, where, and which weights change places."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny.pruning import FedTiny, allocate, blocks, exchange, exchanged, magnitude_masks

from .runs import full_model


def test_the_share_follows_the_published_cosine():
    shares = [exchanged(100_000, r, 100) / 100_000 for r in range(10, 101, 10)]
    published = [0.293, 0.271, 0.238, 0.196, 0.150, 0.104, 0.062, 0.029, 0.007, 0.0]
    assert np.allclose(shares, published, atol=6e-4)


def test_the_share_does_not_depend_on_the_unit_of_local_time():
    assert [exchanged(999, r, 20, epochs=5) for r in range(1, 21)] == [exchanged(999, r, 20) for r in range(1, 21)]


def test_a_share_is_rounded_up():
    assert exchanged(1, 99, 100) == 1


def test_blocks_are_the_residual_stages_from_output_to_input():
    model = full_model()
    names = model.graph.layer_names
    walk = blocks(model.graph, magnitude_masks(model, allocate(model.graph, 0.02)))
    assert [sorted({names[layer].split(".")[0] for layer in layers}) for _, layers in walk] == [
        ["fc", "stage3"],
        ["stage2"],
        ["stage1"],
    ]


def test_blocks_leave_out_dense_layers_and_blocks_of_nothing_else():
    model = full_model()
    masks = magnitude_masks(model, allocate(model.graph, 0.05))
    only_last = {layer: mask for layer, mask in masks.items() if "stage3" in model.graph.layer_names[layer]}
    assert [name for name, _ in blocks(model.graph, only_last)] == ["4x4"]
    assert blocks(model.graph, {}) == ()
    assert blocks(model.graph, {}, "all") == ()


def test_linear_layers_join_the_last_convolutions():
    model = full_model("lenet-mini")
    walk = blocks(model.graph, magnitude_masks(model, allocate(model.graph, 0.5, "uniform")))
    assert walk == (("14x14", (1, 2)),)


def test_granularity_can_be_a_layer_or_all():
    model = full_model()
    masks = magnitude_masks(model, allocate(model.graph, 0.05))
    assert [layers for _, layers in blocks(model.graph, masks, "layer")] == [(i,) for i in sorted(masks, reverse=True)]
    assert [set(layers) for _, layers in blocks(model.graph, masks, "all")] == [set(masks)]


def test_exchange_prunes_the_smallest_and_grows_the_largest_gradients():
    mask = np.array([1, 1, 1, 0, 0, 0, 1, 0], bool)
    weights = np.array([0.5, -0.1, 0.2, 0, 0, 0, -0.9, 0], np.float32)
    gradients = np.array([9, 9, 9, 0.3, -0.7, 0.1, 9, 0], np.float32)  # those of live weights must not count
    after, moved = exchange(mask, weights, gradients, 2)
    assert moved == 2
    assert after.tolist() == [True, False, False, True, True, False, True, False]


def test_exchange_keeps_the_density_and_grows_only_what_was_pruned_before():
    generator = np.random.default_rng(0)
    for count in (0, 1, 17, 60):
        mask = generator.random((16, 16)) < 0.3
        weights = np.where(mask, generator.normal(size=mask.shape), 0).astype(np.float32)
        after, moved = exchange(mask, weights, generator.normal(size=mask.shape).astype(np.float32), count)
        assert moved == min(count, mask.sum())
        assert after.sum() == mask.sum()
        assert (after & ~mask).sum() == moved
        assert (mask & ~after).sum() == moved


def test_ties_go_to_the_lower_index():
    mask = np.array([1, 1, 1, 0, 0, 0], bool)
    after, _ = exchange(mask, np.full(6, 0.5, np.float32), np.full(6, 1.0, np.float32), 1)
    assert after.tolist() == [False, True, True, True, False, False]


def test_nothing_grows_where_no_gradient_was_reported():
    mask = np.array([1, 1, 0, 0, 0], bool)
    after, moved = exchange(mask, np.ones(5, np.float32), np.array([0, 0, 0, 2, 0], np.float32), 2)
    assert moved == 1
    assert after.sum() == 2


def test_a_row_keeps_its_floor():
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    weights = np.array([[0.1, 0.2, 0, 0], [5, 6, 0, 0]], np.float32)
    gradients = np.array([[0, 0, 0, 0], [0, 0, 3, 4]], np.float32)
    after, moved = exchange(mask, weights, gradients, 2, row_floor=1)
    assert moved == 2
    assert after.tolist() == [[False, True, False, False], [False, True, True, True]]


def test_a_request_asks_for_one_block_and_no_layer_beyond_its_pruned_weights():
    model = full_model()
    method = FedTiny(density=0.9, delta_rounds=2, stop_round=8)
    masks = method.start(model, seed=0).masks
    request = method.request(model.graph, masks, round_number=2, adjustments=1)
    assert request.block == "7x7"
    for layer, k in request.k.items():
        assert k <= (~masks[layer]).sum()


@pytest.mark.parametrize("density", [0.05, 0.9])
def test_nodes_reserve_enough_for_every_later_request(density):
    model = full_model()
    method = FedTiny(density=density, pool_size=4, delta_rounds=2, stop_round=12)
    start = method.start(model, seed=0)
    room = method.topk_max(model.graph, start.masks)
    for candidate in range(len(start.pool)):
        masks = start.pool.masks(candidate, model)
        for number in range(1, 15):
            request = method.request(model.graph, masks, round_number=number, adjustments=number // 2)
            assert all(k <= room for k in (request.k.values() if request else ()))


def test_adjusting_rounds_come_every_delta_up_to_the_stop():
    model = full_model()
    method = FedTiny(density=0.05, delta_rounds=3, stop_round=10)
    masks = method.start(model, seed=0).masks
    asked = [n for n in range(1, 20) if method.request(model.graph, masks, round_number=n, adjustments=0)]
    assert asked == [3, 6, 9]
