"""Nodes in torch: the same tasks with the same results, within float tolerance, as the C core; on CPU or GPU."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor

from fedtiny.augment import augmented
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
    Subset,
    Task,
    TopK,
    Train,
    Update,
)
from fedtiny.fleet.history import Times
from fedtiny.fleet.more_training import PrunedActivations, smallest
from fedtiny.fleet.order import shuffled
from fedtiny.fleet.planning import planned, refuse_what_does_not_fit
from fedtiny.fleet.stacked import MOST, can_stack, train_together
from fedtiny.fleet.upload import uploaded
from fedtiny_export.blob import read_blob
from fedtiny_export.errors import FedtinyError, FleetError
from fedtiny_export.graph import F32, Graph
from fedtiny_export.masks import decode_mask
from fedtiny_export.reference import Moments as BatchMoments
from fedtiny_export.reference import sample_losses, single_thread
from fedtiny_export.values import pack_stats, pack_values, unpack_stats

BOARD = "simulated"
_EVALUATION_BATCH = 256
_U32 = 0xFFFFFFFF


class SimulatedFleet:
    """`names` in the order that aggregation uses. `threads`: nodes that work at the same time; default: one per core.
    On a GPU the default is one. `stacked`: the nodes that a thread trains are one torch program; the same within float
    tolerance."""

    name = "simulated"

    def __init__(
        self,
        names: Sequence[str],
        *,
        device: str = "cpu",
        threads: int | None = None,
        ram_bytes: int = 0,
        banks: Mapping[str, int] | None = None,
        stacked: bool = False,
    ) -> None:
        self._ram_bytes, self._banks, self._stacked = ram_bytes, banks, stacked
        self._nodes = {name: _Node(torch.device(device)) for name in names}
        workers = threads or (os.cpu_count() or 1 if device == "cpu" else 1)
        self._stacks = min(workers, max(1, len(names)))
        self._pool = ThreadPoolExecutor(self._stacks, thread_name_prefix="node")

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    def ask(
        self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0
    ) -> Iterator[tuple[str, tuple[Reply, ...] | NodeFailure]]:
        refuse_what_does_not_fit(orders, self._ram_bytes, self._banks)
        trained: dict[str, tuple[Reply, ...] | NodeFailure] = {}
        if self._stacked:
            trained = self._together({name: tasks for name, tasks in orders.items() if _trains(tasks)})
            yield from trained.items()
        yield from self._apart({name: tasks for name, tasks in orders.items() if name not in trained})

    def _together(self, orders: Mapping[str, Sequence[Task]]) -> dict[str, tuple[Reply, ...] | NodeFailure]:
        """The nodes that may train in a stack: what comes before their training apart, then it, then what is left."""
        before = dict(self._apart({name: _upto(tasks) for name, tasks in orders.items()}))
        done: dict[str, tuple[Reply, ...] | NodeFailure] = {}
        groups: dict[str, list[str]] = {}
        for name, reply in before.items():
            if isinstance(reply, NodeFailure):
                done[name] = reply
            else:
                task = _training(orders[name])
                key = repr(task) if self._nodes[name].stacks(task) else name
                groups.setdefault(key, []).append(name)
        trained: dict[str, tuple[Reply, ...] | NodeFailure] = {}
        with single_thread():  # a stack a core: torch's own threads would wait for each other at every small operation
            work = []
            for names in groups.values():
                most = min(MOST, -(-len(names) // self._stacks))
                for start in range(0, len(names), most):
                    some = {name: self._nodes[name] for name in names[start : start + most]}
                    work.append(self._pool.submit(train_stack, some, _training(orders[names[0]])))
            for future in work:
                trained |= future.result()
        after = dict(self._apart({name: orders[name][len(_upto(orders[name])) + 1 :] for name in trained}))
        for name, reply in trained.items():
            first, last = before[name], after[name]
            parts = (first, reply, last)
            failed = next((part for part in parts if isinstance(part, NodeFailure)), None)
            done[name] = failed or tuple(r for part in parts if not isinstance(part, NodeFailure) for r in part)
        return done

    def _apart(self, orders: Mapping[str, Sequence[Task]]) -> Iterator[tuple[str, tuple[Reply, ...] | NodeFailure]]:
        with single_thread():  # nodes fill the cores
            work = {self._pool.submit(self._nodes[name].do_all, tasks): name for name, tasks in orders.items()}
            try:
                for future in as_completed(work):
                    yield work[future], future.result()
            finally:
                for future in work:
                    future.cancel()

    def link_bytes(self) -> dict[str, LinkBytes]:
        return {}

    def links(self) -> dict[str, NodeLink]:
        return {}

    def histories(self) -> dict[str, NodeHistory]:
        return {name: NodeHistory(tasks=node.times.by_kind()) for name, node in self._nodes.items()}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class NodeModel:
    """A model in a node: all trained parameters are views of one flat tensor, in the order of the values vector."""

    def __init__(self, task: Load, device: torch.device) -> None:
        blob = read_blob(task.blob)
        self.graph: Graph = blob.graph
        self.input_size = blob.graph.tensors[blob.graph.input].size
        self.micro_batch = task.micro_batch
        self.loss = task.loss
        self.module = PrunedActivations(blob.graph, blob.arrays, norm=task.norm.value, last_layers=task.last_layers).to(
            device
        )
        self.params = [self.module.param(self.graph.params[i].name) for i in self.graph.trained]
        self.flat = torch.from_numpy(pack_values(blob.graph, blob.arrays, {})).to(device)
        self.spans: dict[int, slice] = {}
        self.live = torch.ones_like(self.flat)
        numbers = {index: layer for layer, index in enumerate(self.graph.layers)}
        at = 0
        for index, param in zip(self.graph.trained, self.params, strict=True):
            param.data = self.flat[at : at + param.numel()].view(param.shape)
            if index in numbers:
                self.spans[numbers[index]] = slice(at, at + param.numel())
            at += param.numel()
        self.constants = sum(param.numel() for param in self.params if not param.requires_grad)
        self.capacity: dict[int, int] = {}
        for layer, name in enumerate(self.graph.layer_names):
            if name in blob.masks:
                flat = torch.from_numpy(blob.masks[name].reshape(-1))
                self.live[self.spans[layer]] = flat.to(device, torch.float32)
                self.capacity[layer] = int(flat.sum())
        self.masked = bool(self.capacity)
        self.stats = pack_stats(blob.graph, blob.arrays)
        self.norm_positions = [math.prod(blob.graph.tensors[op.output].shape[1:]) for op in blob.graph.batchnorms]
        self.blob_values = self.flat.clone()
        if task.keep != "f32":
            raise FleetError(f"simulated nodes keep f32, not {task.keep}: set train.keep=f32 or fleet.kind=native")
        self.plan_bytes, self.memory = planned(task)

    def set_stats(self, stats: F32) -> None:
        self.module.load_arrays(unpack_stats(self.graph, stats))

    def values(self) -> F32:
        kept = self.flat[self.live > 0] if self.masked else self.flat.clone()
        return kept.cpu().numpy()

    def forward(self, x: Tensor, *, training: bool) -> Tensor:
        self.module.train(training)
        logits: Tensor = self.module(x)
        return logits

    def gradient(self, loss: Tensor) -> Tensor:
        """Dense gradient in the order of the values vector."""
        grads = iter(torch.autograd.grad(loss, [p for p in self.params if p.requires_grad]))
        return torch.cat([(next(grads) if p.requires_grad else torch.zeros_like(p)).reshape(-1) for p in self.params])


class _Node:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._x = torch.empty(0)
        self._y = torch.empty(0)
        self._dev_count = 0
        self._model: NodeModel | None = None
        self.times = Times()
        self._peak = 0

    def stacks(self, task: Train) -> bool:
        """Whether it may train in a stack."""
        return self._model is not None and can_stack(task, len(self._x), self._model.micro_batch)

    @property
    def share(self) -> tuple[NodeModel, tuple[Tensor, Tensor]]:
        """Its model and samples, for a stack."""
        return self._working(), self._subset(Subset.ALL)

    def do_all(self, tasks: Sequence[Task]) -> tuple[Reply, ...] | NodeFailure:
        try:
            return tuple(self._timed(task) for task in tasks)
        except (FedtinyError, RuntimeError, ValueError) as error:  # torch raises RuntimeError, for lack of memory too
            return NodeFailure(reason=str(error))

    def _timed(self, task: Task) -> Reply:
        with self.times.of(task):
            return self._do(task)

    def _do(self, task: Task) -> Reply:
        match task:
            case Describe():
                return Description(board=BOARD, samples=len(self._x), dev_samples=self._dev_count)
            case PutData():
                return self._put_data(task)
            case Load():
                self._model = None  # the old one must not linger when the new one is refused
                self._model = NodeModel(task, self._device)
                self._peak = max(self._peak, self._model.plan_bytes)
                return Loaded(plan_bytes=self._model.plan_bytes, memory=self._model.memory)
            case Install():
                return self._install(task)
            case MeasureBn():
                return self._measure_bn(task)
            case Evaluate():
                return self._evaluate(task)
            case Train():
                return self._train(task)
            case Score():
                return self._score(task)
            case Infer():
                with torch.no_grad():
                    logits = self._working().forward(torch.from_numpy(task.x).to(self._device), training=False)
                return Logits(logits=logits.cpu().numpy())
            case Report():
                memory = self._model.memory if self._model else {}
                return NodeReport(
                    board=BOARD,
                    peak_bytes=self._peak,
                    memory=memory,
                    busy_s=self.times.busy_s,
                    tasks=self.times.tasks,
                )

    def _working(self) -> NodeModel:
        """The model, ready to work."""
        if self._model is None:
            raise RuntimeError("this node has no model yet: send it a Load task first")
        return self._model

    def _put_data(self, task: PutData) -> Done:
        if len(task.x) != len(task.y) or not 1 <= task.dev_count <= len(task.x):
            raise ValueError(f"{len(task.x)} samples, {len(task.y)} labels, {task.dev_count} for development")
        self._x = torch.from_numpy(np.array(task.x, np.float32)).to(self._device)
        self._y = torch.from_numpy(task.y.astype(np.int64)).to(self._device)
        self._dev_count = task.dev_count
        if self._model and task.x[0].size != self._model.input_size:
            self._model = None
        return Done()

    def _install(self, task: Install) -> Done:
        model = self._working()
        live = model.live.clone()
        for layer, encoded in task.masks.items():
            span = model.spans[layer]
            mask = decode_mask(encoded, span.stop - span.start)
            if mask.sum() > model.capacity.get(layer, 0):
                room = model.capacity.get(layer, 0)
                raise ValueError(f"the mask of layer {layer} has {mask.sum()} live weights, room is for {room}")
            live[span] = torch.from_numpy(mask).to(self._device, torch.float32)
        values = torch.tensor(task.values, device=self._device)
        if not torch.isfinite(values).all():
            raise ValueError("NaN or infinity in values")
        if len(values) != int(live.sum()):
            raise ValueError(f"{len(values)} values for {int(live.sum())} live weights")
        model.live = live
        if model.masked:
            model.flat.zero_()
            model.flat[live > 0] = values
        else:
            model.flat.copy_(values)
        if task.stats is not None:
            model.stats = task.stats.copy()
            model.set_stats(model.stats)
        return Done()

    def _subset(self, subset: Subset) -> tuple[Tensor, Tensor]:
        count = len(self._x) if subset is Subset.ALL else self._dev_count
        if count == 0:
            raise RuntimeError("this node has no samples yet: send it a PutData task first")
        return self._x[:count], self._y[:count]

    @contextmanager
    def _candidate(self, thresholds: F32 | None) -> Iterator[NodeModel]:
        """The model with a candidate's weights; what was installed comes back afterwards."""
        model = self._working()
        if thresholds is None:
            yield model
            return
        if thresholds.shape != (len(model.graph.layers),):
            raise ValueError(f"{thresholds.shape} thresholds for {len(model.graph.layers)} layers")
        installed = model.flat.clone()
        model.flat.copy_(model.blob_values)
        for layer in model.capacity:
            weights = model.flat[model.spans[layer]]
            weights[weights.abs() < float(thresholds[layer])] = 0.0
        try:
            yield model
        finally:
            model.flat.copy_(installed)

    @torch.no_grad()
    def _measure_bn(self, task: MeasureBn) -> Moments:
        x, _ = self._subset(task.subset)
        rows = []
        for thresholds in [None] if task.candidates is None else list(task.candidates):
            with self._candidate(thresholds) as model:
                model.module.train()
                total = _Sums()
                for batch in torch.split(x, model.micro_batch):
                    total.add(model.module.forward_with_moments(batch, measuring=True)[1])
                rows.append(total.vector())
        return Moments(moments=np.stack(rows), samples=len(x))

    @torch.no_grad()
    def _evaluate(self, task: Evaluate) -> Evaluation:
        x, y = self._subset(task.subset)
        candidates = [None] if task.candidates is None else list(task.candidates)
        losses, hits = np.zeros(len(candidates)), np.zeros(len(candidates), np.int64)
        for c, thresholds in enumerate(candidates):
            with self._candidate(thresholds) as model:
                try:
                    if task.stats is not None:
                        model.set_stats(task.stats[c])
                    for batch, labels in _evaluation_batches(x, y):
                        logits = model.forward(batch, training=False)
                        each, hit = sample_losses(model.loss, logits.double(), batch, labels)
                        losses[c] += float(each.sum())
                        hits[c] += int(hit.sum())
                finally:
                    model.set_stats(model.stats)
        return Evaluation(loss_sum=losses, correct=hits, samples=len(x))

    def _batches(self, size: int, key: int) -> list[Tensor]:
        """Indices of an epoch's micro-batches; an incomplete last one is left out unless it is the only one."""
        order = torch.from_numpy(shuffled(len(self._x), key)).to(self._device)
        whole = len(order) // size
        return list(torch.split(order[: whole * size], size)) if whole else [order]

    def _train(self, task: Train) -> Update:
        model = self._working()
        self._subset(Subset.ALL)
        model.module.train()
        model.module.activations = task.activations
        drawn = smallest(model.flat, model.live, model.spans, task.extrude) if task.extrude else None
        varied = torch.Generator().manual_seed(task.seed & _U32)
        momentum = torch.zeros_like(model.flat)
        for epoch in range(task.epochs):
            last = epoch == task.epochs - 1
            total = _Sums()
            loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
            hits = torch.zeros((), dtype=torch.int64, device=self._device)
            seen = 0
            for batch in self._batches(model.micro_batch, (task.seed + epoch) & _U32):
                labels, x = self._y[batch], augmented(self._x[batch], task.augment, varied)
                if last:
                    logits, moments = model.module.forward_with_moments(x)
                    total.add(moments)
                else:
                    logits = model.module(x)
                losses, hit = sample_losses(model.loss, logits, x, labels)
                loss = losses.mean()
                grad = model.gradient(loss).add_(model.flat, alpha=task.weight_decay)
                if drawn is not None:
                    grad.add_(model.flat * drawn, alpha=2 * task.penalty)
                grad[: model.constants] = 0.0
                if model.masked:
                    grad.mul_(model.live)
                momentum.mul_(task.momentum).add_(grad)
                model.flat.sub_(momentum, alpha=task.lr)
                if last:
                    loss_sum += loss.detach() * len(batch)
                    hits += hit.sum()
                    seen += len(batch)
        model.module.activations = 1.0
        return Update(
            values=uploaded(model.values(), task.upload),
            moments=total.vector(),
            samples=len(self._x),
            seen=seen,
            loss_sum=float(loss_sum),
            correct=int(hits),
        )

    def _score(self, task: Score) -> TopK:
        model = self._working()
        self._subset(Subset.ALL)
        model.module.train()
        batches = self._batches(model.micro_batch, task.seed & _U32)[: max(1, task.batches)]
        gradient = torch.zeros_like(model.flat)
        for batch in batches:
            logits = model.module(self._x[batch])
            losses, _ = sample_losses(model.loss, logits, self._x[batch], self._y[batch])
            gradient += model.gradient(losses.mean())
        gradient /= len(batches)
        indices, gradients = {}, {}
        for layer, k in task.k.items():
            if layer not in model.capacity:
                raise ValueError(f"layer {layer} is dense: it has no pruned weights to score")
            span = model.spans[layer]
            if span.start < model.constants:
                raise ValueError(f"layer {layer} does not train: it has no gradients to score")
            g = gradient[span].cpu().numpy()
            dead = np.flatnonzero(model.live[span].cpu().numpy() == 0)
            top = np.sort(dead[np.argsort(-np.abs(g[dead]), kind="stable")[:k]])
            indices[layer], gradients[layer] = top.astype(np.uint32), g[top].copy()
        return TopK(indices=indices, gradients=gradients, samples=len(self._x))


