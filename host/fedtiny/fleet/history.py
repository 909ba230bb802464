"""How long tasks took, by kind: the same count in every fleet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fedtiny.federation.tasks import Task, TaskTime, kind_of


class Times:
    """Of one node. A task that fails counts, for it took its time."""

    def __init__(self) -> None:
        self._count = Counter[str]()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def of(self, task: Task) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            kind = kind_of(task)
            self._count[kind] += 1
            self._seconds[kind] = self._seconds.get(kind, 0.0) + time.perf_counter() - began

    @property
    def tasks(self) -> int:
        return self._count.total()

    @property
    def busy_s(self) -> float:
        return sum(self._seconds.values())

    def by_kind(self) -> dict[str, TaskTime]:
        return {kind: TaskTime(count=count, seconds=self._seconds[kind]) for kind, count in self._count.items()}
