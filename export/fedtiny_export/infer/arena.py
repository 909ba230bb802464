"""Where each buffer lies in the arena: buffers that live at the same time do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 8


@dataclass(frozen=True)
class Life:
    """A buffer of `size` bytes that steps `first` to `last` need."""

    size: int
    first: int
    last: int


def place(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Offsets, each a multiple of 8, and the arena's size. The largest first, each as low as it fits; then, because the
    order decides, the same with those first that meet at the fullest step; the better of both."""
    orders = [
        sorted(range(len(lives)), key=lambda i: (-lives[i].size, lives[i].first)),
        sorted(range(len(lives)), key=lambda i: (lives[i].first, -lives[i].size)),
        _fullest_first(lives),
    ]
    return min((_placed(lives, order) for order in orders), key=lambda found: found[1])


def least(lives: Sequence[Life]) -> int:
    """What no placement can go below: the most bytes that live at one step."""
    steps = range(max((life.last for life in lives), default=-1) + 1)
    return max((sum(_up(life.size) for life in lives if life.first <= s <= life.last) for s in steps), default=0)


def _fullest_first(lives: Sequence[Life]) -> list[int]:
    steps = range(max((life.last for life in lives), default=-1) + 1)
    load = [sum(life.size for life in lives if life.first <= s <= life.last) for s in steps]

    def weight(i: int) -> tuple[int, int]:
        own = load[max(lives[i].first, 0) : lives[i].last + 1]
        return (-max(own, default=0), -lives[i].size)

    return sorted(range(len(lives)), key=weight)


def _placed(lives: Sequence[Life], order: Sequence[int]) -> tuple[list[int], int]:
    offsets = [0] * len(lives)
    done: list[int] = []
    end = 0
    for i in order:
        life, at = lives[i], 0
        near = [j for j in done if lives[j].first <= life.last and life.first <= lives[j].last]
        for j in sorted(near, key=lambda j: offsets[j]):
            if at + life.size <= offsets[j]:
                break
            at = max(at, _up(offsets[j] + lives[j].size))
        offsets[i] = at
        end = max(end, _up(at + life.size))
        done.append(i)
    return offsets, end


def _up(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
