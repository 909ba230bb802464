"""Where each buffer lies in the arena: buffers that live at the same time do not overlap, but for an operator that may
write its result over its input row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIGN = 8


@dataclass(frozen=True)
class Life:
    """A buffer of `size` bytes that steps `first` to `last` need."""

    size: int
    first: int
    last: int


Leads = Mapping[tuple[int, int], int]
"""(y, x) -> bytes, 0 or more, by which y has to begin before x where it may lie over it."""


def place(lives: Sequence[Life], leads: Leads | None = None) -> tuple[list[int], int]:
    """Offsets, multiples of 8, and the arena's size: the best of several orders, each buffer where it first fits."""
    orders = [
        sorted(range(len(lives)), key=lambda i: (-lives[i].size, lives[i].first)),
        sorted(range(len(lives)), key=lambda i: (-lives[i].size, -lives[i].first)),
        sorted(range(len(lives)), key=lambda i: (lives[i].first, -lives[i].size)),
        sorted(range(len(lives)), key=lambda i: (-lives[i].last, -lives[i].size)),
        _fullest_first(lives),
    ]
    return min((_placed(lives, order, leads or {}) for order in orders), key=lambda found: found[1])


def _fullest_first(lives: Sequence[Life]) -> list[int]:
    """Those first that meet at the step where most bytes live."""
    steps = range(max((life.last for life in lives), default=-1) + 1)
    load = [sum(life.size for life in lives if life.first <= s <= life.last) for s in steps]

    def weight(i: int) -> tuple[int, int]:
        own = load[max(lives[i].first, 0) : lives[i].last + 1]
        return (-max(own, default=0), -lives[i].size)

    return sorted(range(len(lives)), key=weight)


def _placed(lives: Sequence[Life], order: Sequence[int], leads: Leads) -> tuple[list[int], int]:
    offsets = [0] * len(lives)
    done: list[int] = []
    end = 0
    for i in order:
        life = lives[i]
        near = [j for j in done if lives[j].first <= life.last and life.first <= lives[j].last]
        # i may begin at `at` where for each near j it is low enough below j, or high enough above
        below = {j: offsets[j] - leads.get((i, j), life.size) for j in near}
        above = {j: _up(offsets[j] + leads.get((j, i), lives[j].size)) for j in near}
        places = sorted({0, *above.values(), *(_down(at) for at in below.values() if at >= 0)})
        offsets[i] = next(at for at in places if all(at <= below[j] or at >= above[j] for j in near))
        end = max(end, _up(offsets[i] + life.size))
        done.append(i)
    return offsets, end


def _up(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _down(size: int) -> int:
    return size // ALIGN * ALIGN
