"""The host's end of the wire to one node, without I/O: bytes and time come in, frames and answers come out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from fedtiny.link import objects
from fedtiny.link.asking import DEAF_TRIES, TASK_LONGEST_S, TASK_S, Answer, Asking, Carrier, Job, Ticket, Timer
from fedtiny.link.frames import Frame, FrameError, FrameType, Noise, Splitter, stuff, unseal
from fedtiny.link.messages import Ack, Announce, Hello, Profile, Reply, Request, TaskKind, decode
from fedtiny.link.session import Agreed, Handshake, Identity, Random, Session, enrol_frame, is_enrolled, refused
from fedtiny.link.traffic import Traffic
from fedtiny_export.errors import LinkError, MessageError, NoAnswer, NodeRefused, NodeRestarted

__all__ = ["Answer", "Carrier", "Endpoint", "Job", "Ticket"]

INVITE_S, INVITE_LONGEST_S = 0.25, 2.0
REFUSED_S = 5.0  # a refusal may be forged: the genuine answer has so long to come
NOISE_TEXT = 200  # bytes of noise in one line of the log


_DONE = Answer(0, (), (), "")
_REPEATED = frozenset((FrameType.INVITE, FrameType.WELCOME, FrameType.ENROL, FrameType.TASK))


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
        self._on_log = on_log
        self._on_session = on_session
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
        self._hands = Timer(INVITE_S, INVITE_LONGEST_S)
        self._problem: NodeRefused | None = None  # why there is no session, as far as known
        self._refused_at = 0.0
        self._restarted = False

        self._reaching: list[Ticket] = []
        self._enrolling: tuple[str, bytes, Ticket] | None = None
        self._enrol = Timer(TASK_S, TASK_LONGEST_S)

        self._number = int.from_bytes(random(4), "little")
        self._life = 0.0  # when the node last said something, or was first asked
        self._asking = Asking(
            identity.device, carrier, self.traffic, max_object=max_object, wake=wake,
            send=self._send, session_lost=self._shake_hands_unless_at_it,
        )  # fmt: skip

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
        self._lose_session()
        self._drop_handshake()
        self._control.clear()

    def ask(self, job: Job, now: float, on_done: Callable[[Ticket], None] = lambda _: None) -> Ticket:
        """Starts a job; one at a time. The ticket ends with an Answer or a LinkError."""
        if self._asking.ticket is not None:
            raise RuntimeError(f"{self.identity.device} is asked two things at once")
        self._number = (self._number + 1) & 0xFFFFFFFF
        ticket = Ticket(job, self._number, on_done)
        if self._restarted:
            self._restarted = False
            ticket.finish(self._restarted_error())
            return ticket
        self._life = now
        self._asking.begin(ticket)
        if self._session is not None:
            self._asking.resume(now)
        elif self._up:
            self._shake_hands_unless_at_it(now)
        return ticket

    def reach(self, now: float, on_done: Callable[[Ticket], None] = lambda _: None) -> Ticket:
        """A ticket that ends when a session runs."""
        ticket = Ticket(Job(TaskKind.DESCRIBE), 0, on_done)
        if self._session is not None:
            ticket.finish(_DONE)
            return ticket
        self._reaching.append(ticket)
        if self._asking.ticket is None:
            self._life = now
        if self._up:
            self._shake_hands_unless_at_it(now)
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket any more."""
        if ticket is self._asking.ticket:
            self._asking.end(
                LinkError(f"{self.identity.device}: nobody waits for the answer any more", self.identity.device)
            )
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
            self._lose_session()
            self._shake_hands(now)
        frame = self._next_control() or self._next_data()
        if frame is None:
            self._spoke = False
        return frame

    def next_deadline(self) -> float | None:
        """When `tick` wants to be called, at the latest."""
        times = [self._silence_ends()] if self._asking.ticket or self._enrolling or self._reaching else []
        times += self._asking.deadlines(in_session=self._up and self._session is not None)
        if self._up:
            timers = [self._hands, *([self._enrol] if self._enrolling else [])]
            times += [timer.at for timer in timers if timer.at is not None]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Repeats what was not answered in time, and gives up on what never was."""
        if self._asking.in_line:
            self._life = now  # it is not the node that is silent
        self._give_up(now)
        if not self._up:
            return
        if self._hands.due(now):
            self._repeat_handshake(now)
        if self._enrolling and self._enrol.due(now):
            self._queue(FrameType.ENROL, enrol_frame(*self._enrolling[:2]), sealed=True)
            self._enrol.again(now)
        if self._session is not None:
            self._asking.tick(now)

    # -- sending

    def _next_control(self) -> bytes | None:
        if not self._control:
            return None
        kind, data, sealed = self._control.popleft()
        if not sealed and self._session is None:
            return self._next_control()
        if kind is FrameType.BYE and self._session is not None:
            frame = self._session.seal(kind, data)
            self._lose_session()
        else:
            frame = data if sealed or self._session is None else self._session.seal(kind, data)
        return self._out(kind.name.lower(), frame)

    def _next_data(self) -> bytes | None:
        if self._session is None:
            return None
        outbox = self._asking.outbox
        block = outbox.next_block(self._asking.block_bytes)
        if block is None:
            return None
        self.traffic.resent_blocks = outbox.resent_blocks
        return self._out(f"data.{block[0].name.lower()}", self._session.seal(FrameType.DATA, block[1]))

    def _out(self, label: str, frame: bytes) -> bytes:
        if self.carrier.stream:
            frame = stuff(frame) if self._spoke else b"\0" + stuff(frame)
            self._spoke = True
        self.traffic.sent(label, len(frame))
        return frame

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

    def _shake_hands_unless_at_it(self, now: float) -> None:
        if self._handshake is None:
            self._shake_hands(now)

    def _lose_session(self) -> None:
        self._session = None
        self._asking.pause()

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
        self._asking.block_bytes = agreed.hello.max_payload - objects.BLOCK_HEADER
        self.identity = replace(self.identity, boot_counter=agreed.hello.boot_counter)
        self.traffic.sessions += 1
        self._on_session(agreed.hello)
        self._reached(_DONE)
        if before is not None and before.boot_counter != agreed.hello.boot_counter:
            self._restarted = True
        self._resume(now)

    def _resume(self, now: float) -> None:
        """Tells the node again what is under way, unless it has lost what it needs for that."""
        self._asking.outbox.forget_queue()
        if self._asking.ticket is None:
            return
        if self._restarted:
            self._restarted = False
            self._asking.end(self._restarted_error())
            return
        self._asking.resume(now)

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
            if frame.session:
                self._life = now
            if frame.type is FrameType.DATA:
                label = self._asking.on_data(frame.payload, now)
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
                self._asking.on_ack(decode(Ack, frame.payload), now)
            case FrameType.REQUEST:
                self._asking.on_request(decode(Request, frame.payload), now)
            case FrameType.REPLY:
                self._asking.on_reply(decode(Reply, frame.payload), now)
            case FrameType.LOG:
                self._on_log(frame.payload.decode("utf-8", "replace"))
            case FrameType.BYE:
                self._lose_session()
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

    # -- asking, and giving up

    def _send(self, kind: FrameType, payload: bytes) -> None:
        self._queue(kind, payload, sealed=False)

    def _queue(self, kind: FrameType, data: bytes, *, sealed: bool) -> None:
        """What is repeated waits here once, however slow the carrier is."""
        if kind in _REPEATED:
            self._control = deque(entry for entry in self._control if entry[0] is not kind)
        self._control.append((kind, data, sealed))

    def _give_up(self, now: float) -> None:
        self._asking.check_limit(now)
        if now < self._silence_ends():
            return
        if self._asking.working:
            self._life, self._problem = now, None  # it works and does not hear: its limit is what counts
            return
        error = self._problem or self._silence()
        self._problem = None
        if self._enrolling:
            ticket, self._enrolling = self._enrolling[2], None
            self._enrol.stop()
            ticket.finish(error)
        self._reached(error)
        if self._asking.ticket:
            self._asking.end(error)

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
