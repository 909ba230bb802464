"""One training step on this computer: the native node and PyTorch, the same step, one thread, in turns in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from fedtiny.bench import cases
from fedtiny.bench.cases import Case
from fedtiny_export.core import CoreNode

ROUNDS, NODE_STEPS, TORCH_STEPS = 9, 200, 20


def compare(case: Case) -> tuple[float, float]:
    """Seconds per step, ours and PyTorch's: medians over rounds that take turns."""
    ours, theirs = node_step(case), torch_step(case)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for step, count, into in ((ours, NODE_STEPS, times[0]), (theirs, TORCH_STEPS, times[1])):
            began = time.perf_counter()
            step(count)
            into.append((time.perf_counter() - began) / count)
    return statistics.median(times[0]), statistics.median(times[1])


def node_step(case: Case) -> Callable[[int], None]:
    node = CoreNode(cases.blob(case), case.node_config)
    x = np.repeat(cases.sample(case.model)[None], case.micro_batch, 0)
    node.set_samples(x, np.full(case.micro_batch, 1, np.uint16), 0)

    def steps(count: int) -> None:
        node.train(epochs=count, lr=1e-4, momentum=0.9, weight_decay=1e-4, seed=0)

    steps(1)
    return steps


def torch_step(case: Case) -> Callable[[int], None]:
    """Forward, backward, gradients of pruned weights put to zero, SGD: what a masked step takes in PyTorch."""
    import copy

    import torch
    from torch import nn

    from fedtiny_export.reference import single_thread

    norm = cases.norm_layer(case)
    module = copy.deepcopy(cases.module(case.model, norm)).train()
    masks = {k: torch.from_numpy(m) for k, m in cases.masks(cases.model(case.model, norm), case.density).items()}
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)
    masked = [(module.get_parameter(name), mask) for name, mask in masks.items()]
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    x = torch.from_numpy(np.repeat(cases.sample(case.model)[None], case.micro_batch, 0))
    y = torch.full((case.micro_batch,), 1)

    def steps(count: int) -> None:
        with single_thread():
            for _ in range(count):
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
                for parameter, mask in masked:
                    if parameter.grad is not None:
                        parameter.grad.mul_(mask)
                optimiser.step()

    steps(3)
    return steps
