"""Who is at the other end of a link: asked without a key, and so not authenticated."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from fedtiny.link import frames
from fedtiny.link.frames import FIRST_PAYLOAD, FrameType, Noise, Splitter, seal_open, stuff, unseal
from fedtiny.link.links import Link
from fedtiny.link.messages import Announce, Hello, Invite, Profile, Reason, Refuse, decode, decode_first, encode
from fedtiny.link.session import HIGHEST_VERSION, INCOMPAT_BITS, LOWEST_VERSION, MAC_BYTES
from fedtiny_export.errors import LinkUnavailable, MessageError, NoAnswer

ASK_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """`firmware`: 8 bytes of its image's hash; None where it told its board alone."""

    device: str
    board: str
    boot_counter: int
    firmware: bytes | None


async def look(link: Link, *, patience_s: float = 5.0, on_text: Callable[[str], None] = lambda text: None) -> Seen:
    """What a node says of itself. Ends no session of it: an INVITE alone does not. Raises LinkUnavailable, NoAnswer.

    `on_text`: what came over the line and is no frame.
    """
    eye = _Eye(on_text)
    line = await link.open(eye)
    loop = asyncio.get_running_loop()
    end = loop.time() + patience_s
    try:
        while eye.hello is None and eye.lost is None and loop.time() < end:
            line.write(b"\0" + stuff(seal_open(FrameType.INVITE, encode(eye.invite()), from_host=True)))
            eye.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(eye.news.wait(), min(ASK_EVERY_S, max(0.01, end - loop.time())))
    finally:
        await line.close()
    if eye.hello is not None:
        hello = eye.hello
        return Seen(
            device=hello.device, board=hello.board, boot_counter=hello.boot_counter, firmware=bytes(hello.firmware)
        )
    if eye.announced is not None:
        said = eye.announced
        return Seen(device=said.device, board=said.board, boot_counter=said.boot_counter, firmware=None)
    if eye.lost is not None:
        raise LinkUnavailable(f"{link.carrier.name}: the line broke off. Is the board still plugged in?")
    raise NoAnswer(
        f"{link.carrier.name}: nothing that speaks fedtiny's protocol answered within {patience_s:g} s. Is a node's "
        "image on that board, and is this its port?"
    )


class _Eye:
    """A receiver that keeps what a node tells of itself."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.hello: Hello | None = None
        self.announced: Announce | None = None
        self.lost: Exception | None = None
        self.news = asyncio.Event()
        self._profile = Profile.PSK
        self._splitter = Splitter()
        self._on_text = on_text

    def invite(self) -> Invite:
        return Invite(
            lowest=LOWEST_VERSION,
            highest=HIGHEST_VERSION,
            nonce=os.urandom(16),
            profile=self._profile,
            incompat=INCOMPAT_BITS,
            compat=0,
            max_payload=FIRST_PAYLOAD,
        )

    def data_received(self, data: bytes) -> None:
        for piece in self._splitter.feed(data):
            if isinstance(piece, Noise):
                self._on_text(piece.data.decode(errors="replace"))
                continue
            try:
                self._take(unseal(piece.frame, from_host=False, session=0, cipher=None))
            except MessageError:
                continue

    def _take(self, frame: frames.Frame) -> None:
        match frame.type:
            case FrameType.ANNOUNCE:
                self.announced = decode(Announce, frame.payload)
            case FrameType.HELLO:
                self.hello, _ = decode_first(Hello, frame.payload, 0 if self._profile is Profile.PLAIN else MAC_BYTES)
            case FrameType.REFUSE if decode(Refuse, frame.payload).reason is Reason.NOT_ENROLLED:
                self._profile = Profile.PLAIN
            case _:
                return
        if frame.type is not FrameType.ANNOUNCE:
            self.news.set()

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def went_away(self, problem: str) -> None:
        self.lost = ConnectionError(problem)
        self.news.set()

    def came_back(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = error or ConnectionError("closed")
        self.news.set()


async def watch(link: Link, show: Callable[[str], None], *, seconds: float | None = None) -> None:
    """Shows what comes over a link until it breaks off: text as it is, frames by name. Raises LinkUnavailable."""
    watcher = _Watcher(show)
    line = await link.open(watcher)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(watcher.news.wait(), seconds)
    finally:
        await line.close()
    if watcher.lost is not None:
        raise LinkUnavailable(f"{link.carrier.name}: the line broke off. Is the board still plugged in?")


class _Watcher(_Eye):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(self._text)
        self._show = show

    def _text(self, text: str) -> None:
        if shown := text.replace("\0", "").rstrip("\r\n"):
            self._show(shown)

    def _take(self, frame: frames.Frame) -> None:
        if frame.type is FrameType.ANNOUNCE:
            said = decode(Announce, frame.payload)
            self._show(f"[{said.device} on {said.board}: boot {said.boot_counter}]")
        else:
            self._show(f"[{frame.type.name.lower()}, {len(frame.payload)} bytes]")