def train_stack(nodes: Mapping[str, _Node], task: Train) -> dict[str, tuple[Reply, ...] | NodeFailure]:
    """What each of some nodes answers to the same training, done at once; one node alone does it as ever."""
    if len(nodes) == 1:
        return {name: node.do_all([task]) for name, node in nodes.items()}
    shares = [node.share for node in nodes.values()]
    try:
        with ExitStack() as timed:
            for node in nodes.values():
                timed.enter_context(node.times.of(task))
            updates = train_together([model for model, _ in shares], [data for _, data in shares], task)
    except RuntimeError as error:  # for lack of memory too
        return dict.fromkeys(nodes, NodeFailure(reason=str(error)))
    return {name: (update,) for name, update in zip(nodes, updates, strict=True)}


def _trains(tasks: Sequence[Task]) -> bool:
    return sum(isinstance(task, Train) for task in tasks) == 1


def _upto(tasks: Sequence[Task]) -> Sequence[Task]:
    """What comes before the training."""
    return tasks[: next(i for i, task in enumerate(tasks) if isinstance(task, Train))]


def _training(tasks: Sequence[Task]) -> Train:
    return next(task for task in tasks if isinstance(task, Train))


def _evaluation_batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """In eval mode a batch's size changes nothing but speed."""
    for start in range(0, len(x), _EVALUATION_BATCH):
        yield x[start : start + _EVALUATION_BATCH], y[start : start + _EVALUATION_BATCH]


class _Sums:
    """Batch-norm moments over several micro-batches, combined by Chan's formula in float64."""

    def __init__(self) -> None:
        self._batches: list[BatchMoments] = []

    def add(self, moments: BatchMoments) -> None:
        self._batches.append(moments)

    def vector(self) -> F32:
        """sum[C], m2[C] of each batch norm in operator order."""
        parts: list[Tensor] = []
        for norm in zip(*self._batches, strict=True):
            sums = torch.stack([s for s, _, _ in norm]).double()
            m2 = torch.stack([m for _, m, _ in norm]).double()
            counts = torch.tensor([n for _, _, n in norm], dtype=torch.float64, device=sums.device)[:, None]
            mean = sums.sum(0) / counts.sum()
            between = (counts * (sums / counts - mean) ** 2).sum(0)
            parts += [sums.sum(0), m2.sum(0) + between]
        return torch.cat(parts).float().cpu().numpy() if parts else np.zeros(0, np.float32)
