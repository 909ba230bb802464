"""One node over one link, for asyncio: the endpoint of endpoint.py, fed by the link and the event loop's clock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from fedtiny.link.endpoint import Answer, Endpoint, Job, Ticket
from fedtiny.link.links import Line, Link
from fedtiny.link.messages import Hello
from fedtiny.link.session import Identity
from fedtiny.link.traffic import Traffic
from fedtiny_export.errors import LinkUnavailable

FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 0.25, 4.0
FRAMES_A_TURN = 32  # then other connections have the event loop


def _ignore_text(text: str) -> None:
    pass


def _ignore_hello(hello: Hello) -> None:
    pass


class Connection:
    """Opened with `async with` or `open`; a link that breaks is opened again, with back-off, until `close`."""

    def __init__(
        self,
        link: Link,
        identity: Identity,
        *,
        patience_s: float = 30.0,
        on_log: Callable[[str], None] = _ignore_text,
        on_session: Callable[[Hello], None] = _ignore_hello,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.link = link
        self._loop = asyncio.get_running_loop()
        self.endpoint = Endpoint(
            identity, link.carrier, random=random, patience_s=patience_s, on_log=on_log, on_session=on_session,
            wake=self._pump_soon,
        )  # fmt: skip
        self._line: Line | None = None
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._closed = False
        self._one_at_a_time = asyncio.Lock()

    # -- what the caller does

    @property
    def device(self) -> str:
        return self.endpoint.identity.device

    @property
    def hello(self) -> Hello | None:
        """What the node said of itself when the last session began."""
        return self.endpoint.hello

    @property
    def traffic(self) -> Traffic:
        return self.endpoint.traffic

    async def open(self) -> None:
        """Opens the link. Raises LinkUnavailable; the node itself may still be silent."""
        self._line = await self.link.open(self)
        self.endpoint.link_up(self._loop.time())
        self._pump()

    async def reach(self) -> Hello:
        """Waits for a session. Raises NoAnswer or NodeRefused."""
        await self._result(lambda done: self.endpoint.reach(self._loop.time(), done))
        hello = self.endpoint.hello
        assert hello is not None
        return hello

    async def ask(self, job: Job) -> Answer:
        """The node's answer; asks wait for each other.

        Raises NoAnswer (silent, or not done in time), NodeRefused, NodeRestarted (send it again what it needs),
        ObjectDamaged.
        """
        async with self._one_at_a_time:
            return await self._result(lambda done: self.endpoint.ask(job, self._loop.time(), done))

    async def enrol(self, key: bytes) -> None:
        """Gives a node without a key this one, unencrypted: only over a cable. Raises NoAnswer, NodeRefused."""
        await self._result(lambda done: self.endpoint.enrol(key, self._loop.time(), done))

    async def close(self) -> None:
        """Says goodbye if that is possible at once, and closes the link."""
        self._closed = True
        if self._reopening is not None:
            self._reopening.cancel()
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()
        line, self._line = self._line, None
        if line is not None:
            self.endpoint.say_goodbye()
            while not self._paused and (frame := self.endpoint.outgoing(self._loop.time())) is not None:
                line.write(frame)
            await line.close()
        self.endpoint.link_down("it was closed")

    async def __aenter__(self) -> Connection:
        await self.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _result(self, start: Callable[[Callable[[Ticket], None]], Ticket]) -> Answer:
        future: asyncio.Future[None] = self._loop.create_future()

        def done(_: Ticket) -> None:
            if not future.done():
                future.set_result(None)

        ticket = start(done)
        self._pump()
        try:
            await future
        except asyncio.CancelledError:
            self.endpoint.forget(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answer is not None
        return ticket.answer

    # -- what the link does

    def data_received(self, data: bytes) -> None:
        self.endpoint.feed(data, self._loop.time())
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def went_away(self, problem: str) -> None:
        """The broker is gone for now; the link comes back by itself."""
        self._paused = False
        self.endpoint.link_down(problem)
        self._schedule()

    def came_back(self) -> None:
        """A broker, or a node behind it, is there again: shake hands."""
        self.endpoint.link_up(self._loop.time())
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self._line, self._paused = None, False
        self.endpoint.link_down(str(error) if error else "it was closed by the other side")
        if not self._closed and self._reopening is None:
            self._reopening = self._loop.create_task(self._reopen())
        self._schedule()

    async def _reopen(self) -> None:
        wait = FIRST_BACK_OFF_S
        while not self._closed:
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_BACK_OFF_S)
            try:
                self._reopening = None
                await self.open()
            except LinkUnavailable as problem:
                self.endpoint.link_down(str(problem))
                self._reopening = asyncio.current_task()
            else:
                return

    # -- the pump

    def _pump(self) -> None:
        """Sends what there is to send, while the link takes it, and sets the timer."""
        self._turn = None
        now = self._loop.time()
        self.endpoint.tick(now)
        for _ in range(FRAMES_A_TURN):
            if self._line is None or self._paused:
                break
            frame = self.endpoint.outgoing(now)
            if frame is None:
                break
            self._line.write(frame)
        else:
            self._pump_soon()
        self._schedule()

    def _pump_soon(self) -> None:
        if self._turn is None and not self._closed:
            self._turn = self._loop.call_soon(self._pump)

    def _schedule(self) -> None:
        """A timer that rings too early sets itself anew: cheaper than to move it with every frame."""
        deadline = self.endpoint.next_deadline()
        if deadline is None or self._closed:
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._pump()
