"""A net, shards and fleets small enough that a test runs whole federations in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from fedtiny.federation.records import RoundRecord, ServerState
from fedtiny.federation.server import Server, ServerSettings
from fedtiny.federation.tasks import LinkBytes, NodeFailure, NodeHistory, NodeLink, PutData, Reply, Task, Update
from fedtiny.fleet.simulated import SimulatedFleet
from fedtiny.models import build
from fedtiny.pruning import FedTiny, Method
from fedtiny_export.model import Model
from fedtiny_export.torch_in import from_torch

SHAPE = (1, 12, 12)
CLASSES = 4
Answer = tuple[Reply, ...] | NodeFailure


def net(*, norm: str = "batch", seed: int = 0) -> torch.nn.Module:
    """A residual net of 4-8-16 channels."""
    return build("resnet-mini", input_shape=SHAPE, classes=CLASSES, width=4, norm=norm, seed=seed)


@cache
def model(norm: str = "batch") -> Model:
    return from_torch(net(norm=norm), SHAPE)


@cache
def full_model(name: str = "resnet-mini") -> Model:
    """A reference model in its own size, for 28 x 28 images of 10 classes."""
    return from_torch(build(name, input_shape=(1, 28, 28), classes=10), (1, 28, 28))


def samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is a pattern under noise: learnable in a few steps."""
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(CLASSES, *SHAPE))
    y = generator.integers(0, CLASSES, count).astype(np.uint16)
    x = patterns[y] + generator.normal(size=(count, *SHAPE))
    return x.astype(np.float32), y


def shards(nodes: int = 4) -> dict[str, PutData]:
    """Unequal ones: 20, 27, 34, ... samples."""
    sizes = {f"n{k}": 20 + 7 * k for k in range(nodes)}
    return {
        name: PutData(x=samples(size, seed=k)[0], y=samples(size, seed=k)[1], dev_count=4)
        for k, (name, size) in enumerate(sizes.items())
    }


class WatchedFleet:
    """A simulated fleet that notes every order, and whose answers a test may reorder, lose or damage."""

    name = "watched"

    def __init__(
        self,
        data: Mapping[str, PutData],
        *,
        damage: Callable[[int, str, Answer], Answer | None] = lambda call, node, answer: answer,
        shuffle: int | None = None,
    ) -> None:
        self._fleet = SimulatedFleet(tuple(data), threads=1)
        self._damage = damage
        self._shuffle = shuffle
        self.data = dict(data)
        self.orders: list[dict[str, tuple[Task, ...]]] = []
        list(self._fleet.ask({node: [put] for node, put in data.items()}))

    @property
    def nodes(self) -> tuple[str, ...]:
        return self._fleet.nodes

    def ask(self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0) -> Iterator[tuple[str, Answer]]:
        call = len(self.orders)
        self.orders.append({node: tuple(tasks) for node, tasks in orders.items()})
        answers = dict(self._fleet.ask(orders))
        nodes = sorted(answers)
        if self._shuffle is not None:
            nodes = list(np.random.default_rng([self._shuffle, call]).permutation(nodes))
        for node in nodes:
            answer = self._damage(call, node, answers[node])
            if answer is not None:
                yield str(node), answer

    def link_bytes(self) -> dict[str, LinkBytes]:
        return {}

    def links(self) -> dict[str, NodeLink]:
        return {}

    def histories(self) -> dict[str, NodeHistory]:
        return {}

    def tasks(self, kind: type[Task]) -> list[tuple[int, str, Any]]:
        """(call, node, task) of every order of a kind."""
        found = [(c, n, task) for c, orders in enumerate(self.orders) for n, tasks in orders.items() for task in tasks]
        return [entry for entry in found if isinstance(entry[2], kind)]

    def close(self) -> None:
        self._fleet.close()


class ListJournal:
    """Keeps everything in memory."""

    def __init__(self) -> None:
        self.updates: list[tuple[int, str, Update]] = []
        self.records: list[RoundRecord] = []
        self.states: list[ServerState] = []
        self.stops: list[tuple[ServerState, str]] = []

    def accepted(self, round_number: int, node: str, update: Update) -> None:
        self.updates.append((round_number, node, update))

    def finished(self, record: RoundRecord, state: ServerState) -> None:
        self.records.append(record)
        self.states.append(state)

    def stopped(self, state: ServerState, reason: str) -> None:
        self.stops.append((state, reason))


def method(**changes: Any) -> FedTiny:
    defaults: dict[str, Any] = {"density": 0.2, "pool_size": 5, "delta_rounds": 1, "stop_round": 6, "score_batches": 2}
    return FedTiny(**(defaults | changes))


def settings(**changes: Any) -> ServerSettings:
    defaults: dict[str, Any] = {"rounds": 4, "epochs": 1, "lr": 0.05, "weight_decay": 1e-3, "micro_batch": 8}
    return ServerSettings(**(defaults | changes))


def server(fleet: Any, *, how: Method | None = None, start: Model | None = None, **changes: Any) -> Server:
    options = {key: changes.pop(key) for key in ("journal", "evaluate", "listen", "public") if key in changes}
    options.setdefault("evaluate", lambda current: (0.0, 0.0))
    return Server(model=start or model(), method=how or method(), fleet=fleet, settings=settings(**changes), **options)
