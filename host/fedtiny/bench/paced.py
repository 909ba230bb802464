"""A terminal as slow as a serial line, in real time, with a program at its far end; frames may be lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import socket
import subprocess
import tty
from collections.abc import AsyncIterator, Sequence

STEP_S = 0.004
NODE_BUFFER = 2048  # what waits between a node and its line; more would be sent although it is no longer wanted


class _Way:
    """One direction: bytes at the line's rate from one descriptor to another. A frame (to its zero) is lost whole."""

    def __init__(self, source: int, target: int, bytes_per_s: float, loss: float, rng: random.Random) -> None:
        self._source, self._target, self._rate, self._loss = source, target, bytes_per_s, loss
        self._rng = rng
        self._losing = False
        self._credit = 0.0
        self._waiting = bytearray()

    def move(self, seconds: float) -> None:
        """What the time that went by is worth; an idle line saves up nothing."""
        self._credit += seconds * self._rate
        most = int(self._credit)
        data = b""
        if most and not self._waiting:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._source, most)
        self._credit = self._credit - len(data) if len(data) == most else min(self._credit - len(data), 1.0)
        self._waiting += self._survivors(data)
        if self._waiting:
            with contextlib.suppress(BlockingIOError):
                del self._waiting[: os.write(self._target, self._waiting)]

    def _survivors(self, data: bytes) -> bytes:
        if not self._loss:
            return data
        kept = bytearray()
        for piece in _to_zeros(data):
            if not self._losing:
                kept += piece
            if piece.endswith(b"\0"):
                self._losing = self._rng.random() < self._loss
        return bytes(kept)


def _to_zeros(data: bytes) -> list[bytes]:
    """Pieces, each but the last with the zero that ends it."""
    *whole, rest = data.split(b"\0")
    return [piece + b"\0" for piece in whole] + ([rest] if rest else [])


@contextlib.asynccontextmanager
async def paced_terminal(
    command: Sequence[str], bytes_per_s: float, *, loss: float = 0.0, seed: int = 0
) -> AsyncIterator[str]:
    """The path of a terminal whose far end is the program's standard input and output."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NODE_BUFFER)
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    os.set_blocking(master, False)
    ours.setblocking(False)
    rng = random.Random(seed)
    down = _Way(master, ours.fileno(), bytes_per_s, loss, rng)
    up = _Way(ours.fileno(), master, bytes_per_s, loss, rng)
    pacing = asyncio.get_running_loop().create_task(_pace(down, up))
    try:
        yield os.ttyname(slave)
    finally:
        pacing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pacing
        process.kill()
        process.wait()
        ours.close()
        os.close(master)
        os.close(slave)


async def _pace(*ways: _Way) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    while True:
        await asyncio.sleep(STEP_S)
        now = loop.time()
        for way in ways:
            way.move(now - before)
        before = now
