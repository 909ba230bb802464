"""The node of node.py on standard input and output: `python -m tests.link.serve NAME`."""

from __future__ import annotations

import os
import sys
import time

from .node import Node


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


if __name__ == "__main__":
    serve_stdio(Node(sys.argv[1]))
