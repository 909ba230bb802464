"""One node of a wire fleet: its tasks over one connection, and what it must be sent again after it lost its memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedtiny.federation.tasks import Install, Load, NodeHistory, PutData, Reply, Task, Train
from fedtiny.fleet.encoding import Packer, reply_of
from fedtiny.fleet.history import Times
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Answer, Job
from fedtiny.link.messages import Hello, TaskKind
from fedtiny_export.core import status_text
from fedtiny_export.errors import FleetError, NoAnswer, NodeRestarted

RESTARTS = 5  # of one node within one task; then it is broken


@dataclass(frozen=True)
class Held:
    """What a node must hold to go on, as the tasks that bring it there."""

    samples: PutData | None = None
    load: Load | None = None
    install: Install | None = None
    trained: Train | None = None

    def after(self, task: Task) -> Held:
        match task:
            case PutData():
                return replace(self, samples=task)
            case Load():
                return Held(samples=self.samples, load=task)
            case Install():
                before = self.install
                masks = {**(before.masks if before else {}), **task.masks}
                stats = task.stats if task.stats is not None or before is None else before.stats
                return replace(self, install=Install(values=task.values, masks=masks, stats=stats), trained=None)
            case Train():
                return replace(self, trained=task)
        return self

    def before(self, task: Task) -> list[Task]:
        """What a node without memory needs before it can do this task."""
        if isinstance(task, PutData):
            return []
        wanted: list[Task | None] = [self.samples]
        if not isinstance(task, Load):
            wanted += [self.load, self.install, None if isinstance(task, Install) else self.trained]
        return [step for step in wanted if step is not None]


class WireNode:
    """One node and its connection; lives in the event loop."""

    def __init__(self, connection: Connection, log: deque[str], away_s: float) -> None:
        self.connection = connection
        self.log = log
        self._away_s = away_s
        self._away: NoAnswer | None = None  # it was silent when it was last asked
        self._opened = False
        self._held = Held()
        self._times = Times()
        self._refused = 0  # tasks
        self._heard_at: float | None = None  # time.time of the last sign of life
        self._first_boot: int | None = None
        self._in_memory = False  # the node has what `_held` says

    @property
    def name(self) -> str:
        return self.connection.device

    def saw(self, hello: Hello, now: float) -> None:
        """A session began."""
        self._heard_at = now
        if self._first_boot is None:
            self._first_boot = hello.boot_counter

    def history(self) -> NodeHistory:
        traffic, hello = self.connection.traffic, self.connection.hello
        return NodeHistory(
            tasks=self._times.by_kind(),
            arena_bytes=hello.arena_bytes if hello else None,
            resets=hello.boot_counter - self._first_boot if hello and self._first_boot is not None else 0,
            sessions=traffic.sessions,
            refused=self._refused,
            dropped=dict(traffic.dropped),
            asked_again=traffic.asked_again,
            resent=traffic.resent_blocks,
            last_seen=self._heard_at,
        )

    async def serve(self, tasks: Sequence[Task], packer: Packer) -> tuple[Reply, ...]:
        """Raises LinkError and the like; what the node has in memory is then not relied on."""
        for task in tasks:
            if isinstance(task, PutData):  # wanted, whether it arrives now or later
                self._held = self._held.after(task)
        try:
            await self.reach()
            replies = [await self._do(task, packer) for task in tasks]
        except BaseException as problem:
            self._in_memory = False
            self._away = problem if isinstance(problem, NoAnswer) else None
            raise
        self._away = None
        return tuple(replies)

    async def reach(self) -> Hello:
        """A session, with what the node says of itself. Raises LinkError."""
        if not self._opened:
            await self.connection.open()
            self._opened = True
        if self._away is None:
            return await self.connection.reach()
        try:  # it was invited all the time: one that is back answers a small question in a moment
            async with asyncio.timeout(self._away_s):
                hello = await self.connection.reach()
                with contextlib.suppress(NodeRestarted):
                    await self.connection.ask(Job(TaskKind.DESCRIBE))
                return hello
        except TimeoutError:
            raise self._away from None

    async def _do(self, task: Task, packer: Packer) -> Reply:
        restarted: NodeRestarted | None = None
        for attempt in range(RESTARTS):
            try:
                if not self._in_memory:
                    for step in self._held.before(task):
                        await self._ask(step, packer, attempt)
                reply = await self._ask(task, packer, attempt)
            except NodeRestarted as problem:
                self._in_memory, restarted = False, problem
                continue
            self._held, self._in_memory = self._held.after(task), True
            return reply
        raise FleetError(f"{self.name}: it restarted {RESTARTS} times in one task. {restarted}")

    async def _ask(self, task: Task, packer: Packer, attempt: int) -> Reply:
        hello = self.connection.hello or await self.connection.reach()
        answers = []
        with self._times.of(task):
            for job in packer.jobs(task, hello.max_object):
                answers.append(await self.connection.ask(replace(job, attempt=attempt)))
                self._heard_at = time.time()
                if answers[-1].status:
                    self._refused += 1
                    raise FleetError(f"{self.name}: {_refusal(task, answers[-1], hello)}")
        return reply_of(task, answers, hello)


def _refusal(task: Task, answer: Answer, hello: Hello) -> str:
    what, words = type(task).__name__, status_text(answer.status)
    more = f" ({answer.problem})" if answer.problem not in ("", words) else ""
    advice = ""
    if isinstance(task, Load):
        advice = (
            f" It has {hello.arena_bytes:,} bytes for samples, model and work. Set fleet.ram_bytes to what is free: "
            "then it is said which settings make the model fit."
        )
    return f"it cannot do {what}: {words}{more}.{advice}"
