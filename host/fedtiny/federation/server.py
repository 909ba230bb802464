"""The round loop: prepare once, then train, check, aggregate, prune and grow, round by round.

The server does no I/O and knows neither the kind of fleet nor which method it runs. All randomness is keyed by (seed,
round), and answers are aggregated in the fleet's node order, so the order of arrival changes no bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedtiny.federation import adjusting, aggregate
from fedtiny.federation.cost import Costs, score_flops
from fedtiny.federation.holdings import Offer
from fedtiny.federation.journal import Journal, NoJournal
from fedtiny.federation.nodes import Nodes, TooFewAnswers
from fedtiny.federation.records import (
    Adjustment,
    Event,
    Failure,
    Phase,
    QuorumLost,
    Rejection,
    RoundRecord,
    Selection,
    ServerState,
)
from fedtiny.federation.selection import choose
from fedtiny.federation.settings import ServerSettings
from fedtiny.federation.tasks import (
    Evaluate,
    Evaluation,
    Fleet,
    Load,
    Loaded,
    MeasureBn,
    Moments,
    Norm,
    Reply,
    Score,
    Subset,
    Task,
    TopK,
    Train,
    Update,
)
from fedtiny.federation.traffic import Traffic, since
from fedtiny.pruning.method import Answer, Method, Probe, Public, Request, Seen, Start, Training
from fedtiny.pruning.pool import Masks, Pool, by_name, density_of
from fedtiny_export.blob import write_blob
from fedtiny_export.flops import training_flops
from fedtiny_export.graph import F32, Bits, Graph
from fedtiny_export.model import Model
from fedtiny_export.values import pack_stats, pack_values, unpack_stats, unpack_values, value_count

__all__ = ["Journal", "NoJournal", "QuorumLost", "Server", "ServerSettings", "ignore"]

R = TypeVar("R", bound=Reply)


def ignore(event: Event) -> None:
    """A listener that does not listen."""


def load_task(graph: Graph, arrays: Mapping[str, F32], masks: Masks, method: Method, settings: ServerSettings) -> Load:
    """What a node gets that has nothing; `masks` by layer, pruned weights are 0."""
    return Load(
        blob=write_blob(graph, arrays, by_name(graph, masks), names=False),
        micro_batch=settings.micro_batch,
        norm=settings.norm,
        topk_max=method.topk_max(graph, masks),
        score_tile_bytes=settings.score_tile_bytes,
        loss=settings.loss,
        keep=settings.keep,
        lean=settings.lean,
        plain_sgd=settings.momentum == 0,
        last_layers=settings.last_layers,
    )


def first_load(model: Model, start: Start, method: Method, settings: ServerSettings) -> Load:
    """What a fresh run's nodes get first; the same as theirs, so that a plan can be made before any node is there."""
    arrays = dict(model.arrays) | dict(start.arrays)
    for layer, mask in start.masks.items():
        name = model.graph.layer_names[layer]
        arrays[name] = np.where(mask, arrays[name], np.float32(0))
    return load_task(model.graph, arrays, start.masks, method, settings)


