"""The same tests on this computer, in emulators and on boards: pytest test_board.py [--fleet FLEET.toml]"""

import numpy as np
import pytest

from fedtiny.models import build
from fedtiny_export.torch_in import from_torch

SHAPE = (1, 12, 12)
MODEL = from_torch(build("lenet-mini", input_shape=SHAPE, classes=3, width=4), SHAPE)
PATTERNS = np.random.default_rng(0).normal(size=(3, *SHAPE))
Y = np.arange(24) % 3


def test_a_node_learns(node):
    node.put_data(PATTERNS[Y], Y)
    node.load(MODEL, micro_batch=4)
    before = node.evaluate().loss
    node.train(epochs=4, lr=0.05)
    assert node.evaluate().loss < before / 2


def test_a_node_trains_with_the_bits_of_this_computer(node, reference):
    updates = []
    for each in (node, reference):
        each.put_data(PATTERNS[Y], Y)
        each.load(MODEL, micro_batch=4)
        updates.append(each.train(lr=0.05, seed=7))
    assert updates[0].values.tobytes() == updates[1].values.tobytes()


def test_the_fleet_trains_a_model(fleet):
    result = fleet.run("board-mini", "train.rounds=1")
    assert (result["nodes"], result["failures"], result["rejections"]) == (len(fleet), [], [])


@pytest.mark.hardware
def test_a_board_says_which_one_it_is(node):
    assert node.board in ("nucleo_f446re", "blackpill_f411ce")
