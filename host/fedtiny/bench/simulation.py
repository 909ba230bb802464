"""The rows of `bench simulation`: local steps a second of all nodes in rounds of FedAvg, beside torch and Flower."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from fedtiny.bench import cases, flower
from fedtiny.bench.fedavg import MICRO_BATCH, NET, SHAPE, TRAIN, device, net, plain_loop, samples
from fedtiny.bench.suite import Config, Goal, Say, Suite, Take
from fedtiny.federation.aggregate import average_values, combine_moments
from fedtiny.federation.tasks import Fleet, Install, Load, NodeFailure, PutData, Reply, Task, Update
from fedtiny_export.blob import write_blob
from fedtiny_export.errors import FedtinyError, FleetError
from fedtiny_export.flops import macs
from fedtiny_export.model import Model
from fedtiny_export.values import pack_values

NODES, SAMPLES = 10, 160
TURNS = 5
SPARSE = 0.05
LOOPS = ("loop", "loop.1thread")
DENSE = ("simulated", "stacked", "native")
KINDS = (*LOOPS, *DENSE, f"native.d{SPARSE:g}")
FLOWER = "flower"

GOALS = {
    "simulation.speedup_vs_flower": Goal(5, at_least=True),
    "simulation.speedup_vs_loop": Goal(2, at_least=True),
}


class SimulationBench:
    """Times every kind that is wanted, in turns in one run: what else the machine does falls on all of them alike."""

    def __init__(self, say: Say, *, nodes: int = NODES, samples: int = SAMPLES, turns: int = TURNS) -> None:
        self._say, self._nodes, self._samples, self._turns = say, nodes, samples, turns

    @property
    def steps(self) -> int:
        """Of one round of all nodes."""
        return self._nodes * (self._samples // MICRO_BATCH)

    @cache  # noqa: B019 - one bench a process
    def seconds(self, kinds: tuple[str, ...]) -> dict[str, float | FedtinyError]:
        """Of a round of each kind: the median over turns, or why it could not be done."""
        self._say(f"{', '.join(kinds)}: {self._turns} rounds of {self._nodes} nodes each, in turns")
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        failed: dict[str, FedtinyError] = {}
        rounds: dict[str, Callable[[], None]] = {}
        with ExitStack() as opened:
            for turn in range(self._turns + 1):
                for kind in kinds:
                    if kind in failed:
                        continue
                    try:
                        if not turn:
                            rounds[kind] = self._round(kind, opened)
                        began = time.perf_counter()
                        rounds[kind]()
                    except FedtinyError as error:
                        failed[kind] = error
                        continue
                    if turn:  # the first one warms up
                        times[kind].append(time.perf_counter() - began)
        return {kind: failed.get(kind) or statistics.median(times[kind]) for kind in kinds}

    def _round(self, kind: str, opened: ExitStack) -> Callable[[], None]:
        if kind == FLOWER:
            simulation = flower.Flower(nodes=self._nodes, samples=self._samples, rounds=self._turns + 1)
            opened.callback(simulation.close)
            return simulation.round
        if kind in LOOPS:
            loop = plain_loop(self._nodes, self._samples)
            return loop if kind == "loop" else _on_one_thread(loop)
        return _fleet_round(kind, {f"n{k}": samples(k, self._samples) for k in range(self._nodes)}, opened)


@cache
def packed() -> Model:
    from fedtiny_export.torch_in import from_torch

    return from_torch(net(), SHAPE)


def _on_one_thread(work: Callable[[], None]) -> Callable[[], None]:
    def alone() -> None:
        from fedtiny_export.reference import single_thread

        with single_thread():
            work()

    return alone


def _fleet_round(kind: str, data: dict[str, PutData], opened: ExitStack) -> Callable[[], None]:
    """The same work as tasks, for nodes of a kind, and what the server makes of the answers."""
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
        device="cpu" if native else device(),
        stacked=name == "stacked",
    )
    opened.callback(fleet.close)
    _all(fleet, {node: [put, load] for node, put in data.items()})
    values = pack_values(model.graph, arrays, masks)

    def work() -> None:
        nonlocal values
        answers = _all(fleet, {node: [Install(values=values), TRAIN] for node in data})
        updates = [reply for node in data for reply in answers[node] if isinstance(reply, Update)]
        values = average_values([u.values for u in updates], [u.samples for u in updates])
        combine_moments(model.graph, [u.moments for u in updates], [u.seen for u in updates])

    return work


def _all(fleet: Fleet, orders: dict[str, Sequence[Task]]) -> dict[str, tuple[Reply, ...]]:
    answers = {}
    for node, answer in fleet.ask(orders):
        if isinstance(answer, NodeFailure):
            raise FleetError(f"{node} could not do its work: {answer.reason}")
        answers[node] = answer
    return answers


def names() -> list[str]:
    return [*GOALS, *(f"simulation.steps_per_s.{kind}" for kind in (*KINDS, FLOWER))]


def _prepare(wanted: Sequence[str], folder: Path, say: Say) -> Iterator[tuple[str, str, Take]]:
    asked = {name.removeprefix("simulation.steps_per_s.") for name in wanted}
    if "simulation.speedup_vs_loop" in wanted:
        asked |= {*LOOPS, *DENSE}
    if "simulation.speedup_vs_flower" in wanted:
        asked |= {FLOWER, *DENSE}
    kinds = tuple(kind for kind in (*KINDS, FLOWER) if kind in asked)
    bench = SimulationBench(say)
    for name in wanted:
        if name == "simulation.speedup_vs_loop":
            what = "a round of a plain sequential loop in torch, on as many threads as suit it, over ours"
            yield name, "ratio", partial(_speedup, bench, kinds, LOOPS, what)
        elif name == "simulation.speedup_vs_flower":
            what = "a round of Flower's simulation, a client a core, over ours"
            yield name, "ratio", partial(_speedup, bench, kinds, (FLOWER,), what)
        else:
            kind = name.removeprefix("simulation.steps_per_s.")
            yield name, "steps/s", partial(_speed, bench, kinds, kind)


def _config() -> Config:
    import os

    import torch

    where = torch.cuda.get_device_name() if device() == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    weights = sum(macs(packed().graph).values())
    return {
        "model": NET, "macs": weights, "nodes": NODES, "samples": SAMPLES, "micro_batch": MICRO_BATCH, "device": where,
    }  # fmt: skip


def _speedup(bench: SimulationBench, kinds: tuple[str, ...], others: Sequence[str], what: str) -> tuple[float, Config]:
    ours = {kind: _time(bench, kinds, kind) for kind in DENSE}
    theirs = {kind: _time(bench, kinds, kind) for kind in others}
    best, other = min(ours, key=ours.__getitem__), min(theirs, key=theirs.__getitem__)
    return theirs[other] / ours[best], _config() | {"fleet": best, "beside": other, "what": what}


def _speed(bench: SimulationBench, kinds: tuple[str, ...], kind: str) -> tuple[float, Config]:
    return bench.steps / _time(bench, kinds, kind), _config() | {"fleet": kind}


def _time(bench: SimulationBench, kinds: tuple[str, ...], kind: str) -> float:
    """Raises FedtinyError where this kind could not do a round."""
    found = bench.seconds(kinds)[kind]
    if isinstance(found, FedtinyError):
        raise found
    return found


SIMULATION = Suite(
    names=names,
    prepare=_prepare,
    goals=GOALS,
    example="speedup",
    notes=("The C core needs no torch: `native` is dense, its other row has 5 % of the weights.",),
)
