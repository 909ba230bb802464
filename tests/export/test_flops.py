from __future__ import annotations

import pytest
import torch
from torch import nn

from fedtiny_export import from_torch, macs, training_flops


@pytest.fixture(scope="module")
def graph():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    return from_torch(net, (3, 8, 8)).graph


def test_macs_of_a_hand_computed_net(graph):
    assert macs(graph) == {"0.weight": 8 * 3 * 9 * 64, "2.weight": 8 * 9 * 16, "4.weight": 1280}


def test_density_scales_its_layer_only(graph):
    assert macs(graph, {"2.weight": 0.25}) == macs(graph) | {"2.weight": 8 * 9 * 16 / 4}


def test_training_costs_three_passes_of_two_operations_per_mac(graph):
    assert training_flops(graph, samples=100, epochs=5) == 6 * (13824 + 1152 + 1280) * 500


def test_macs_match_torchs_own_flop_counter(residual):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        residual.module(residual.batch(1))
    assert counter.get_total_flops() == 2 * sum(macs(from_torch(residual.module, residual.input_shape).graph).values())
