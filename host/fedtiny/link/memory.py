"""Two ends of a wire in memory, with faults, on a virtual clock: the same seed gives the same run."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Faults:
    """Per chunk sent: chances of being lost, doubled, overtaken by later ones; per byte: that of a flipped bit.

    `delay_s` each way; `bytes_per_s` is the line's rate, None for one without end; `every_nth_lost`: that chunk,
    always.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    flip: float = 0.0
    delay_s: float = 0.001
    bytes_per_s: float | None = None
    every_nth_lost: int = 0


class End(Protocol):
    """What an Endpoint is, and a node for tests."""

    def feed(self, data: bytes, now: float) -> None: ...

    def outgoing(self, now: float) -> bytes | None: ...

    def next_deadline(self) -> float | None: ...

    def tick(self, now: float) -> None: ...


class _Direction:
    """One way of the line."""

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self._faults, self._rng = faults, rng
        self._arrivals: list[tuple[float, int, bytes]] = []
        self._count = 0
        self.free_at = 0.0
        self.sent_bytes = 0

    def send(self, data: bytes, now: float) -> None:
        faults, rng = self._faults, self._rng
        self._count += 1
        self.sent_bytes += len(data)
        start = max(now, self.free_at)
        self.free_at = start + (len(data) / faults.bytes_per_s if faults.bytes_per_s else 0.0)
        if rng.random() < faults.loss or (faults.every_nth_lost and self._count % faults.every_nth_lost == 0):
            return
        for _ in range(1 + (rng.random() < faults.duplicate)):
            late = faults.delay_s * 5 if rng.random() < faults.reorder else 0.0
            arrival = (self.free_at + faults.delay_s + late, self._count, self._damaged(data))
            heapq.heappush(self._arrivals, arrival)

    def _damaged(self, data: bytes) -> bytes:
        if not self._faults.flip:
            return data
        flips = [i for i in range(len(data)) if self._rng.random() < self._faults.flip]
        if not flips:
            return data
        damaged = bytearray(data)
        for i in flips:
            damaged[i] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)

    def next_arrival(self) -> float | None:
        return self._arrivals[0][0] if self._arrivals else None

    def due(self, now: float) -> list[bytes]:
        found = []
        while self._arrivals and self._arrivals[0][0] <= now:
            found.append(heapq.heappop(self._arrivals)[2])
        return found

    def cut(self) -> None:
        self._arrivals.clear()


class MemoryWire:
    """Runs two ends against each other; `now` is its clock, in seconds."""

    def __init__(self, host: End, node: End, faults: Faults | None = None, seed: int = 0) -> None:
        faults = faults or Faults()
        rng = random.Random(seed)
        self.host, self.node = host, node
        self.now = 0.0
        self.down, self.up = _Direction(faults, rng), _Direction(faults, rng)

    def cut(self) -> None:
        """What is under way is lost."""
        self.down.cut()
        self.up.cut()

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Lets time pass until the condition holds; False if that takes longer than `limit_s`."""
        end = self.now + limit_s
        while not until():
            self._exchange()
            if until():
                return True
            following = self._next_event()
            if following is None or following > end:
                self.now = end
                return until()
            self.now = max(self.now, following)
        return True

    def _exchange(self) -> None:
        for data in self.down.due(self.now):
            self.node.feed(data, self.now)
        for data in self.up.due(self.now):
            self.host.feed(data, self.now)
        for end, way in ((self.host, self.down), (self.node, self.up)):
            end.tick(self.now)
            while way.free_at <= self.now and (frame := end.outgoing(self.now)) is not None:
                way.send(frame, self.now)

    def _next_event(self) -> float | None:
        times = [self.down.next_arrival(), self.up.next_arrival(), self.host.next_deadline(), self.node.next_deadline()]
        times += [way.free_at for way in (self.down, self.up) if way.free_at > self.now]
        return min((t for t in times if t is not None), default=None)
