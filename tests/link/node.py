"""A node without I/O, written from firmware/PROTOCOL.md, to talk to the endpoint in tests; the C node is driven by
test_c_node.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fedtiny.link import frames
from fedtiny.link.frames import FrameError, FrameType, Noise, Splitter, seal_open, stuff, unseal
from fedtiny.link.messages import (
    Ack,
    Announce,
    Enrol,
    Enrolled,
    Hello,
    Invite,
    Profile,
    Reason,
    Refuse,
    Reply,
    Request,
    Task,
    Welcome,
    decode,
    decode_first,
    encode,
)
from fedtiny.link.objects import Inbox, Outbox, Payload
from fedtiny.link.session import (
    MAC_BYTES,
    Session,
    hello_mac,
    key_check,
    session_keys,
    transcript,
    welcome_mac,
)
from fedtiny_export.errors import MessageError

Work = Callable[[Task, tuple[Payload, ...]], tuple[int, tuple[int | float, ...], tuple[Payload, ...]]]


def echo(task: Task, objects: tuple[Payload, ...]) -> tuple[int, tuple[int | float, ...], tuple[Payload, ...]]:
    return 0, tuple(task.parameters or ()), objects


class Node:
    def __init__(
        self,
        device: str = "n1",
        key: bytes | None = bytes(range(32)),
        work: Work = echo,
        *,
        boot: int = 1,
        version: int = 1,
        incompat: int = 0,
        max_payload: int = 1024,
        stream: bool = True,
        window: int = 64,
    ) -> None:
        self.device, self.key, self.work, self.boot = device, key, work, boot
        self.version, self.incompat, self.max_payload = version, incompat, max_payload
        self.stream, self.window = stream, window
        self.done: list[int] = []  # numbers of tasks done
        self.received_blocks = 0
        self._splitter = Splitter()
        self._out: deque[bytes] = deque()
        self._handshakes = 0
        self._invite = b""
        self._hello = b""
        self._profile = Profile.PSK
        self._welcome = b""
        self.session: Session | None = None
        self._task: Task | None = None
        self._reply: Reply | None = None
        self._outbox, self._inbox = Outbox(), Inbox()
        self._ask_at: float | None = None
        self._wait = 0.25
        self._announce_at: float | None = 0.0

    # -- an End of MemoryWire

    def feed(self, data: bytes, now: float) -> None:
        if not self.stream:
            self._take(data, now)
            return
        for piece in self._splitter.feed(data):
            if not isinstance(piece, Noise):
                self._take(piece.frame, now)

    def _take(self, data: bytes, now: float) -> None:
        try:
            if self.session is not None:
                try:
                    self._on_frame(self.session.unseal(data), now)
                    return
                except FrameError:
                    pass
            self._on_frame(unseal(data, from_host=True, session=0, cipher=None), now)
        except MessageError:
            pass

    def outgoing(self, now: float) -> bytes | None:
        if not self._out and self.session is not None:
            block = self._outbox.next_block(self.max_payload - 8)
            if block is not None:
                self._send(FrameType.DATA, block[1])
        return self._out.popleft() if self._out else None

    def next_deadline(self) -> float | None:
        return min((t for t in (self._ask_at, self._announce_at) if t is not None), default=None)

    def tick(self, now: float) -> None:
        if self._announce_at is not None and now >= self._announce_at:
            self._put(seal_open(FrameType.ANNOUNCE, encode(Announce(self.device, "test", self.boot)), from_host=False))
            self._announce_at = now + 1.0
        if self._ask_at is not None and now >= self._ask_at:
            download = self._inbox.current
            if download is None or self.session is None:
                self._ask_at = None
                return
            download.nothing_asked()
            self._wait = min(2 * self._wait, 2.0)
            self._fetch(now)

    # -- frames

    def _put(self, frame: bytes) -> None:
        self._out.append(b"\0" + stuff(frame) if self.stream else frame)

    def _send(self, kind: FrameType, payload: bytes) -> None:
        assert self.session is not None
        self._put(self.session.seal(kind, payload))

    def _on_frame(self, frame: frames.Frame, now: float) -> None:
        match frame.type:
            case FrameType.INVITE:
                self._announce_at = None
                self._on_invite(frame.payload)
            case FrameType.WELCOME:
                self._on_welcome(frame.payload)
            case FrameType.ENROL:
                enrol = decode(Enrol, frame.payload)
                if self.key in (None, enrol.key):
                    self.device, self.key = enrol.device, enrol.key
                    answer = encode(Enrolled(self.device, key_check(enrol.key)))
                    self._put(seal_open(FrameType.ENROLLED, answer, from_host=False))
                else:
                    self._refuse(Reason.KEY)
            case FrameType.TASK:
                self._on_task(decode(Task, frame.payload), now)
            case FrameType.REQUEST:
                self._outbox.on_request(decode(Request, frame.payload), self.max_payload - 8)
            case FrameType.DATA:
                found = self._inbox.on_data(frame.payload)
                if found is not None:
                    self.received_blocks += 1
                    self._wait = 0.25
                    self._fetch(now)
            case FrameType.BYE:
                self.session = None
            case _:
                pass

    def _refuse(self, reason: Reason, **what: int) -> None:
        self._put(seal_open(FrameType.REFUSE, encode(Refuse(reason, self.device, **what)), from_host=False))

    def _on_invite(self, payload: bytes) -> None:
        invite = decode(Invite, payload)
        if invite.device not in (None, self.device):
            return
        if payload == self._invite:
            self._put(seal_open(FrameType.HELLO, self._hello, from_host=False))
            return
        if not invite.lowest <= self.version <= invite.highest:
            self._refuse(Reason.VERSION, lowest=self.version, highest=self.version)
        elif (self.key is None) != (invite.profile is Profile.PLAIN):
            self._refuse(Reason.NOT_ENROLLED if self.key is None else Reason.PROFILE)
        else:
            self._say_hello(invite, payload)

    def _say_hello(self, invite: Invite, payload: bytes) -> None:
        self._handshakes += 1
        self._invite, self._profile = payload, invite.profile
        self.max_payload = min(self.max_payload, invite.max_payload)
        nonce = self.boot.to_bytes(4, "little") + self._handshakes.to_bytes(4, "little") + bytes(8)
        hello = encode(
            Hello(
                self.version, nonce, self.device, invite.profile, self.incompat, 0, self.max_payload, 1 << 20,
                self.boot, 1, "test", bytes(8), 0, 0, 0,
            )
        )  # fmt: skip
        self._hello = hello + (hello_mac(self.key, payload, hello) if self.key else b"")
        self._put(seal_open(FrameType.HELLO, self._hello, from_host=False))

    def _on_welcome(self, payload: bytes) -> None:
        if payload != self._welcome:
            welcome, mac = decode_first(Welcome, payload, MAC_BYTES if self.key else 0)
            t2 = transcript(self._invite, self._hello)
            up = down = None
            if self.key:
                if mac != welcome_mac(self.key, t2, payload[:-MAC_BYTES]):
                    return
                up, down = session_keys(self.key, t2)
            self._welcome = payload
            self.session = Session(welcome.session, up, down, from_host=False)
            self._outbox.forget_queue()
        self._send(FrameType.READY, b"")

    # -- tasks

    def _on_task(self, task: Task, now: float) -> None:
        if self._task is None or task.number != self._task.number:
            self._task, self._reply = task, None
            self._inbox.want(task.objects or (), self.max_payload - 8)
        elif self._reply is not None:
            self._send(FrameType.REPLY, encode(self._reply))
            return
        else:
            self._send(FrameType.ACK, encode(Ack(task.number)))
        self._fetch(now)

    def _fetch(self, now: float) -> None:
        while (download := self._inbox.current) is not None and download.complete:
            self._inbox.finish(download)
        if download is None:
            self._ask_at = None
            if self._task is not None and self._reply is None:
                self._work()
            return
        for request in download.requests(self.window):
            self._send(FrameType.REQUEST, encode(request))
        self._ask_at = now + self._wait

    def _work(self) -> None:
        task = self._task
        assert task is not None
        self._send(FrameType.ACK, encode(Ack(task.number)))
        self.done.append(task.number)
        status, results, objects = self.work(task, self._inbox.take(task.objects or ()))
        self._outbox.offer(objects)
        refs = tuple(payload.ref for payload in objects)
        self._reply = Reply(task.number, task.run, task.round, task.attempt, status, results or None, refs or None)
        self._send(FrameType.REPLY, encode(self._reply))
