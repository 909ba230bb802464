"""Nodes at the other end of a wire: boards on serial ports, programs, devices behind a broker (firmware/PROTOCOL.md).

One event loop in a thread of its own talks to all of them at once; `ask` waits for what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from fedtiny.federation.tasks import LinkBytes, NodeFailure, NodeHistory, NodeLink, Reply, Task
from fedtiny.fleet.encoding import BadAnswer, Packer
from fedtiny.fleet.planning import refuse_what_does_not_fit
from fedtiny.fleet.roster import Roster
from fedtiny.fleet.wirenode import WireNode
from fedtiny.link.connection import Connection
from fedtiny.link.messages import Hello
from fedtiny.link.mqtt import Broker
from fedtiny.link.traffic import Traffic
from fedtiny_export.errors import ConfigError, FedtinyError, LinkError

AWAY = 0.1  # share of its patience that a fleet has with a node that was silent the last time
LOG_LINES = 20

T = TypeVar("T")
Heard = tuple[str, tuple[Reply, ...] | NodeFailure | BaseException]


class WireFleet:
    """The nodes of a fleet file. `names`: which of them, in the order that aggregation uses (all, if not given).

    Raises ConfigError for a node without a key, LinkUnavailable for a broker that cannot be used; a node that does not
    answer fails by itself, when it is asked.
    """

    name = "wire"

    def __init__(
        self,
        roster: Roster,
        names: Sequence[str] | None = None,
        *,
        ram_bytes: int = 0,
        banks: Mapping[str, int] | None = None,
        patience_s: float | None = None,
        run: bytes | None = None,
    ) -> None:
        self.roster = roster
        self._names = tuple(names if names is not None else roster.nodes)
        self._ram_bytes, self._banks = ram_bytes, banks
        self._patience_s = patience_s or roster.table.patience_s
        self._run = run or os.urandom(8)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(roster.keys.alone())
        self._logs = _Logs(roster)
        self._stack.callback(self._logs.close)
        self._broker: Broker | None = None
        self._round: int | None = None
        self._nodes: dict[str, WireNode] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire-fleet", daemon=True)
        self._thread.start()
        try:
            self._wait(self._begin())
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> tuple[str, ...]:
        return self._names

    def ask(
        self, orders: Mapping[str, Sequence[Task]], *, round_number: int = 0
    ) -> Iterator[tuple[str, tuple[Reply, ...] | NodeFailure]]:
        refuse_what_does_not_fit(orders, self._ram_bytes, self._banks)
        packer = Packer(run=self._run, round_number=round_number, limit_s=self.roster.table.limit_s)
        heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        asked = asyncio.run_coroutine_threadsafe(self._ask_all(orders, packer, round_number, heard), self._loop)
        try:
            for _ in orders:
                name, answer = heard.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield name, answer
        finally:  # the asker may stop listening
            asked.cancel()
            self._save_keys()

    def hellos(self, nodes: Sequence[str] | None = None) -> dict[str, Hello | LinkError]:
        """What each of these nodes (all, if none is named) says of itself, or why it says nothing."""
        asked = {name: self._nodes[name] for name in nodes or self._nodes}

        async def hello(node: WireNode) -> Hello | LinkError:
            try:
                return await node.reach()
            except LinkError as problem:
                return problem

        async def all_of_them() -> list[Hello | LinkError]:
            return await asyncio.gather(*(hello(node) for node in asked.values()))

        found = dict(zip(asked, self._wait(all_of_them()), strict=True))
        self._save_keys()
        return found

    def link_bytes(self) -> dict[str, LinkBytes]:
        async def counted() -> dict[str, LinkBytes]:
            return {name: _by_kind(node.connection.traffic) for name, node in self._nodes.items()}

        return self._wait(counted())

    def links(self) -> dict[str, NodeLink]:
        hellos = {name: node.connection.hello for name, node in self._nodes.items()}
        return {
            name: NodeLink(
                link=self.roster.link_name(name),
                profile=self.roster.profile(name).word,
                firmware=hello.firmware.hex() if hello else "",
                board=hello.board if hello else "",
            )
            for name, hello in hellos.items()
        }

    def histories(self) -> dict[str, NodeHistory]:
        async def seen() -> dict[str, NodeHistory]:
            return {name: node.history() for name, node in self._nodes.items()}

        return self._wait(seen())

    def traffic(self) -> dict[str, Traffic]:
        """Each link's counters: frames, retries, sessions."""
        return {name: node.connection.traffic for name, node in self._nodes.items()}

    def close(self) -> None:
        if self._loop.is_closed():
            return
        try:
            self._wait(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            try:
                self.roster.keys.save()
            finally:
                self._stack.close()

    # -- in the event loop

    async def _begin(self) -> None:
        identities = {name: self.roster.identity(name) for name in self._names}
        if any(self.roster.link_name(name).startswith("mqtt:") for name in self._names):
            self._broker = Broker(self.roster.account())
            await self._broker.open()
        for name, identity in identities.items():
            connection = Connection(
                self.roster.link(name, self._broker),
                identity,
                patience_s=self._patience_s,
                on_log=self._logs.writer(name),
                on_session=partial(self._saw, name),
            )
            away_s = max(1.0, AWAY * self._patience_s)
            self._nodes[name] = WireNode(connection, self._logs.lines(name), away_s)

    async def _end(self) -> None:
        await asyncio.gather(*(node.connection.close() for node in self._nodes.values()), return_exceptions=True)
        if self._broker is not None:
            await self._broker.close()

    async def _ask_all(
        self, orders: Mapping[str, Sequence[Task]], packer: Packer, number: int, heard: queue.SimpleQueue[Heard]
    ) -> None:
        if self._broker is not None and number != self._round:
            self._round = number
            await self._broker.publish_round(number)
        await asyncio.gather(*(self._ask_one(name, tasks, packer, heard) for name, tasks in orders.items()))

    async def _ask_one(self, name: str, tasks: Sequence[Task], packer: Packer, heard: queue.SimpleQueue[Heard]) -> None:
        node = self._nodes[name]
        try:
            heard.put((name, await node.serve(tasks, packer)))
        except BadAnswer as problem:
            heard.put((name, NodeFailure(reason=str(problem))))
        except FedtinyError as problem:
            said = f" It said last: {node.log[-1]}" if node.log else ""
            heard.put((name, NodeFailure(reason=str(problem).removeprefix(f"{name}: ") + said)))
        except Exception as problem:  # a fault of ours: whoever waits must hear of it
            heard.put((name, problem))

    def _save_keys(self) -> None:
        async def save() -> None:
            self.roster.keys.save()

        self._wait(save())

    def _saw(self, name: str, hello: Hello) -> None:
        now = time.time()
        keys = self.roster.keys
        keys[name] = keys[name].after(hello, now)
        self._nodes[name].saw(hello, now)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Does this where all that it reads and writes is changed: in the event loop; after `close`, here."""
        if self._loop.is_closed():
            return asyncio.run(work)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Logs:
    """What nodes say, and what is no frame: the last lines of each in memory, all in the fleet's log file."""

    def __init__(self, roster: Roster) -> None:
        self._lines: dict[str, deque[str]] = {}
        try:
            self._file = roster.log_path.open("a") if roster.log_path else None
        except OSError as problem:
            raise ConfigError(f"cannot write the log {roster.log_path}: {problem.strerror}.") from None

    def lines(self, name: str) -> deque[str]:
        return self._lines.setdefault(name, deque(maxlen=LOG_LINES))

    def writer(self, name: str) -> Any:
        def write(text: str) -> None:
            for line in text.splitlines():
                self.lines(name).append(line)
                if self._file is not None:
                    self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {name} {line}\n")
                    self._file.flush()

        return write

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


_KINDS = {"masks": "mask", "scores": "candidates", "samples": "data", "logits": "data"}
"""Objects whose bytes stand under another word in result.json."""


def _by_kind(traffic: Traffic) -> LinkBytes:
    down, up = _words(traffic.down), _words(traffic.up)
    damaged = traffic.up_bytes - traffic.up.total()
    return LinkBytes(down=down, up=up | ({"noise": damaged} if damaged else {}))


def _words(labels: Mapping[str, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for label, count in labels.items():
        kind, _, what = label.partition(".")
        found[_KINDS.get(what, what) if kind == "data" and what != "unknown" else "control"] += count
    return dict(found)
