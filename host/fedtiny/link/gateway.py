"""A board on a cable, put on a broker: frames of its byte stream as messages of its own topics (firmware/PROTOCOL.md).

It passes frames on and opens none: keys stay with the host and the board. Each board has a connection of its own to the
broker, because that is what a last will belongs to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import aiomqtt

from fedtiny.link.frames import MAX_PAYLOAD, FrameError, FrameType, Noise, Splitter, stuff, unseal
from fedtiny.link.links import Line, Link
from fedtiny.link.messages import Announce, decode
from fedtiny.link.mqtt import (
    FIRST_BACK_OFF_S,
    LONGEST_BACK_OFF_S,
    LOST,
    OFFLINE,
    ONLINE,
    Account,
    broker_problem,
    tls_of,
)
from fedtiny_export.errors import LinkUnavailable, MessageError

QUEUE = 256  # frames that wait for the board, or for the broker; more are lost, and asked for again
HEADER, CRC = 8, 4
Say = Callable[[str], None]


class Gateway:
    """One board. `say` hears of its state, of trouble, and of what it says that is no frame."""

    def __init__(self, device: str, link: Link, account: Account, say: Say) -> None:
        self.device = device
        self._link = link
        self._account = account
        self._say = say
        self._root = f"fl/v1/{account.fleet}/{device}/"
        self._client: aiomqtt.Client | None = None
        self._line: Line | None = None
        self._paused = False
        self._down: deque[bytes] = deque(maxlen=QUEUE)
        self._up: asyncio.Queue[tuple[str, bytes, int, bool]] = asyncio.Queue(QUEUE)
        self._splitter = Splitter(MAX_PAYLOAD)
        self._announced: Announce | None = None
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled; then the board is `offline`. Raises LinkUnavailable if the broker refuses at first."""
        client = await self._connect()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_broker(client))
            tasks.create_task(self._keep_line())

    # -- the broker

    async def _connect(self) -> aiomqtt.Client:
        account = self._account
        client = aiomqtt.Client(
            account.host,
            account.port,
            username=account.user,
            password=account.password,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=aiomqtt.Will(f"{self._root}state", LOST, qos=1, retain=True),
            keepalive=account.keepalive_s,
            timeout=5,
            tls_context=tls_of(account),
        )
        try:
            await client.__aenter__()
            await client.subscribe(f"{self._root}dn", 0)
        except (aiomqtt.MqttError, OSError, ValueError) as problem:
            raise LinkUnavailable(f"{self.device}: {broker_problem(account, problem)}", self.device) from None
        return client

    async def _keep_broker(self, client: aiomqtt.Client) -> None:
        while True:
            self._client = client
            sending = asyncio.create_task(self._send_up(client))
            try:
                await self._state(ONLINE if self._line is not None else LOST)
                async for message in client.messages:
                    self._on_down(bytes(message.payload))
            except aiomqtt.MqttError as problem:
                self._say(f"{self.device}: {broker_problem(self._account, problem)}")
            except asyncio.CancelledError:
                with contextlib.suppress(aiomqtt.MqttError):
                    await self._state(OFFLINE)
                    await client.__aexit__(None, None, None)
                raise
            finally:
                self._client = None
                sending.cancel()
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
            wait = FIRST_BACK_OFF_S
            while True:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_BACK_OFF_S)
                with contextlib.suppress(LinkUnavailable):
                    client = await self._connect()
                    break

    async def _send_up(self, client: aiomqtt.Client) -> None:
        while True:
            topic, payload, qos, retain = await self._up.get()
            with contextlib.suppress(aiomqtt.MqttError):  # it will be asked for again
                await client.publish(self._root + topic, payload, qos=qos, retain=retain)

    def _publish(self, topic: str, payload: bytes, qos: int, *, retain: bool = False) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._up.put_nowait((topic, payload, qos, retain))

    async def _state(self, state: bytes) -> None:
        if self._client is not None:
            await self._client.publish(f"{self._root}state", state, qos=1, retain=True)

    def _on_down(self, frame: bytes) -> None:
        self._down.append(b"\0" + stuff(frame))
        self._pour()

    # -- the board

    async def _keep_line(self) -> None:
        wait, told = FIRST_BACK_OFF_S, ""
        while True:
            try:
                self._lost.clear()
                line = await self._link.open(self)
            except LinkUnavailable as problem:
                if str(problem) != told:  # once, not at each try
                    told = str(problem)
                    self._say(f"{self.device}: {problem}")
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_BACK_OFF_S)
                continue
            wait, told = FIRST_BACK_OFF_S, ""
            self._line, self._paused, self._splitter = line, False, Splitter(MAX_PAYLOAD)
            self._down.clear()
            self._say(f"{self.device}: here, on {self._link.carrier.name}")
            try:
                self._publish("state", ONLINE, 1, retain=True)
                await self._lost.wait()
            finally:
                self._line = None
                await line.close()
            self._publish("state", LOST, 1, retain=True)
            await asyncio.sleep(wait)

    def _pour(self) -> None:
        while self._down and self._line is not None and not self._paused:
            self._line.write(self._down.popleft())

    def data_received(self, data: bytes) -> None:
        for piece in self._splitter.feed(data):
            if isinstance(piece, Noise):
                text = piece.data.decode("utf-8", "replace").strip()
                if text:
                    self._say(f"{self.device} said: {text[:200]}")
            else:
                self._on_frame(piece.frame)

    def _on_frame(self, frame: bytes) -> None:
        kind = frame[1] if len(frame) > HEADER else 0
        if kind == FrameType.ANNOUNCE:
            self._on_announce(frame)
        elif kind == FrameType.REPLY:
            self._publish("done", frame, 1)
        else:
            self._publish("up", frame, 0)

    def _on_announce(self, frame: bytes) -> None:
        """A board that booted anew is told to the host as one that was lost and is back: it shakes hands at once."""
        try:
            announce = decode(Announce, unseal(frame, from_host=False, session=0, cipher=None).payload)
        except (FrameError, MessageError):
            return
        if announce == self._announced:
            return
        if self._announced is not None:
            self._publish("state", LOST, 1, retain=True)
            self._publish("state", ONLINE, 1, retain=True)
        self._announced = announce
        self._publish("caps", frame[HEADER:-CRC], 1, retain=True)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pour()

    def went_away(self, problem: str) -> None:
        self._lost.set()

    def came_back(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self._say(f"{self.device}: its line is down: {error or 'closed by the other side'}")
        self._lost.set()
