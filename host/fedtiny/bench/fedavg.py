"""The FedAvg that all simulators are timed with: its net, samples of its nodes, and training as in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fedtiny.federation.tasks import PutData, Train
from fedtiny_export.graph import F32

if TYPE_CHECKING:
    from torch import Tensor, nn

NET = "resnet-mini"
SHAPE = (1, 28, 28)
CLASSES = 10
MICRO_BATCH = 8
TRAIN = Train(epochs=1, lr=0.01, momentum=0.9, weight_decay=5e-4, seed=0)


def net() -> nn.Module:
    from fedtiny import models

    return models.build(NET, input_shape=SHAPE, classes=CLASSES)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def samples(node: int, count: int) -> PutData:
    """Of the node with this number: noise, which takes as long as pictures do."""
    generator = np.random.default_rng(node)
    x: F32 = generator.normal(size=(count, *SHAPE)).astype(np.float32)
    return PutData(x=x, y=generator.integers(0, CLASSES, count).astype(np.uint16), dev_count=1)


@cache
def tensors(node: int, count: int) -> tuple[Tensor, Tensor]:
    """The same samples where torch trains; kept by the process that asks."""
    import torch

    put = samples(node, count)
    return torch.from_numpy(put.x).to(device()), torch.from_numpy(put.y.astype(np.int64)).to(device())


def train_locally(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """One node's epoch in place, with torch's own SGD. -> the mean loss of its last micro-batch."""
    import torch
    from torch.nn.functional import cross_entropy

    module.train()
    optimiser = torch.optim.SGD(
        module.parameters(), lr=TRAIN.lr, momentum=TRAIN.momentum, weight_decay=TRAIN.weight_decay
    )
    loss = torch.zeros(())
    for batch in torch.split(torch.randperm(len(x), device=x.device), MICRO_BATCH):
        optimiser.zero_grad()
        loss = cross_entropy(module(x[batch]), y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(loss.detach())


def plain_loop(nodes: int, count: int) -> Callable[[], None]:
    """A round node after node in one process: what one writes first."""
    module = net().to(device())
    state = copy.deepcopy(module.state_dict())
    held = [tensors(node, count) for node in range(nodes)]

    def work() -> None:
        found = []
        for x, y in held:
            module.load_state_dict(state)
            train_locally(module, x, y)
            found.append((copy.deepcopy(module.state_dict()), len(x)))
        state.update(average(found))

    return work


def average(states: Sequence[tuple[Mapping[str, Tensor], int]]) -> dict[str, Tensor]:
    """Of all parameters and statistics, weighted by samples."""
    total = sum(count for _, count in states)
    first, _ = states[0]
    return {name: sum((state[name] * (count / total) for state, count in states), 0 * first[name]) for name in first}
