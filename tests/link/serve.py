"""The node of node.py on standard input and output (`python -m tests.link.serve NAME`), or on a paced terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import sys
import time
import tty
from collections.abc import AsyncIterator

from .node import Node

STEP_S = 0.004


def serve_stdio(node: Node) -> None:
    """Until standard input ends."""
    import select

    os.set_blocking(0, False)
    while True:
        now = time.monotonic()
        node.tick(now)
        while (frame := node.outgoing(now)) is not None:
            write_all(1, frame)
        deadline = node.next_deadline()
        wait = None if deadline is None else max(0.0, deadline - now)
        if select.select([0], [], [], wait)[0]:
            data = os.read(0, 65536)
            if not data:
                return
            node.feed(data, time.monotonic())


def write_all(fd: int, data: bytes) -> None:
    import select

    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])


@contextlib.asynccontextmanager
async def paced_terminal(node: Node, bytes_per_s: float) -> AsyncIterator[str]:
    """A node at the end of a line of that rate, each way; gives the terminal's path."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    task = asyncio.get_running_loop().create_task(_pace(node, master, bytes_per_s))
    try:
        yield os.ttyname(slave)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        os.close(master)
        os.close(slave)


async def _pace(node: Node, master: int, bytes_per_s: float) -> None:
    """Both ways get what the time that went by is worth; an idle line saves up nothing."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    down = up = 0.0
    waiting = bytearray()
    while True:
        await asyncio.sleep(STEP_S)
        now = loop.time()
        worth, before = (now - before) * bytes_per_s, now
        down, up = down + worth, up + worth
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(master, int(down))
        down = down - len(data) if data and len(data) == int(down) else min(down - len(data), 1.0)
        if data:
            node.feed(data, now)
        node.tick(now)
        while len(waiting) < up and (frame := node.outgoing(now)) is not None:
            waiting += frame
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = os.write(master, waiting[: int(up)]) if waiting and int(up) else 0
        del waiting[:sent]
        up = up - sent if waiting else min(up - sent, 1.0)


if __name__ == "__main__":
    serve_stdio(Node(sys.argv[1]))
