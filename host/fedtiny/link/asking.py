"""What is asked of one node, one job at a time: told until it hears, worked on, the reply's objects fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from fedtiny.link import objects
from fedtiny.link.frames import FIRST_PAYLOAD, FrameError, FrameType
from fedtiny.link.messages import Ack, ObjectKind, ObjectRef, Reply, Request, Task, TaskKind, encode
from fedtiny.link.objects import Budget, Inbox, Outbox, Payload
from fedtiny.link.traffic import Traffic
from fedtiny_export.errors import LinkError, NoAnswer, ObjectDamaged

TASK_S, TASK_LONGEST_S = 0.5, 4.0
WORKING_S, WORKING_LONGEST_S = 1.0, 5.0
DEAF_TRIES = 4  # messages without an answer after which the session is taken for lost
WORKING_DEAF_TRIES = 12  # the same for a node that may just be busy: about a minute


@dataclass(frozen=True)
class Carrier:
    """What is to be known of a link: a byte stream or whole frames, its largest payload, bytes per second if known.

    `budget`: where many nodes share a carrier, how much may be under way to and from them all.
    """

    name: str
    stream: bool = True
    max_payload: int = FIRST_PAYLOAD
    bytes_per_s: float | None = None
    budget: Budget | None = None

    @property
    def window(self) -> int:
        """Blocks in flight: 0.7 s of the line, so that half of it hides a round trip, and a lost tail costs little."""
        if self.bytes_per_s is None:
            return objects.REQUEST_SPAN
        return max(8, min(objects.REQUEST_SPAN, int(0.7 * self.bytes_per_s / self.max_payload)))


@dataclass(frozen=True)
class Job:
    """A task for a node. `limit_s`: how long it may work on it after it has everything."""

    kind: TaskKind
    run: bytes = bytes(8)
    round: int = 0
    attempt: int = 0
    parameters: tuple[int | float, ...] = ()
    objects: tuple[Payload, ...] = ()
    limit_s: float = 600.0


@dataclass(frozen=True)
class Answer:
    """A node's reply: the core's ft_status, results in the order of PROTOCOL.md, objects, what went wrong in words."""

    status: int
    results: tuple[int | float, ...]
    objects: tuple[Payload, ...]
    problem: str


class Ticket:
    """A job under way: `answer` or `error` is there once `done`."""

    def __init__(self, job: Job, number: int, on_done: Callable[[Ticket], None]) -> None:
        self.job = job
        self.number = number
        self.answer: Answer | None = None
        self.error: LinkError | None = None
        self._on_done = on_done

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None

    def finish(self, result: Answer | LinkError) -> None:
        if self.done:
            return
        if isinstance(result, LinkError):
            self.error = result
        else:
            self.answer = result
        self._on_done(self)


class Timer:
    """A deadline that moves away by doubling."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first, self._longest = first_s, longest_s
        self._wait = first_s
        self.tries = 0
        self.at: float | None = None

    def start(self, now: float) -> None:
        self._wait, self.tries, self.at = self._first, 0, now

    def due(self, now: float) -> bool:
        return self.at is not None and now >= self.at

    def again(self, now: float, at_least: float = 0.0) -> None:
        self.at = now + max(self._wait, at_least)
        self._wait = min(2 * self._wait, self._longest)
        self.tries += 1

    def stop(self) -> None:
        self.at = None


class _Phase(Enum):
    IDLE = auto()
    TELLING = auto()  # TASK is repeated until the node says that it heard
    WORKING = auto()
    FETCHING = auto()  # the reply's objects come in


