"""Nodes that are the C core itself, in this process, in parallel over the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import numpy as np

from fedtiny.federation.tasks import (
    Describe,
    Description,
    Done,
    Evaluate,
    Evaluation,
    Infer,
    Install,
    LinkBytes,
    Load,
    Loaded,
    Logits,
    MeasureBn,
    Moments,
    NodeFailure,
    NodeHistory,
    NodeLink,
    NodeReport,
    PutData,
    Reply,
    Report,
    Score,
    Task,
    TopK,
    Train,
    Update,
)
from fedtiny.fleet.history import Times
from fedtiny.fleet.planning import node_config, refuse_what_does_not_fit
from fedtiny.fleet.upload import uploaded
from fedtiny_export.core import CoreNode
from fedtiny_export.errors import CoreError, FedtinyError
from fedtiny_export.graph import F32

BOARD = "native"


class NativeNode:
    """Answers tasks with one node of the C core; its samples stay in the arrays that `PutData` brought."""

    def __init__(self) -> None:
        self._core: CoreNode | None = None
        self._samples: PutData | None = None
        self.times = Times()
        self._peak = 0

    @property
    def core(self) -> CoreNode:
        if self._core is None:
            raise CoreError("this node has no model yet: send it a Load task first")
        return self._core

    def do(self, task: Task) -> Reply:
        """One task. Raises CoreError as the core reports it."""
        with self.times.of(task):
            return self._do(task)

    def _do(self, task: Task) -> Reply:
        match task:
            case Describe():
                put = self._samples
                return Description(
                    board=BOARD, samples=len(put.y) if put else 0, dev_samples=put.dev_count if put else 0
                )
            case PutData():
                self._samples = task
                if self._core and len(task.x) and task.x[0].size != self._core.input_size:
                    self._core = None
                if self._core:
                    self._core.set_samples(task.x, task.y, task.dev_count)
                return Done()
            case Load():
                return self._load(task)
            case Install():
                for layer, mask in task.masks.items():
                    self.core.set_mask(layer, mask)
                self.core.set_values(task.values)
                if task.stats is not None:
                    self.core.set_stats(task.stats)
                return Done()
            case MeasureBn():
                return self._measure(task)
            case Evaluate():
                return self._evaluate(task)
            case Train():
                return self._train(task)
            case Score():
                found = {k: self.core.score(k, n, batches=task.batches, seed=task.seed) for k, n in task.k.items()}
                return TopK(
                    indices={layer: indices for layer, (indices, _) in found.items()},
                    gradients={layer: gradients for layer, (_, gradients) in found.items()},
                    samples=self._sample_count,
                )
            case Infer():
                return Logits(logits=self.core.infer(task.x))
            case Report():
                memory = self._core.memory.by_kind() if self._core else {}
                return NodeReport(
                    board=BOARD,
                    peak_bytes=self._peak,
                    memory=memory,
                    busy_s=self.times.busy_s,
                    tasks=self.times.tasks,
                )

    @property
    def _sample_count(self) -> int:
        return len(self._samples.y) if self._samples else 0

    def _load(self, task: Load) -> Loaded:
        self._core = None  # the old arena goes before the new one comes, as on a board
        self._core = CoreNode(task.blob, node_config(task))
        self._peak = max(self._peak, self._core.memory.peak)
        if self._samples:
            self._core.set_samples(self._samples.x, self._samples.y, self._samples.dev_count)
        return Loaded(plan_bytes=self._core.memory.peak, memory=self._core.memory.by_kind())

    def _measure(self, task: MeasureBn) -> Moments:
        measured = [self.core.measure_bn(task.subset) for _ in self._candidates(task.candidates)]
        return Moments(moments=np.stack([moments for moments, _ in measured]), samples=measured[0][1])

    def _evaluate(self, task: Evaluate) -> Evaluation:
        before = self.core.stats()
        tallies = []
        for candidate in self._candidates(task.candidates):
            if task.stats is not None:
                self.core.set_stats(task.stats[candidate])
            tallies.append(self.core.evaluate(task.subset))
        self.core.set_stats(before)
        return Evaluation(
            loss_sum=np.array([t.loss_sum for t in tallies]),
            correct=np.array([t.correct for t in tallies], np.int64),
            samples=tallies[0].samples,
        )

    def _candidates(self, thresholds: F32 | None) -> Iterator[int]:
        """Makes each candidate in turn the working model, then brings the installed values back."""
        if thresholds is None:
            yield 0
            return
        installed = self.core.values()
        for number, row in enumerate(thresholds):
            self.core.set_thresholds(row)
            yield number
        self.core.set_values(installed)

    def _train(self, task: Train) -> Update:
        task.refuse_more()
        tally, moments = self.core.train(
            epochs=task.epochs,
            lr=task.lr,
            momentum=task.momentum,
            weight_decay=task.weight_decay,
            seed=task.seed,
        )
        return Update(
            values=uploaded(self.core.values(), task.upload),
            moments=moments,
            samples=self._sample_count,
            seen=tally.samples,
            loss_sum=tally.loss_sum,
            correct=tally.correct,
        )


class NativeFleet:
    """`workers` threads (default: the cores that this process may use) serve all nodes."""

    name = "native"

    def __init__(
        self,
        names: Sequence[str],
        *,
        workers: int | None = None,
        ram_bytes: int = 0,
        banks: Mapping[str, int] | None = None,
    ) -> None:
        self._ram_bytes, self._banks = ram_bytes, banks
        self._nodes = {name: NativeNode() for name in names}
        self._pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)), thread_name_prefix="native-node")

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    def ask(
        self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0
    ) -> Iterator[tuple[str, tuple[Reply, ...] | NodeFailure]]:
        refuse_what_does_not_fit(orders, self._ram_bytes, self._banks)
        futures: dict[Future[tuple[Reply, ...] | NodeFailure], str] = {
            self._pool.submit(_serve, self._nodes[name], tasks): name for name, tasks in orders.items()
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # the asker may stop listening
            for future in futures:
                future.cancel()

    def link_bytes(self) -> dict[str, LinkBytes]:
        return {}

    def links(self) -> dict[str, NodeLink]:
        return {}

    def histories(self) -> dict[str, NodeHistory]:
        return {name: NodeHistory(tasks=node.times.by_kind()) for name, node in self._nodes.items()}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _serve(node: NativeNode, tasks: Sequence[Task]) -> tuple[Reply, ...] | NodeFailure:
    try:
        return tuple(node.do(task) for task in tasks)
    except FedtinyError as error:
        return NodeFailure(reason=str(error))
