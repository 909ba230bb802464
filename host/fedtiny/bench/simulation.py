"""The rows of `bench simulation`: local steps a second of all nodes together, beside a plain loop in torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedtiny.bench import cases
from fedtiny.bench.suite import Config, Goal, Say, Suite, Take
from fedtiny.federation.tasks import Fleet, Load, NodeFailure, PutData, Train
from fedtiny_export.blob import write_blob
from fedtiny_export.errors import FleetError
from fedtiny_export.flops import macs
from fedtiny_export.graph import F32
from fedtiny_export.model import Model

if TYPE_CHECKING:
    from torch import nn

NET = "resnet-mini"
SHAPE = (1, 28, 28)
NODES, SAMPLES, MICRO_BATCH = 10, 160, 8
TURNS = 5
SPARSE = 0.05
TRAIN = Train(epochs=1, lr=0.01, momentum=0.9, weight_decay=5e-4, seed=0)
KINDS = ("loop", "loop.1thread", "simulated", "stacked", "native", f"native.d{SPARSE:g}")

GOALS = {"simulation.speedup_vs_loop": Goal(2, at_least=True)}


class SimulationBench:
    """Times every kind that is wanted, in turns in one run: what else the machine does falls on all of them alike."""

    def __init__(self, say: Say, *, nodes: int = NODES, samples: int = SAMPLES, turns: int = TURNS) -> None:
        self._say, self._nodes, self._samples, self._turns = say, nodes, samples, turns

    @property
    def steps(self) -> int:
        """Of one round of all nodes."""
        return self._nodes * (self._samples // MICRO_BATCH)

    @cache  # noqa: B019 - one bench a process
    def seconds(self, kinds: tuple[str, ...]) -> dict[str, float]:
        """Of a round of each kind: the median over turns."""
        self._say(f"{', '.join(kinds)}: {self._turns} rounds of {self._nodes} nodes each, in turns")
        rounds = {kind: self._round(kind) for kind in kinds}
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(self._turns + 1):
            for kind, work in rounds.items():
                began = time.perf_counter()
                work()
                if turn:  # the first one warms up
                    times[kind].append(time.perf_counter() - began)
        return {kind: statistics.median(values) for kind, values in times.items()}

    def _round(self, kind: str) -> Callable[[], None]:
        data = {f"n{k}": self._data(k) for k in range(self._nodes)}
        if not kind.startswith("loop"):
            return _fleet_round(kind, data)
        return _loop(data) if kind == "loop" else _on_one_thread(_loop(data))

    def _data(self, seed: int) -> PutData:
        generator = np.random.default_rng(seed)
        x: F32 = generator.normal(size=(self._samples, *SHAPE)).astype(np.float32)
        return PutData(x=x, y=generator.integers(0, 10, self._samples).astype(np.uint16), dev_count=1)


def net() -> nn.Module:
    from fedtiny import models

    return models.build(NET, input_shape=SHAPE, classes=10)


@cache
def packed() -> Model:
    from fedtiny_export.torch_in import from_torch

    return from_torch(net(), SHAPE)


def _loop(data: dict[str, PutData]) -> Callable[[], None]:
    """Node after node, a module and torch's own SGD: what one writes first."""
    import copy

    import torch
    from torch.nn.functional import cross_entropy

    start = net()
    device = _device()
    held = [
        (torch.from_numpy(put.x).to(device), torch.from_numpy(put.y.astype(np.int64)).to(device))
        for put in data.values()
    ]

    def work() -> None:
        for x, y in held:
            module = copy.deepcopy(start).to(device).train()
            optimiser = torch.optim.SGD(module.parameters(), lr=TRAIN.lr, momentum=0.9, weight_decay=5e-4)
            for batch in torch.split(torch.randperm(len(x), device=device), MICRO_BATCH):
                optimiser.zero_grad()
                cross_entropy(module(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def _on_one_thread(work: Callable[[], None]) -> Callable[[], None]:
    def alone() -> None:
        from fedtiny_export.reference import single_thread

        with single_thread():
            work()

    return alone


def _fleet_round(kind: str, data: dict[str, PutData]) -> Callable[[], None]:
    """The same work as tasks, for nodes of a kind."""
    from fedtiny.fleet import open_fleet

    name, _, density = kind.partition(".d")
    model = packed()
    masks = cases.masks(model, float(density)) if density else {}
    arrays = {name: array * masks[name] if name in masks else array for name, array in model.arrays.items()}
    load = Load(blob=write_blob(model.graph, arrays, masks, names=False), micro_batch=MICRO_BATCH)
    native = name == "native"
    fleet: Fleet = open_fleet(
        "native" if native else "simulated",
        tuple(data),
        device="cpu" if native else _device(),
        stacked=name == "stacked",
    )
    _all(fleet, {node: [put, load] for node, put in data.items()})
    return lambda: _all(fleet, {node: [TRAIN] for node in data})


def _all(fleet: Fleet, orders: dict[str, list[PutData | Load | Train]]) -> None:
    for node, answer in fleet.ask(orders):
        if isinstance(answer, NodeFailure):
            raise FleetError(f"{node} could not do its work: {answer.reason}")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def names() -> list[str]:
    return ["simulation.speedup_vs_loop", *(f"simulation.steps_per_s.{kind}" for kind in KINDS)]


def _prepare(wanted: Sequence[str], folder: Path, say: Say) -> Iterator[tuple[str, str, Take]]:
    asked = [kind for kind in KINDS if f"simulation.steps_per_s.{kind}" in wanted]
    if "simulation.speedup_vs_loop" in wanted:
        asked = [kind for kind in KINDS if kind in asked or not kind.startswith("native")]
    bench = SimulationBench(say)
    for name in wanted:
        if name == "simulation.speedup_vs_loop":
            yield name, "ratio", partial(_speedup, bench, tuple(asked))
        else:
            kind = name.removeprefix("simulation.steps_per_s.")
            yield name, "steps/s", partial(_speed, bench, tuple(asked), kind)


def _config() -> Config:
    import os

    import torch

    device = torch.cuda.get_device_name() if _device() == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    weights = sum(macs(packed().graph).values())
    return {
        "model": NET, "macs": weights, "nodes": NODES, "samples": SAMPLES, "micro_batch": MICRO_BATCH, "device": device,
    }  # fmt: skip


def _speedup(bench: SimulationBench, kinds: tuple[str, ...]) -> tuple[float, Config]:
    times = bench.seconds(kinds)
    best = min(("simulated", "stacked"), key=lambda kind: times[kind])
    what = "a plain sequential loop in torch, on as many threads as suit it, over ours"
    return min(times["loop"], times["loop.1thread"]) / times[best], _config() | {"fleet": best, "what": what}


def _speed(bench: SimulationBench, kinds: tuple[str, ...], kind: str) -> tuple[float, Config]:
    return bench.steps / bench.seconds(kinds)[kind], _config() | {"fleet": kind}


SIMULATION = Suite(
    names=names,
    prepare=_prepare,
    goals=GOALS,
    example="speedup",
    notes=("The C core needs no torch: `native` is dense, its other row has 5 % of the weights.",),
)
