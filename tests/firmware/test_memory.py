"""The plan is what the node takes: no more, no less, whatever it does."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, _library, plan
from fedtiny_export.errors import CoreError, PlanError

from .nets import ALL_MODES, NETS, make, node_of, random_masks, random_samples

NOMEM = 4  # FT_ERR_NOMEM


@pytest.mark.parametrize("name", NETS)
def test_kinds_add_up_to_the_peak(name: str) -> None:
    _, model = make(name)
    blob = write_blob(model.graph, model.arrays, random_masks(model, 0.3))
    for mode in ALL_MODES:
        memory = plan(blob, NodeConfig(micro_batch=4, modes=(mode,), topk_max=20, score_tile_bytes=500))
        # of a tiny net in inference the planner's own tables may be the peak
        assert sum(memory.by_kind().values()) <= memory.peak
        assert mode == "infer" or sum(memory.by_kind().values()) == memory.peak


def test_work_never_leaves_the_planned_bytes() -> None:
    """The arena lies between two guards; every task runs; the guards stay as they were."""
    _, model = make("residual")
    masks = random_masks(model, 0.3)
    blob = write_blob(model.graph, model.arrays, masks)
    config = NodeConfig(micro_batch=4, modes=ALL_MODES, topk_max=20, score_tile_bytes=200)
    node = CoreNode(blob, config)
    peak = node.memory.peak
    guarded = np.full(peak + 4096, 0xA5, np.uint8)
    start = 2048 - guarded.ctypes.data % 8
    import ctypes

    handle = ctypes.c_void_p()
    address = guarded.ctypes.data + start
    assert _library().ft_load(address, peak, blob, len(blob), config._struct(), handle, None) == 0
    node._node = handle
    x, y = random_samples(9, model.graph.classes)
    node.set_samples(x, y, 5)
    node.measure_bn(0)
    node.evaluate(1)
    node.train(epochs=2, lr=0.05, momentum=0.9, weight_decay=0.0, seed=0)
    node.score(1, 20, batches=2, seed=0)
    node.infer(x)
    assert (guarded[:start] == 0xA5).all()
    assert (guarded[start + peak :] == 0xA5).all()


def test_an_arena_one_byte_too_small_is_refused_with_the_bytes_needed() -> None:
    _, model = make("residual")
    blob = write_blob(model.graph, model.arrays, {})
    config = NodeConfig(micro_batch=4, modes=ALL_MODES)
    peak = plan(blob, config).peak
    import ctypes

    arena = np.zeros(peak // 8 + 2, np.uint64)

    def load(size: int) -> tuple[int, int]:
        handle, needed = ctypes.c_void_p(), ctypes.c_uint32()
        status = _library().ft_load(arena.ctypes.data, size, blob, len(blob), config._struct(), handle, needed)
        return status, needed.value

    assert load(peak - 1) == (NOMEM, peak)
    assert load(peak) == (0, peak)
    # too small to plan in: each answer asks for more than there was, and following them ends at the peak
    size = asked = 0
    while asked < peak:
        status, asked = load(size)
        assert status == NOMEM
        assert asked > size
        size = asked
    assert load(size) == (0, peak)


def test_two_nodes_in_one_process_do_not_meet() -> None:
    _, model = make("residual")
    x, y = random_samples(8, model.graph.classes)
    alone, first, second = (node_of(model, {}) for _ in range(3))
    for node in (alone, first, second):
        node.set_samples(x, y, 0)
    settings = {"epochs": 1, "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0}
    for seed in (0, 1):
        alone.train(seed=seed, **settings)
    first.train(seed=0, **settings)
    second.train(seed=7, **settings)
    first.train(seed=1, **settings)
    np.testing.assert_array_equal(first.values(), alone.values())
    assert (second.values() != first.values()).any()


def test_a_damaged_blob_is_refused_wherever_the_damage_is() -> None:
    _, model = make("conv 3x3")
    blob = write_blob(model.graph, model.arrays, random_masks(model, 0.3))
    config = NodeConfig(micro_batch=2, modes=("infer",))
    for at in range(0, len(blob), 7):
        broken = bytearray(blob)
        broken[at] ^= 0x40
        with pytest.raises((PlanError, CoreError)):
            CoreNode(bytes(broken), config)
    for length in range(0, len(blob), 13):
        with pytest.raises((PlanError, CoreError)):
            CoreNode(blob[:length], config)
