"""The nodes as the server asks them: who holds what, which answers count, and what all of it moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from fedtiny.federation import aggregate
from fedtiny.federation.cost import Costs
from fedtiny.federation.holdings import Holdings, Offer
from fedtiny.federation.journal import Journal
from fedtiny.federation.records import Event, Failure, Phase, Rejection
from fedtiny.federation.tasks import Fleet, Install, Loaded, NodeFailure, Reply, Task, Update
from fedtiny.federation.traffic import Traffic
from fedtiny.pruning.pool import Masks
from fedtiny_export.graph import Graph


class TooFewAnswers(Exception):
    """Fewer nodes than the quorum answered usefully; `answered` did."""

    def __init__(self, answered: int) -> None:
        super().__init__(f"{answered} nodes answered")
        self.answered = answered


def quorum_of(share: float, nodes: int) -> int:
    """How many of so many nodes must answer."""
    return max(1, math.ceil(share * nodes - 1e-9))


class Nodes:
    """`needed`: how many must answer. `problems`: what kept nodes out since the last finished round."""

    def __init__(
        self,
        fleet: Fleet,
        graph: Graph,
        *,
        quorum: float,
        traffic: Traffic,
        costs: Costs,
        journal: Journal,
        listen: Callable[[Event], None],
    ) -> None:
        self._fleet, self._graph = fleet, graph
        self._traffic, self._costs, self._journal, self._listen = traffic, costs, journal, listen
        self.holdings = Holdings(fleet.nodes)
        self.needed = quorum_of(quorum, len(fleet.nodes))
        self.problems: list[Failure | Rejection] = []
        self.plans: dict[str, Loaded] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order that aggregation uses."""
        return self._fleet.nodes

    def ask(
        self,
        phase: Phase,
        number: int,
        wanted: Mapping[str, Sequence[Task]],
        offer: Offer,
        masks: Masks,
        *,
        quorum: int | None = None,
        as_they_are: bool = False,
    ) -> dict[str, tuple[Reply, ...]]:
        """Brings each node to what is on offer, has it do its tasks, and returns accepted answers (to `wanted`) in
        node order.

        `masks`: of the model on offer. `quorum`: how many must answer, where that is not the run's. `as_they_are`:
        nodes are not brought up to date. Updates are journaled as they are accepted. Raises TooFewAnswers.
        """
        orders: dict[str, list[Task]] = {}
        for node, tasks in wanted.items():
            orders[node] = [*([] if as_they_are else self.holdings.missing(node, offer)), *tasks]
            self._costs.given(node, orders[node])
            for task in orders[node]:
                self._traffic.sent(task, only_choice=number <= 1 and phase != "measure")
                if isinstance(task, Install):
                    changed = ((masks[layer], len(mask.data)) for layer, mask in task.masks.items())
                    self._traffic.changed_masks((mask.size, int(mask.sum()), count) for mask, count in changed)
        orders = {node: tasks for node, tasks in orders.items() if tasks}
        accepted: dict[str, tuple[Reply, ...]] = {}
        done: set[str] = set()
        for node, answer in self._fleet.ask(orders, round_number=number):
            done.add(node)
            problem = self._accept(phase, number, node, orders[node], answer, masks)
            if problem is None and not isinstance(answer, NodeFailure):
                accepted[node] = answer[len(orders[node]) - len(wanted[node]) :]
            event = Event(round=number, phase=phase, node=node, done=len(done), asked=len(orders), problem=problem)
            self._listen(event)
        self._traffic.heard(self._fleet.link_bytes())
        for node in orders.keys() - done:
            self._accept(phase, number, node, orders[node], NodeFailure(reason="it did not answer"), masks)
        if len(accepted) < (self.needed if quorum is None else quorum):
            raise TooFewAnswers(len(accepted))
        return {node: accepted[node] for node in self._fleet.nodes if node in accepted}

    def _accept(
        self,
        phase: Phase,
        number: int,
        node: str,
        tasks: Sequence[Task],
        answer: tuple[Reply, ...] | NodeFailure,
        masks: Masks,
    ) -> str | None:
        """Books one node's answer; returns why it does not count, or None."""
        if isinstance(answer, NodeFailure):
            self.holdings.forget(node)  # it may have restarted without its model
            self.problems.append(Failure(node=node, phase=phase, reason=answer.reason))
            return answer.reason
        for task, reply in zip(tasks, answer, strict=False):
            self._traffic.received(task, reply, only_choice=number <= 1 and phase != "measure")
        problem = self._problem(tasks, answer, masks)
        if problem is not None:
            self.holdings.forget(node)
            self.problems.append(Rejection(node=node, phase=phase, reason=problem))
            return problem
        self.holdings.did(node, tasks)
        for reply in answer:
            if isinstance(reply, Loaded):
                self.plans[node] = reply
            elif isinstance(reply, Update):
                self._journal.accepted(number, node, reply)
        return None

    def _problem(self, tasks: Sequence[Task], replies: Sequence[Reply], masks: Masks) -> str | None:
        if len(replies) != len(tasks):
            return f"{len(replies)} replies to {len(tasks)} tasks"
        for task, reply in zip(tasks, replies, strict=True):
            problem = aggregate.reply_problem(task, reply, self._graph, masks)
            if problem is not None:
                return problem
        return None