class Asking:
    """The asking side of an endpoint. `send` queues a message of the running session; `session_lost`: nothing is
    answered, shake hands anew (unless that is under way); `wake`: call `tick` soon.

    Objects survive a session: `resume` goes on with what is missing.
    """

    def __init__(
        self,
        device: str,
        carrier: Carrier,
        traffic: Traffic,
        *,
        max_object: int,
        send: Callable[[FrameType, bytes], None],
        session_lost: Callable[[float], None],
        wake: Callable[[], None],
    ) -> None:
        self.device = device
        self.outbox, self.inbox = Outbox(), Inbox()
        self.block_bytes = FIRST_PAYLOAD - objects.BLOCK_HEADER
        self.ticket: Ticket | None = None
        self.in_line = False  # a task or reply has objects for which the carrier's budget has no room yet
        self._carrier, self._traffic, self._max_object = carrier, traffic, max_object
        self._send, self._session_lost, self._wake = send, session_lost, wake
        self._phase = _Phase.IDLE
        self._telling = Timer(TASK_S, TASK_LONGEST_S)
        self._working = Timer(WORKING_S, WORKING_LONGEST_S)
        self._fetching = Timer(objects.FIRST_TIMEOUT_S, objects.LAST_TIMEOUT_S)
        self._limit: float | None = None
        self._reply: Reply | None = None
        self._damaged = False

    # -- one job

    def begin(self, ticket: Ticket) -> None:
        """A job, to be told when `resume` says that there is a session."""
        self.ticket = ticket
        self.outbox.offer(ticket.job.objects)
        self.inbox.want((), 1)
        self._reply, self._damaged, self._limit = None, False, None
        self._phase = _Phase.TELLING

    def resume(self, now: float) -> None:
        """A session runs: tells the node what is under way; transfers go on with what is missing."""
        if self._phase is not _Phase.FETCHING:
            self._phase = _Phase.TELLING
            self._begin_telling(now)
            return
        if self._reply and self._reply.objects:
            self.inbox.want(self._reply.objects, self.block_bytes)
        self._begin_fetching(now)
        self._tell()  # the node may need to hear of the task to find its objects

    def pause(self) -> None:
        """The session is over."""
        self._fetching.stop()
        self._leave_line()

    def end(self, result: Answer | LinkError) -> None:
        ticket, self.ticket = self.ticket, None
        self._phase = _Phase.IDLE
        self._limit = None
        self._leave_line()
        for timer in (self._telling, self._working, self._fetching):
            timer.stop()
        if ticket is not None:
            ticket.finish(result)

    @property
    def working(self) -> bool:
        """The node may be at work, and not hear."""
        return self._phase is _Phase.WORKING

    # -- time

    def deadlines(self, *, in_session: bool) -> list[float]:
        times = [self._limit]
        if in_session and self.ticket is not None:
            timers = {
                _Phase.TELLING: self._telling,
                _Phase.WORKING: self._working,
                _Phase.FETCHING: self._fetching,
            }
            times += [timers[self._phase].at] if self._phase in timers else []
            times += [self._carrier.budget.deadline(self)] if self.in_line and self._carrier.budget else []
        return [time for time in times if time is not None]

    def tick(self, now: float) -> None:
        """Repeats what was not answered in time; only in a session."""
        if self.ticket is None:
            return
        if self.in_line and self._phase is _Phase.TELLING:
            self._begin_telling(now)
        elif self.in_line:
            self._begin_fetching(now)
        if self._phase is _Phase.TELLING and self._telling.due(now):
            self._repeat(self._telling, now)
        elif self._phase is _Phase.WORKING and self._working.due(now):
            self._repeat(self._working, now)
        elif self._phase is _Phase.FETCHING and self._fetching.due(now):
            self._fetch_again(now)

    def check_limit(self, now: float) -> None:
        if self._limit is not None and now >= self._limit and self.ticket:
            limit = self.ticket.job.limit_s
            self.end(
                NoAnswer(
                    f"{self.device}: it did not finish its task within {limit:g} s. Raise the limit, or look at the "
                    "node.",
                    self.device,
                )
            )

    # -- telling

    def _begin_telling(self, now: float) -> None:
        """Sends the task when it is this node's turn to fetch the task's objects."""
        assert self.ticket is not None
        if self._has_turn(sum(len(payload.data) for payload in self.ticket.job.objects), now):
            self._telling.start(now)
        else:
            self._telling.stop()

    def _tell(self) -> None:
        assert self.ticket is not None
        job = self.ticket.job
        task = Task(
            self.ticket.number,
            job.run,
            job.round,
            job.attempt,
            job.kind,
            job.parameters or None,
            tuple(payload.ref for payload in job.objects) or None,
        )
        self._send(FrameType.TASK, encode(task))

    def _repeat(self, timer: Timer, now: float) -> None:
        """TASK once more, unless blocks for it still wait here; a new handshake where the session seems lost."""
        deaf = DEAF_TRIES if timer is self._telling else WORKING_DEAF_TRIES
        if timer.tries >= deaf and self.outbox.empty:
            self._session_lost(now)
        if self.outbox.empty or timer.tries == 0:
            self._tell()
        timer.again(now)

    def on_request(self, request: Request, now: float) -> None:
        if not self.outbox.on_request(request, self.block_bytes):
            raise FrameError("request")
        if self._phase is _Phase.TELLING:  # it has heard; the ACK comes when all is there
            self._telling.start(now)
            self._telling.again(now, TASK_LONGEST_S)
        if self._limit is not None and self.ticket:  # it does not work yet, it still fetches
            self._limit = now + self.ticket.job.limit_s

    def on_ack(self, ack: Ack, now: float) -> None:
        if self.ticket is None or ack.number != self.ticket.number:
            return
        if self._phase is _Phase.TELLING:
            self._start_working(now, self.ticket.job.limit_s)
        elif self._phase is _Phase.WORKING:
            self._working.tries = 0  # it hears

    def _start_working(self, now: float, limit_s: float) -> None:
        self._leave_line()
        self._phase = _Phase.WORKING
        self._working.start(now)
        self._working.again(now)
        if self._limit is None:  # a new session in between gives no new time
            self._limit = now + limit_s

    # -- fetching

    def on_reply(self, reply: Reply, now: float) -> None:
        ticket = self.ticket
        if ticket is None or reply.number != ticket.number:
            self._traffic.repeated_messages += 1
            self._send(FrameType.ACK, encode(Ack(reply.number)))
            return
        if self._reply is not None:
            self._traffic.repeated_messages += 1
            return
        job = ticket.job
        if (reply.run, reply.round, reply.attempt) != (job.run, job.round, job.attempt):
            raise FrameError("binding")
        refs = reply.objects or ()
        if sum(ref.length for ref in refs) > self._max_object:
            self.end(
                LinkError(
                    f"{self.device}: its reply has {sum(r.length for r in refs)} bytes, more than the "
                    f"{self._max_object} allowed. Look at its firmware.",
                    self.device,
                )
            )
            return
        self._reply = reply
        self._phase = _Phase.FETCHING
        self._limit = None
        self.inbox.want(refs, self.block_bytes)
        self._begin_fetching(now)

    def _begin_fetching(self, now: float) -> None:
        """Asks for the reply's objects when it is this node's turn."""
        if self._has_turn(self.inbox.missing_bytes, now):
            self._fetching.start(now)
            self._go_on_fetching(now)

    def on_data(self, payload: bytes, now: float) -> str:
        """The label of the frame, for counting."""
        found = self.inbox.on_data(payload)
        if found is None:
            self._traffic.repeated_blocks += 1
            return "data.unknown"
        download, new = found
        if new:
            self._fetching.start(now)
        else:
            self._traffic.repeated_blocks += 1
        self._go_on_fetching(now)
        return f"data.{download.ref.kind.name.lower()}"

    def _go_on_fetching(self, now: float) -> None:
        if self._phase is not _Phase.FETCHING or self._reply is None or self.in_line:
            return
        while (download := self.inbox.current) is not None and download.complete:
            again = download.asked_again
            if not self.inbox.finish(download):
                if self._damaged or download.ref.length == 0:
                    self.end(self._damaged_error(download.ref))
                    return
                self._damaged = True
                break
            self._traffic.asked_again += again
        if download is None:
            self._finish(self._reply)
            return
        before = download.in_flight
        for request in download.requests(self._carrier.window):
            self._send(FrameType.REQUEST, encode(request))
        if download.in_flight > before or self._fetching.due(now):
            self._fetching.again(now, self._line_time(download.in_flight))

    def _line_time(self, blocks: int) -> float:
        """Twice what so many blocks take on the line."""
        rate = self._carrier.bytes_per_s
        return 2 * blocks * (self.block_bytes + 40) / rate if rate else 0.0

    def _fetch_again(self, now: float) -> None:
        download = self.inbox.current
        if download is None:
            self._fetching.stop()
            return
        if self._fetching.tries > DEAF_TRIES:
            self._session_lost(now)
        if self._fetching.tries > objects.TIMEOUTS_BEFORE_PAUSE:
            self._tell()
        if download.in_flight:
            self._traffic.asked_again += download.in_flight
            download.nothing_asked()
        for request in download.requests(self._carrier.window):
            self._send(FrameType.REQUEST, encode(request))
        self._fetching.again(now, self._line_time(download.in_flight))

    def _finish(self, reply: Reply) -> None:
        found = self.inbox.take(reply.objects or ())
        self._send(FrameType.ACK, encode(Ack(reply.number)))
        self.end(Answer(reply.status, reply.results or (), found, reply.problem or ""))

    def _damaged_error(self, ref: ObjectRef) -> ObjectDamaged:
        return ObjectDamaged(
            f"{self.device}: its object {ObjectKind(ref.kind).name.lower()} ({ref.length} bytes) came twice with bytes "
            "that do not have the announced hash. Reset the node; if it stays so, its memory or firmware is at fault.",
            self.device,
        )

    # -- turns on a carrier that many share

    def _has_turn(self, count: int, now: float) -> bool:
        budget, count = self._carrier.budget, min(count, self._carrier.window * self.block_bytes)
        self.in_line = budget is not None and count > 0 and not budget.take(self, count, now, self._wake)
        return not self.in_line

    def _leave_line(self) -> None:
        self.in_line = False
        if self._carrier.budget:
            self._carrier.budget.give_back(self)
