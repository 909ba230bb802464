"""The host's end of the wire to one node, without I/O: bytes and time come in, frames and answers come out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from fedtiny.link import objects
from fedtiny.link.frames import FIRST_PAYLOAD, Frame, FrameError, FrameType, Noise, Splitter, stuff, unseal
from fedtiny.link.messages import (
    Ack,
    Announce,
    Hello,
    ObjectKind,
    ObjectRef,
    Profile,
    Reply,
    Request,
    Task,
    TaskKind,
    decode,
    encode,
)
from fedtiny.link.objects import Budget, Inbox, Outbox, Payload
from fedtiny.link.session import Agreed, Handshake, Identity, Random, Session, enrol_frame, is_enrolled, refused
from fedtiny.link.traffic import Traffic
from fedtiny_export.errors import LinkError, MessageError, NoAnswer, NodeRefused, NodeRestarted, ObjectDamaged

INVITE_S, INVITE_LONGEST_S = 0.25, 2.0
TASK_S, TASK_LONGEST_S = 0.5, 4.0
WORKING_S, WORKING_LONGEST_S = 1.0, 5.0
DEAF_TRIES = 4  # messages without an answer after which the session is taken for lost
WORKING_DEAF_TRIES = 12  # the same for a node that may just be busy: about a minute
REFUSED_S = 5.0  # a refusal may be forged: the genuine answer has so long to come
NOISE_TEXT = 200  # bytes of noise in one line of the log


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


_DONE = Answer(0, (), (), "")


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


_REPEATED = frozenset((FrameType.INVITE, FrameType.WELCOME, FrameType.ENROL, FrameType.TASK))


class _Phase(Enum):
    IDLE = auto()
    TELLING = auto()  # TASK is repeated until the node says that it heard
    WORKING = auto()
    FETCHING = auto()  # the reply's objects come in


class _Timer:
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


def _ignore_text(text: str) -> None:
    pass


def _ignore_hello(hello: Hello) -> None:
    pass


def _no_need_to_wake() -> None:
    pass


class Endpoint:
    """Feed it what comes, send what `outgoing` gives, call `tick` at `next_deadline`; times: one monotonic clock.

    `patience_s`: after so long without a sign of life from a node that was asked something, `NoAnswer`. `on_log` gets
    a node's LOG lines and what is no frame; `on_session` each HELLO that led to a session: store its boot counter
    before the next start of this program. `wake`: call `tick` soon, whatever `next_deadline` said.
    """

    def __init__(
        self,
        identity: Identity,
        carrier: Carrier,
        *,
        random: Random,
        patience_s: float = 30.0,
        max_object: int = 64 << 20,
        on_log: Callable[[str], None] = _ignore_text,
        on_session: Callable[[Hello], None] = _ignore_hello,
        wake: Callable[[], None] = _no_need_to_wake,
    ) -> None:
        self.identity = identity
        self.carrier = carrier
        self.traffic = Traffic()
        self.hello: Hello | None = None
        self.announced: Announce | None = None
        self._random = random
        self._patience = patience_s
        self._max_object = max_object
        self._on_log = on_log
        self._on_session = on_session
        self._wake = wake
        self._splitter = Splitter(carrier.max_payload)
        self._up = False
        self._link_problem = ""
        self._spoke = False  # something was sent since the last pause
        self._control: deque[tuple[FrameType, bytes, bool]] = (
            deque()
        )  # kind, frame or payload, whether it is sealed already

        self._session: Session | None = None
        self._handshake: Handshake | None = None
        self._agreed: Agreed | None = None
        self._hands = _Timer(INVITE_S, INVITE_LONGEST_S)
        self._problem: NodeRefused | None = None  # why there is no session, as far as known
        self._refused_at = 0.0
        self._restarted = False

        self._reaching: list[Ticket] = []
        self._enrolling: tuple[str, bytes, Ticket] | None = None
        self._enrol = _Timer(TASK_S, TASK_LONGEST_S)

        self._number = int.from_bytes(random(4), "little")
        self._ticket: Ticket | None = None
        self._phase = _Phase.IDLE
        self._telling = _Timer(TASK_S, TASK_LONGEST_S)
        self._working = _Timer(WORKING_S, WORKING_LONGEST_S)
        self._limit: float | None = None
        self._life = 0.0  # when the node last said something, or was first asked
        self._reply: Reply | None = None
        self._damaged = False
        self._outbox, self._inbox = Outbox(), Inbox()
        self._fetching = _Timer(objects.FIRST_TIMEOUT_S, objects.LAST_TIMEOUT_S)
        self._in_line = False  # a task or reply has objects for which the carrier's budget has no room yet

    # -- what the caller does

    @property
    def connected(self) -> bool:
        """A session with the node is running."""
        return self._session is not None

    def link_up(self, now: float) -> None:
        """The carrier is there (again): shake hands. What was fetched or sent so far counts."""
        self._up = True
        self._link_problem = ""
        self._spoke = False
        self._splitter = Splitter(self.carrier.max_payload)
        self._shake_hands(now)

    def link_down(self, problem: str = "") -> None:
        """The carrier is gone, for this reason; `NoAnswer` will name it."""
        self._up = False
        self._link_problem = problem
        self._session = None
        self._drop_handshake()
        self._control.clear()
        self._fetching.stop()
        self._leave_line()

    def ask(self, job: Job, now: float, on_done: Callable[[Ticket], None] = lambda _: None) -> Ticket:
        """Starts a job; one at a time. The ticket ends with an Answer or a LinkError."""
        if self._ticket is not None:
            raise RuntimeError(f"{self.identity.device} is asked two things at once")
        self._number = (self._number + 1) & 0xFFFFFFFF
        ticket = Ticket(job, self._number, on_done)
        if self._restarted:
            self._restarted = False
            ticket.finish(self._restarted_error())
            return ticket
        self._ticket = ticket
        self._outbox.offer(job.objects)
        self._inbox.want((), 1)
        self._reply, self._damaged, self._limit = None, False, None
        self._life = now
        self._phase = _Phase.TELLING
        self._begin_telling(now)
        if self._up and self._session is None and self._handshake is None:
            self._shake_hands(now)
        return ticket

    def reach(self, now: float, on_done: Callable[[Ticket], None] = lambda _: None) -> Ticket:
        """A ticket that ends when a session runs."""
        ticket = Ticket(Job(TaskKind.DESCRIBE), 0, on_done)
        if self._session is not None:
            ticket.finish(_DONE)
            return ticket
        self._reaching.append(ticket)
        if self._ticket is None:
            self._life = now
        if self._up and self._handshake is None:
            self._shake_hands(now)
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket any more."""
        if ticket is self._ticket:
            self._end(LinkError(f"{self.identity.device}: nobody waits for the answer any more", self.identity.device))
        if ticket in self._reaching:
            self._reaching.remove(ticket)
        if self._enrolling and ticket is self._enrolling[2]:
            self._enrolling = None

    def enrol(self, key: bytes, now: float, on_done: Callable[[Ticket], None] = lambda _: None) -> Ticket:
        """Gives a node that has none this key, in the clear; then the endpoint's identity has it."""
        ticket = Ticket(Job(TaskKind.DESCRIBE), 0, on_done)
        self._enrolling = (self.identity.device, key, ticket)
        self._drop_handshake()
        self._life = now
        self._enrol.start(now)
        return ticket

    def say_goodbye(self) -> None:
        """Ends the session; the frame is the next of `outgoing`."""
        if self._session is not None:
            self._send(FrameType.BYE, b"")

    def feed(self, data: bytes, now: float) -> None:
        """Bytes of a stream in any pieces, or one whole frame. Never raises on what a node sends."""
        self.traffic.up_bytes += len(data)
        if not self.carrier.stream:
            self._on_bytes(data, len(data), now)
            return
        for piece in self._splitter.feed(data):
            if isinstance(piece, Noise):
                self._on_noise(piece)
            else:
                self._on_bytes(piece.frame, piece.stream_bytes, now)

    def _on_noise(self, noise: Noise) -> None:
        self.traffic.noise_bytes += len(noise.data)
        text = noise.data.decode("utf-8", "replace").strip()
        if text:
            self._on_log(text[:NOISE_TEXT])

    def outgoing(self, now: float) -> bytes | None:
        """The next frame for the carrier, or None. Ask only while the carrier takes more: here nothing waits twice."""
        if not self._up:
            return None
        if self._session and self._session.used_up:
            self._session = None
            self._shake_hands(now)
        frame = self._next_control() or self._next_data()
        if frame is None:
            self._spoke = False
        return frame

    def next_deadline(self) -> float | None:
        """When `tick` wants to be called, at the latest."""
        times = [self._silence_ends()] if self._ticket or self._enrolling or self._reaching else []
        times += [t for t in (self._limit,) if t is not None]
        if self._in_line and self.carrier.budget and (turn := self.carrier.budget.deadline(self)) is not None:
            times.append(turn)
        if self._up:
            times += [t.at for t in self._timers() if t.at is not None]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Repeats what was not answered in time, and gives up on what never was."""
        if self._in_line and self._phase is _Phase.TELLING:
            self._begin_telling(now)
        elif self._in_line:
            self._begin_fetching(now)
        self._give_up(now)
        if not self._up:
            return
        if self._hands.due(now):
            self._repeat_handshake(now)
        if self._enrolling and self._enrol.due(now):
            self._queue(FrameType.ENROL, enrol_frame(*self._enrolling[:2]), sealed=True)
            self._enrol.again(now)
        if self._session is None or self._ticket is None:
            return
        if self._phase is _Phase.TELLING and self._telling.due(now):
            self._repeat(self._telling, now)
        elif self._phase is _Phase.WORKING and self._working.due(now):
            self._repeat(self._working, now)
        elif self._phase is _Phase.FETCHING and self._fetching.due(now):
            self._fetch_again(now)

    def _timers(self) -> list[_Timer]:
        timers = [self._hands]
        if self._enrolling:
            timers.append(self._enrol)
        if self._session is not None and self._ticket is not None:
            by_phase = {
                _Phase.TELLING: self._telling,
                _Phase.WORKING: self._working,
                _Phase.FETCHING: self._fetching,
            }
            timers += [by_phase[self._phase]] if self._phase in by_phase else []
        return timers

    # -- sending

    def _next_control(self) -> bytes | None:
        if not self._control:
            return None
        kind, data, sealed = self._control.popleft()
        if not sealed and self._session is None:
            return self._next_control()
        if kind is FrameType.BYE and self._session is not None:
            frame, self._session = self._session.seal(kind, data), None
        else:
            frame = data if sealed or self._session is None else self._session.seal(kind, data)
        return self._out(kind.name.lower(), frame)

    def _next_data(self) -> bytes | None:
        if self._session is None:
            return None
        block = self._outbox.next_block(self._block_bytes)
        if block is None:
            return None
        self.traffic.resent_blocks = self._outbox.resent_blocks
        return self._out(f"data.{block[0].name.lower()}", self._session.seal(FrameType.DATA, block[1]))

    def _out(self, label: str, frame: bytes) -> bytes:
        if self.carrier.stream:
            frame = stuff(frame) if self._spoke else b"\0" + stuff(frame)
            self._spoke = True
        self.traffic.sent(label, len(frame))
        return frame

    @property
    def _block_bytes(self) -> int:
        return (self.hello.max_payload if self.hello else FIRST_PAYLOAD) - objects.BLOCK_HEADER

    # -- handshake

    def _shake_hands(self, now: float) -> None:
        """A running session goes on until the new one is agreed."""
        if self._enrolling:
            return
        before = self._session.number if self._session else 0
        self._handshake = Handshake(
            self.identity, max_payload=self.carrier.max_payload, random=self._random, session_before=before
        )
        self._agreed = None
        self._hands.start(now)

    def _drop_handshake(self) -> None:
        self._handshake = self._agreed = None
        self._hands.stop()

    def _repeat_handshake(self, now: float) -> None:
        if self._handshake is None:
            self._hands.stop()
            return
        if self._agreed and self._hands.tries > DEAF_TRIES + 2:
            self._shake_hands(now)  # the node has forgotten its HELLO
        if self._agreed:
            self._queue(FrameType.WELCOME, self._agreed.welcome, sealed=True)
        elif self._handshake:
            self._queue(FrameType.INVITE, self._handshake.invite, sealed=True)
        self._hands.again(now)

    def _on_hello(self, payload: bytes, now: float) -> None:
        if self._handshake is None or self._agreed is not None:
            return
        try:
            self._agreed = self._handshake.on_hello(payload)
        except NodeRefused as problem:
            self._note(problem, now)
            return
        self._hands.start(now)
        self._repeat_handshake(now)

    def _begin_session(self, agreed: Agreed, now: float) -> None:
        before = self.hello
        self._session, self.hello = agreed.session, agreed.hello
        self._drop_handshake()
        self._control = deque(entry for entry in self._control if entry[2])
        self._problem = None
        self.identity = replace(self.identity, boot_counter=agreed.hello.boot_counter)
        self.traffic.sessions += 1
        self._on_session(agreed.hello)
        self._reached(_DONE)
        if before is not None and before.boot_counter != agreed.hello.boot_counter:
            self._restarted = True
        self._resume(now)

    def _resume(self, now: float) -> None:
        """Tells the node again what is under way; transfers go on with what is missing."""
        self._outbox.forget_queue()
        if self._ticket is None:
            return
        if self._restarted:
            self._restarted = False
            self._end(self._restarted_error())
            return
        if self._phase is not _Phase.FETCHING:
            self._phase = _Phase.TELLING
            self._begin_telling(now)
            return
        if self._reply and self._reply.objects:
            self._inbox.want(self._reply.objects, self._block_bytes)
        self._begin_fetching(now)
        self._tell()  # the node may need to hear of the task to find its objects

    def _restarted_error(self) -> NodeRestarted:
        why = self.hello.reset_reason if self.hello else 0
        return NodeRestarted(
            f"{self.identity.device}: it was restarted (reset reason {why}) and has lost what it was sent. Send "
            "it again.",
            self.identity.device,
        )

    # -- receiving

    def _on_bytes(self, data: bytes, on_link: int, now: float) -> None:
        try:
            frame = self._unseal(data, now)
            label = frame.type.name.lower()
            if frame.type is FrameType.DATA:
                label = self._on_data(frame.payload, now)
            else:
                self._on_frame(frame, now)
        except FrameError as error:
            self.traffic.dropped[error.cause] += 1
        except MessageError:
            self.traffic.dropped["message"] += 1
        else:
            self.traffic.took(label, on_link)

    def _unseal(self, data: bytes, now: float) -> Frame:
        """With the running session's keys, or with those that the node is about to show it has."""
        if self._agreed is not None:
            try:
                frame = self._agreed.session.unseal(data)
            except FrameError:
                pass
            else:
                if frame.session:
                    self._begin_session(self._agreed, now)
                return frame
        if self._session is not None:
            return self._session.unseal(data)
        return unseal(data, from_host=False, session=0, cipher=None)

    def _on_frame(self, frame: Frame, now: float) -> None:
        match frame.type:
            case FrameType.HELLO:
                self._on_hello(frame.payload, now)
            case FrameType.REFUSE:
                self._on_refuse(frame.payload, now)
            case FrameType.ANNOUNCE:
                self._on_announce(frame.payload, now)
            case FrameType.ENROLLED:
                self._on_enrolled(frame.payload, now)
            case FrameType.ACK:
                self._on_ack(decode(Ack, frame.payload), now)
            case FrameType.REQUEST:
                self._on_request(decode(Request, frame.payload), now)
            case FrameType.REPLY:
                self._on_reply(decode(Reply, frame.payload), now)
            case FrameType.LOG:
                self._life = now
                self._on_log(frame.payload.decode("utf-8", "replace"))
            case FrameType.BYE:
                self._session = None
                if self._up:
                    self._shake_hands(now)
            case FrameType.READY:
                pass  # its tag was all that it had to say
            case _:
                raise FrameError("type")

    def _on_refuse(self, payload: bytes, now: float) -> None:
        problem = refused(payload, self.identity)
        if self._enrolling is not None:
            device = self.identity.device
            what = (
                f"{device}: it has a key already. If it is yours, send it the task forget, or erase its "
                "storage, and enrol it then."
            )
            self._note(NodeRefused(what, device, "key"), now)
        elif self._handshake is not None and self._agreed is None:
            self._note(problem, now)

    def _note(self, problem: NodeRefused, now: float) -> None:
        if self._problem is None:
            self._refused_at = now
        self._problem = problem

    def _on_announce(self, payload: bytes, now: float) -> None:
        self.announced = decode(Announce, payload)
        booted_anew = self.hello is not None and self.announced.boot_counter != self.hello.boot_counter
        ours = self.announced.device == self.identity.device
        if ours and self._handshake is None and (self._session is None or booted_anew):
            self._shake_hands(now)

    def _on_enrolled(self, payload: bytes, now: float) -> None:
        if self._enrolling is None or not is_enrolled(payload, *self._enrolling[:2]):
            raise FrameError("enrolled")
        _, key, ticket = self._enrolling
        self._enrolling = None
        self._enrol.stop()
        profile = Profile.PSK if self.identity.profile is Profile.PLAIN else self.identity.profile
        self.identity = Identity(self.identity.device, profile, key)
        ticket.finish(_DONE)
        if self._up:
            self._shake_hands(now)

    def _on_ack(self, ack: Ack, now: float) -> None:
        self._life = now
        if self._ticket is None or ack.number != self._ticket.number:
            return
        if self._phase is _Phase.TELLING:
            self._start_working(now)
        elif self._phase is _Phase.WORKING:
            self._working.tries = 0  # it hears

    def _start_working(self, now: float) -> None:
        assert self._ticket is not None
        self._leave_line()
        self._phase = _Phase.WORKING
        self._working.start(now)
        self._working.again(now)
        if self._limit is None:  # a new session in between gives no new time
            self._limit = now + self._ticket.job.limit_s

    def _on_request(self, request: Request, now: float) -> None:
        self._life = now
        if not self._outbox.on_request(request, self._block_bytes):
            raise FrameError("request")
        if self._phase is _Phase.TELLING:  # it has heard; the ACK comes when all is there
            self._telling.start(now)
            self._telling.again(now, TASK_LONGEST_S)
        if self._limit is not None and self._ticket:  # it does not work yet, it still fetches
            self._limit = now + self._ticket.job.limit_s

    def _on_reply(self, reply: Reply, now: float) -> None:
        self._life = now
        ticket = self._ticket
        if ticket is None or reply.number != ticket.number:
            self.traffic.repeated_messages += 1
            self._send(FrameType.ACK, encode(Ack(reply.number)))
            return
        if self._reply is not None:
            self.traffic.repeated_messages += 1
            return
        job = ticket.job
        if (reply.run, reply.round, reply.attempt) != (job.run, job.round, job.attempt):
            raise FrameError("binding")
        refs = reply.objects or ()
        if sum(ref.length for ref in refs) > self._max_object:
            self._end(
                LinkError(
                    f"{self.identity.device}: its reply has {sum(r.length for r in refs)} bytes, more than the "
                    f"{self._max_object} allowed. Look at its firmware.",
                    self.identity.device,
                )
            )
            return
        self._reply = reply
        self._phase = _Phase.FETCHING
        self._limit = None
        self._inbox.want(refs, self._block_bytes)
        self._begin_fetching(now)

    def _begin_fetching(self, now: float) -> None:
        """Asks for the reply's objects when it is this node's turn."""
        if self._has_turn(self._inbox.missing_bytes, now):
            self._fetching.start(now)
            self._go_on_fetching(now)

    def _begin_telling(self, now: float) -> None:
        """Sends the task when there is a session and it is this node's turn to fetch the task's objects."""
        assert self._ticket is not None
        if self._session is None or self._has_turn(sum(len(p.data) for p in self._ticket.job.objects), now):
            self._telling.start(now)
        else:
            self._telling.stop()

    def _has_turn(self, count: int, now: float) -> bool:
        budget, count = self.carrier.budget, min(count, self.carrier.window * self._block_bytes)
        self._in_line = budget is not None and count > 0 and not budget.take(self, count, now, self._wake)
        if self._in_line:
            self._life = now  # it is not the node that is silent
        return not self._in_line

    def _leave_line(self) -> None:
        self._in_line = False
        if self.carrier.budget:
            self.carrier.budget.give_back(self)

    def _on_data(self, payload: bytes, now: float) -> str:
        self._life = now
        found = self._inbox.on_data(payload)
        if found is None:
            self.traffic.repeated_blocks += 1
            return "data.unknown"
        download, new = found
        if new:
            self._fetching.start(now)
        else:
            self.traffic.repeated_blocks += 1
        self._go_on_fetching(now)
        return f"data.{download.ref.kind.name.lower()}"

    def _go_on_fetching(self, now: float) -> None:
        if self._phase is not _Phase.FETCHING or self._ticket is None or self._reply is None or self._in_line:
            return
        while (download := self._inbox.current) is not None and download.complete:
            again = download.asked_again
            if not self._inbox.finish(download):
                if self._damaged or download.ref.length == 0:
                    self._end(self._damaged_error(download.ref))
                    return
                self._damaged = True
                break
            self.traffic.asked_again += again
        if download is None:
            self._finish_job(self._reply)
            return
        before = download.in_flight
        for request in download.requests(self.carrier.window):
            self._send(FrameType.REQUEST, encode(request))
        if download.in_flight > before or self._fetching.due(now):
            self._fetching.again(now, self._line_time(download.in_flight))

    def _line_time(self, blocks: int) -> float:
        """Twice what so many blocks take on the line."""
        rate = self.carrier.bytes_per_s
        return 2 * blocks * (self._block_bytes + 40) / rate if rate else 0.0

    def _fetch_again(self, now: float) -> None:
        download = self._inbox.current
        if download is None:
            self._fetching.stop()
            return
        if self._fetching.tries > DEAF_TRIES and self._handshake is None:
            self._shake_hands(now)
        if self._fetching.tries > objects.TIMEOUTS_BEFORE_PAUSE:
            self._tell()
        if download.in_flight:
            self.traffic.asked_again += download.in_flight
            download.nothing_asked()
        for request in download.requests(self.carrier.window):
            self._send(FrameType.REQUEST, encode(request))
        self._fetching.again(now, self._line_time(download.in_flight))

    def _finish_job(self, reply: Reply) -> None:
        found = self._inbox.take(reply.objects or ())
        self._send(FrameType.ACK, encode(Ack(reply.number)))
        self._end(Answer(reply.status, reply.results or (), found, reply.problem or ""))

    def _damaged_error(self, ref: ObjectRef) -> ObjectDamaged:
        return ObjectDamaged(
            f"{self.identity.device}: its object {ObjectKind(ref.kind).name.lower()} ({ref.length} bytes) came "
            "twice with bytes that do "
            "not have the announced hash. Reset the node; if it stays so, its memory or firmware is at fault.",
            self.identity.device,
        )

    # -- asking, and giving up

    def _send(self, kind: FrameType, payload: bytes) -> None:
        self._queue(kind, payload, sealed=False)

    def _queue(self, kind: FrameType, data: bytes, *, sealed: bool) -> None:
        """What is repeated waits here once, however slow the carrier is."""
        if kind in _REPEATED:
            self._control = deque(entry for entry in self._control if entry[0] is not kind)
        self._control.append((kind, data, sealed))

    def _tell(self) -> None:
        assert self._ticket is not None
        job = self._ticket.job
        task = Task(
            self._ticket.number,
            job.run,
            job.round,
            job.attempt,
            job.kind,
            job.parameters or None,
            tuple(payload.ref for payload in job.objects) or None,
        )
        self._send(FrameType.TASK, encode(task))

    def _repeat(self, timer: _Timer, now: float) -> None:
        """TASK once more, unless blocks for it still wait here; a new handshake where the session seems lost."""
        deaf = DEAF_TRIES if timer is self._telling else WORKING_DEAF_TRIES
        if timer.tries >= deaf and self._handshake is None and self._outbox.empty:
            self._shake_hands(now)
        if self._outbox.empty or timer.tries == 0:
            self._tell()
        timer.again(now)

    def _give_up(self, now: float) -> None:
        device = self.identity.device
        if self._limit is not None and now >= self._limit and self._ticket:
            limit = self._ticket.job.limit_s
            self._end(
                NoAnswer(
                    f"{device}: it did not finish its task within {limit:g} s. Raise the limit, or look at the node.",
                    device,
                )
            )
        if now < self._silence_ends():
            return
        if self._phase is _Phase.WORKING:
            self._life, self._problem = now, None  # it works and does not hear: its limit is what counts
            return
        error = self._problem or self._silence()
        self._problem = None
        if self._enrolling:
            ticket, self._enrolling = self._enrolling[2], None
            self._enrol.stop()
            ticket.finish(error)
        self._reached(error)
        if self._ticket:
            self._end(error)

    def _reached(self, result: Answer | LinkError) -> None:
        tickets, self._reaching = self._reaching, []
        for ticket in tickets:
            ticket.finish(result)

    def _silence_ends(self) -> float:
        end = self._life + self._patience
        return end if self._problem is None else min(end, max(self._refused_at, self._life) + REFUSED_S)

    def _silence(self) -> NoAnswer:
        device = self.identity.device
        what = f"{device}: no answer on {self.carrier.name} for {self._patience:g} s"
        if not self._up:
            return NoAnswer(f"{what}. The link is down: {self._link_problem or 'it was never opened'}", device)
        heard = ""
        if (rest := self._splitter.rest()) is not None:
            self._on_noise(rest)
        if self.traffic.dropped:
            causes = ", ".join(f"{count} {cause}" for cause, count in self.traffic.dropped.most_common(3))
            heard = f" (frames dropped: {causes})"
        elif self.traffic.noise_bytes:
            heard = f" ({self.traffic.noise_bytes} bytes that are no frames: see its log)"
        return NoAnswer(f"{what}{heard}. Is it powered, is its firmware running, is this its link and speed?", device)

    def _end(self, result: Answer | LinkError) -> None:
        ticket, self._ticket = self._ticket, None
        self._phase = _Phase.IDLE
        self._limit = None
        self._leave_line()
        for timer in (self._telling, self._working, self._fetching):
            timer.stop()
        if ticket is not None:
            ticket.finish(result)
