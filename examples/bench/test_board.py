"""The same tests on this computer, in emulators and on boards: pytest test_board.py [--fleet lab.toml]"""

import numpy as np
import pytest

from fedtiny.models import build
from fedtiny_export.torch_in import from_torch

SHAPE = (1, 12, 12)
MODEL = from_torch(build("lenet-mini", input_shape=SHAPE, classes=3, width=4), SHAPE)


def samples(count=24, seed=0):
    """Each class is a pattern of its own, under noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return rng.normal(size=(3, *SHAPE))[y] + 0.3 * rng.normal(size=(count, *SHAPE)), y


def test_a_node_learns(node):
    node.put_data(*samples())
    node.load(MODEL, micro_batch=4)
    before = node.evaluate()
    node.train(epochs=4, lr=0.05)
    assert node.evaluate().loss < before.loss / 2


def test_a_node_trains_with_the_bits_of_this_computer(node, reference):
    updates = []
    for each in (node, reference):
        each.put_data(*samples())
        each.load(MODEL, micro_batch=4)
        updates.append(each.train(lr=0.05, seed=7))
    assert updates[0].values.tobytes() == updates[1].values.tobytes()


def test_a_model_takes_no_more_memory_than_planned(node):
    planned = node.load(MODEL)
    assert node.report().peak_bytes >= planned.plan_bytes  # the largest since it was started
    assert sum(planned.memory.values()) >= planned.plan_bytes


def test_the_fleet_trains_a_model(fleet):
    result = fleet.run("board-mini", "train.rounds=1", "train.local_epochs=1")
    assert (result["nodes"], result["failures"], result["rejections"]) == (len(fleet), [], [])


@pytest.mark.hardware
def test_a_board_says_that_it_is_one(node):
    assert node.board not in ("native", "posix")