class Server:
    """One run. `evaluate`: test loss and accuracy of a model whose statistics are ready for inference.

    `public`: samples of the server's own, for methods that rank weights on them.
    """

    def __init__(
        self,
        *,
        model: Model,
        method: Method,
        fleet: Fleet,
        settings: ServerSettings,
        evaluate: Callable[[Model], tuple[float, float]],
        journal: Journal | None = None,
        listen: Callable[[Event], None] = ignore,
        public: Public | None = None,
    ) -> None:
        self._graph = model.graph
        self._arrays: dict[str, F32] = dict(model.arrays)
        self._method = method
        self._settings = settings
        self._evaluate = evaluate
        self._journal: Journal = journal or NoJournal()
        self._public = public
        self._memory: dict[str, NDArray[Any]] = {}
        self._masks: dict[int, Bits] = {}
        self._round = -1
        self._adjustments = 0
        self.selection: Selection | None = None
        self.flops_per_round_max = 0.0
        self.flops_dense_per_round = 0.0
        self.costs = Costs()
        self.traffic = Traffic(
            dense_blob_bytes=len(write_blob(model.graph, model.arrays, {}, names=False)),
            dense_values_bytes=4 * value_count(model.graph, {}),
        )
        self._nodes = Nodes(
            fleet,
            self._graph,
            quorum=settings.quorum,
            traffic=self.traffic,
            costs=self.costs,
            journal=self._journal,
            listen=listen,
        )
        self._saved = self.state()

    @property
    def plans(self) -> dict[str, Loaded]:
        """What each node's planner said when it last loaded."""
        return self._nodes.plans

    @property
    def round(self) -> int:
        """Finished rounds; 0 after preparation, -1 before."""
        return self._round

    @property
    def model(self) -> Model:
        """The current model: dense arrays, 0 where masked."""
        return Model(self._graph, dict(self._arrays))

    @property
    def masks(self) -> dict[str, Bits]:
        """Live weights by layer name, as `write_blob` takes them; dense layers have no entry."""
        return by_name(self._graph, self._masks)

    @property
    def density(self) -> float:
        """Live share of all convolution and linear weights."""
        return density_of(self._graph, self._masks)

    @property
    def densities(self) -> dict[str, float]:
        """Live share by layer name."""
        shares = {name: float(np.mean(mask)) for name, mask in self.masks.items()}
        return {name: shares.get(name, 1.0) for name in self._graph.layer_names}

    @property
    def flops_ratio_to_dense(self) -> float:
        """The costliest round of a node, in terms of a dense round of the node with the most samples."""
        return self.flops_per_round_max / self.flops_dense_per_round if self.flops_dense_per_round else 0.0

    def state(self) -> ServerState:
        """The run after its last finished round; later changes do not show in it."""
        return ServerState(
            round=self._round,
            adjustments=self._adjustments,
            arrays={name: array.copy() for name, array in self._arrays.items()},
            masks={layer: mask.copy() for layer, mask in self._masks.items()},
            selection=self.selection,
            tally=self.traffic.tally()
            | {"flops": [self.flops_per_round_max, self.flops_dense_per_round], "costs": self.costs.tally()},
            memory={name: array.copy() for name, array in self._memory.items()},
        )

    def restore(self, state: ServerState) -> None:
        """Goes on from a state; every node is loaded anew."""
        self._round = state.round
        self._adjustments = state.adjustments
        self._arrays = {name: array.copy() for name, array in state.arrays.items()}
        self._masks = {layer: mask.copy() for layer, mask in state.masks.items()}
        self.selection = state.selection
        self.traffic.resume(dict(state.tally))
        self.flops_per_round_max, self.flops_dense_per_round = state.tally.get("flops", (0.0, 0.0))
        self.costs.resume(state.tally.get("costs", {}))
        self._memory = {name: array.copy() for name, array in state.memory.items()}
        self._nodes.holdings.publish(self._masks)
        self._nodes.holdings.forget_all()
        self._saved = state

    def prepare(self, start: Start | None = None) -> Selection | None:
        """Loads the nodes and, where the method offers a pool, lets their development sets choose a candidate; where it
        asks for a probe, has them train once and loads them anew with what comes of it.

        `start`: what the method starts from, where it has been asked. Raises QuorumLost where too few nodes answer.
        """
        model = self.model
        start = start or self._method.start(model, seed=self._settings.seed, public=self._public)
        self._memory = dict(start.memory)
        self._arrays |= start.arrays
        self._install(start.masks)
        self._nodes.holdings.publish(self._masks)
        if start.probe is not None:
            self._probe(model, start, start.probe)
        self._ask("load", 0, {node: [] for node in self._nodes.names})
        if start.pool is not None:
            self._select(model, start, start.pool)
            self.costs.prepared(self.selection.flops if self.selection else 0.0)
        self._round = 0
        self._saved = self.state()
        return self.selection

    def rounds(self) -> Iterator[RoundRecord]:
        """The remaining rounds, each run when asked for. Raises QuorumLost; the server then stands after the last
        finished round and may be asked again."""
        if self._round < 0:
            self.prepare()
        while self._round < self._settings.rounds:
            yield self._one_round(self._round + 1)

    def _one_round(self, number: int) -> RoundRecord:
        settings = self._settings
        down, up, link = self.traffic.down, self.traffic.up, self.traffic.link
        where = {"round_number": number, "adjustments": self._adjustments}
        request = self._method.request(self._graph, self._masks, **where)
        training = self._method.training(self._graph, self._masks, **where)
        lr = max(settings.lr_at(number), training.lr_floor * settings.lr)
        own = request is not None and request.own_masks
        epochs = -(-settings.epochs // 2) if own else settings.epochs
        tasks: list[Task] = [self._train(number, "train", epochs, lr, training)]
        if request is not None and request.k:
            seed = self._seed(number, "score")
            tasks.append(Score(k=request.k, batches=request.batches, seed=seed, indices_only=request.indices_only))
        densities_before = self.densities
        before = adjusting.of_layers(self._arrays, self._graph) if request is not None else {}
        answers = self._ask("train", number, dict.fromkeys(self._nodes.names, tasks))
        updates = {node: _only(replies, Update) for node, replies in answers.items()}
        tops = {node: _only(replies, TopK) for node, replies in answers.items() if request and request.k}
        under: dict[str, Masks] = dict.fromkeys(updates, self._masks)
        if request is not None and own:
            more = max(1, settings.epochs - epochs)
            updates, under = self._on_own_masks(number, request, updates, tops, self._train(number, "own", more, lr))
            epochs += more
        flops = self._count_flops(densities_before, request, updates, epochs)
        self._average(list(updates.values()), list(under.values()) if own else None)
        adjustment = None
        if request is not None:
            adjustment = self._adjust(
                number,
                request,
                tops=[tops[node] for node in updates if node in tops],
                answers=[
                    adjusting.answer_of(self._graph, update, under[node], tops.get(node))
                    for node, update in updates.items()
                ],
                before=before,
                travel=adjusting.travel(
                    list(updates.values()),
                    lr=lr,
                    momentum=settings.momentum,
                    epochs=epochs,
                    micro_batch=settings.micro_batch,
                ),
            )
        self._nodes.holdings.publish(self._masks)
        last = number == settings.rounds
        if self._graph.batchnorms and (last or settings.bn_refresh == "measure"):
            booked = self.traffic.dense_fedavg
            self._measure(number, Subset.ALL if last else Subset.DEV)
            if self._settings.norm is Norm.FROZEN and not last:  # what came for measuring comes again with statistics
                self.traffic.dense_fedavg = booked
        loss, accuracy = self._evaluate(self.model)
        self._round = number
        seen = sum(update.seen for update in updates.values())
        record = RoundRecord(
            round=number,
            lr=lr,
            participants=tuple(updates),
            failures=tuple(p for p in self._nodes.problems if isinstance(p, Failure)),
            rejections=tuple(p for p in self._nodes.problems if isinstance(p, Rejection)),
            train_loss=sum(update.loss_sum for update in updates.values()) / seen,
            train_accuracy=sum(update.correct for update in updates.values()) / seen,
            loss=loss,
            accuracy=accuracy,
            density=self.density,
            densities=self.densities,
            adjustment=adjustment,
            bytes_down=self.traffic.down - down,
            bytes_up=self.traffic.up - up,
            flops=flops,
            link=since(link, self.traffic.link),
        )
        self._nodes.problems.clear()  # those of the preparation stood in the first record
        self._saved = self.state()
        self._journal.finished(record, self._saved)
        return record

    def _train(self, number: int, purpose: str, epochs: int, lr: float, training: Training | None = None) -> Train:
        """A round's local training."""
        settings, more = self._settings, training or Training()
        return Train(
            epochs=epochs,
            lr=lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            seed=self._seed(number, purpose),
            upload=settings.upload,
            extrude=dict(more.extrude),
            penalty=more.penalty,
            activations=more.activations,
            augment=settings.augment,
        )

    def _probe(self, model: Model, start: Start, probe: Probe) -> None:
        """Local training that decides on masks: its weights are dropped, and nodes are loaded anew without them."""
        before = self.traffic.dense_fedavg
        task = Train(epochs=probe.epochs, lr=probe.lr, momentum=0.0, weight_decay=0.0, seed=self._seed(0, "probe"))
        updates: dict[str, Update] = {}
        asked = [list(self._nodes.names)] if not probe.nodes else [[node] for node in self._nodes.names]
        for nodes in asked:
            if probe.nodes and len(updates) >= probe.nodes:
                break
            quorum = self._nodes.needed if not probe.nodes else 0
            found = self._ask("probe", 0, {node: [task] for node in nodes}, quorum=quorum)
            updates |= {node: _only(replies, Update) for node, replies in found.items()}
        if not updates:
            self._stop("probe", 0, 0)
        answers = [adjusting.answer_of(self._graph, update, self._masks) for update in updates.values()]
        most = max(answer.samples for answer in answers)
        self.costs.prepared(training_flops(self._graph, self.densities, samples=most, epochs=probe.epochs))
        self._install(self._method.settle(model, start, answers))
        self._nodes.holdings.forget_all()
        self._nodes.holdings.publish(self._masks)
        self.traffic.dense_fedavg = before  # dense averaging probes nothing, and loads its nodes once

    def _on_own_masks(
        self, number: int, request: Request, updates: Mapping[str, Update], tops: Mapping[str, TopK], task: Train
    ) -> tuple[dict[str, Update], dict[str, Masks]]:
        """The second half of a round in which every node has masks of its own: updates and masks by node."""
        graph = self._graph
        orders: dict[str, list[Task]] = {}
        under: dict[str, Masks] = {}
        for node, update in updates.items():
            answer = adjusting.answer_of(graph, update, self._masks, tops.get(node))
            own = self._method.own_masks(graph, self._masks, request, answer)
            under[node] = {**self._masks, **own}
            orders[node] = [adjusting.own_install(graph, update, self._masks, own), task]
        before = self.traffic.dense_fedavg
        answers = self._ask("adjust", number, orders, as_they_are=True)
        self.traffic.dense_fedavg = before
        for node in answers:
            self._nodes.holdings.diverged(node, request.k)
        return {node: _only(replies, Update) for node, replies in answers.items()}, {n: under[n] for n in answers}

    def _select(self, model: Model, start: Start, pool: Pool) -> None:
        """Module 1: global statistics per candidate by the law of total variance, then the smallest mean loss."""
        candidates = pool.thresholds
        stats = None
        if self._graph.batchnorms and start.adapt:
            measured = self._ask("select", 0, self._everyone(MeasureBn(subset=Subset.DEV, candidates=candidates)))
            moments = [_only(replies, Moments) for replies in measured.values()]
            counts = [answer.samples for answer in moments]
            rows = [[answer.moments[c] for answer in moments] for c in range(len(pool))]
            stats = np.stack([aggregate.combine_moments(self._graph, row, counts) for row in rows])
        task = Evaluate(subset=Subset.DEV, candidates=candidates, stats=stats)
        judged = [_only(replies, Evaluation) for replies in self._ask("select", 0, self._everyone(task)).values()]
        self.selection = choose(model, start.masks, pool, judged)
        chosen = self.selection.chosen
        self._install(pool.masks(chosen, model))
        if stats is not None:
            self._arrays |= unpack_stats(self._graph, stats[chosen])
        self._nodes.holdings.publish(self._masks)

    def _average(self, updates: Sequence[Update], own: Sequence[Masks] | None = None) -> None:
        if own is not None:
            self._arrays |= adjusting.average_own(self._graph, updates, own)
        else:
            values = aggregate.average_values([u.values for u in updates], [u.samples for u in updates])
            self._arrays |= unpack_values(self._graph, values, self.masks)
        if self._graph.batchnorms and self._settings.norm is not Norm.FROZEN:  # frozen norms measure nothing
            moments, counts = [u.moments for u in updates], [u.seen for u in updates]
            self._take_statistics(aggregate.combine_moments(self._graph, moments, counts))

    @property
    def _trains_with_stored_statistics(self) -> bool:
        return self._settings.norm is Norm.FROZEN or self._settings.last_layers > 0

    def _adjust(
        self,
        number: int,
        request: Request,
        *,
        tops: Sequence[TopK],
        answers: Sequence[Answer],
        before: Mapping[int, F32],
        travel: float,
    ) -> Adjustment:
        """The method's change of masks; what grows starts at 0."""
        reported = aggregate.average_topk(self._graph, tops) if tops else {}
        weights = adjusting.of_layers(self._arrays, self._graph)
        zeros = {layer: np.zeros_like(weights[layer]) for layer in request.k}
        seen = Seen(
            weights=weights,
            before=before,
            gradients=zeros | reported,
            answers=answers,
            travel=travel,
            round_number=number,
            seed=self._seed(number, "method"),
            memory=self._memory,
        )
        change = self._method.adjust(self._graph, self._masks, request, seen)
        self._arrays |= change.arrays
        if change.memory is not None:
            self._memory = dict(change.memory)
        self._install(self._masks | dict(change.masks))
        self._adjustments += 1
        return Adjustment(round=number, block=request.block, pruned=change.pruned, grown=change.grown)

    def _measure(self, number: int, subset: Subset) -> None:
        answers = self._ask("measure", number, self._everyone(MeasureBn(subset=subset)))
        moments = [_only(replies, Moments) for replies in answers.values()]
        rows, counts = [answer.moments[0] for answer in moments], [answer.samples for answer in moments]
        self._take_statistics(aggregate.combine_moments(self._graph, rows, counts))
        if self._settings.norm is Norm.FROZEN:  # nodes train on with these
            self._nodes.holdings.publish(self._masks)

    def _take_statistics(self, stats: F32) -> None:
        """Those of layers that do not train stay."""
        constants = self._graph.constants(self._settings.last_layers)
        found = unpack_stats(self._graph, stats).items()
        self._arrays |= {name: array for name, array in found if name not in constants}

    def _ask(
        self,
        phase: Phase,
        number: int,
        wanted: Mapping[str, Sequence[Task]],
        *,
        quorum: int | None = None,
        as_they_are: bool = False,
    ) -> dict[str, tuple[Reply, ...]]:
        """`Nodes.ask` with the current model on offer. Raises QuorumLost."""
        try:
            return self._nodes.ask(
                phase, number, wanted, self._offer(), self._masks, quorum=quorum, as_they_are=as_they_are
            )
        except TooFewAnswers as few:
            self._stop(phase, number, few.answered)

    def _stop(self, phase: Phase, number: int, answered: int) -> NoReturn:
        left_out = "; ".join(f"{problem.node}: {problem.reason}" for problem in self._nodes.problems[-5:])
        reason = (
            f"round {number}: only {answered} of {len(self._nodes.names)} nodes could be used ({phase}), the quorum is "
            f"{self._nodes.needed}. {left_out}. The state after round {max(self._saved.round, 0)} is kept: mend the "
            f"nodes and go on from there, or lower the quorum."
        )
        self._nodes.problems.clear()
        self._journal.stopped(self._saved, reason)
        self.restore(self._saved)
        raise QuorumLost(reason, self._saved)

    def _offer(self) -> Offer:
        """What a node that lacks it gets, packed once for all."""
        return Offer(
            load=lambda: load_task(self._graph, self._arrays, self._masks, self._method, self._settings),
            values=lambda: pack_values(self._graph, self._arrays, self.masks),
            stats=(lambda: pack_stats(self._graph, self._arrays)) if self._trains_with_stored_statistics else None,
        )

    def _install(self, masks: Masks) -> None:
        """Makes these the model's masks; what they prune becomes 0."""
        self._masks = {layer: mask.copy() for layer, mask in masks.items()}
        for layer, mask in self._masks.items():
            name = self._graph.layer_names[layer]
            self._arrays[name] = np.where(mask, self._arrays[name], np.float32(0))

    def _count_flops(
        self, densities: Mapping[str, float], request: Request | None, updates: Mapping[str, Update], epochs: int
    ) -> float:
        """The most that one device spent in this round."""
        settings, graph = self._settings, self._graph
        most = max(update.samples for update in updates.values())
        flops = training_flops(graph, densities, samples=most, epochs=epochs)
        if request is not None and request.k:
            names = [graph.layer_names[layer] for layer in request.k]
            scored = min(most, request.batches * settings.micro_batch)
            flops += score_flops(graph, densities, names, samples=scored)
        self.flops_per_round_max = max(self.flops_per_round_max, flops)
        self.costs.round(graph, densities, flops, {} if request is None else request.k)
        dense = training_flops(graph, None, samples=most, epochs=settings.epochs)
        self.flops_dense_per_round = max(self.flops_dense_per_round, dense)
        return flops

    def _seed(self, number: int, purpose: str) -> int:
        """32 bits that depend on (seed, round, purpose) alone."""
        text = f"{self._settings.seed}/{number}/{purpose}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")

    def _everyone(self, task: Task) -> dict[str, Sequence[Task]]:
        return {node: [task] for node in self._nodes.names}


def _only(replies: Sequence[Reply], kind: type[R]) -> R:
    """The reply of a kind; checked before that there is one."""
    return next(reply for reply in replies if isinstance(reply, kind))
