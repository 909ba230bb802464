"""What each node holds, so that it is sent what it lacks and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fedtiny.federation.tasks import Install, Load, Task, Train
from fedtiny.pruning.pool import Masks
from fedtiny_export.graph import F32, Bits
from fedtiny_export.masks import EncodedMask, encode_smallest


class Offer:
    """The current model as tasks; each part is packed at most once, when a first node needs it."""

    def __init__(
        self, *, load: Callable[[], Load], values: Callable[[], F32], stats: Callable[[], F32] | None = None
    ) -> None:
        self._load = load
        self._values = values
        self._stats = stats
        self._packed_load: Load | None = None
        self._packed: tuple[F32, F32 | None] | None = None

    def load(self) -> Load:
        self._packed_load = self._packed_load or self._load()
        return self._packed_load

    def values(self) -> tuple[F32, F32 | None]:
        """Values, and statistics where nodes train with them."""
        self._packed = self._packed or (self._values(), self._stats() if self._stats else None)
        return self._packed


class Holdings:
    """Versions of the model and of each mask, and which one every node has.

    A node that was never loaded, or that failed, has nothing. One that trained has the masks and other values, or masks
    of its own as well. A loaded model has room for the live weights that each of its layers came with: where a mask
    outgrows that, the model is loaded anew.
    """

    def __init__(self, nodes: Sequence[str]) -> None:
        self._version = 0
        self._masks: dict[int, Bits] = {}
        self._changed: dict[int, int] = {}
        self._encoded: dict[int, EncodedMask] = {}
        self._has: dict[str, int | None] = dict.fromkeys(nodes)
        self._trained: set[str] = set()
        self._live: dict[int, int] = {}
        self._room: dict[str, dict[int, int]] = {}
        self._own: dict[str, set[int]] = {}

    def publish(self, masks: Masks) -> None:
        """A new model with these masks; only layers whose mask differs from the last published travel again."""
        self._version += 1
        self._live = {layer: int(np.count_nonzero(mask)) for layer, mask in masks.items()}
        for layer, mask in masks.items():
            if layer not in self._masks or not np.array_equal(mask, self._masks[layer]):
                self._masks[layer] = mask.copy()
                self._changed[layer] = self._version
                self._encoded.pop(layer, None)

    def missing(self, node: str, offer: Offer) -> list[Task]:
        """The tasks that bring a node to the current model: none, an Install, or a Load."""
        has = self._has[node]
        room = self._room.get(node, {})
        if has is None or any(live > room.get(layer, 0) for layer, live in self._live.items()):
            return [offer.load()]
        if has == self._version and node not in self._trained:
            return []
        values, stats = offer.values()
        own = self._own.get(node, set())
        late = [layer for layer, version in self._changed.items() if version > has or layer in own]
        return [Install(values=values, masks={layer: self._mask(layer) for layer in late}, stats=stats)]

    def did(self, node: str, tasks: Sequence[Task]) -> None:
        """A node did these tasks, all of them."""
        if any(isinstance(task, Load | Install) for task in tasks):
            self._has[node] = self._version
            self._trained.discard(node)
            self._own.pop(node, None)
        if any(isinstance(task, Load) for task in tasks):
            self._room[node] = dict(self._live)
        if any(isinstance(task, Train) for task in tasks):
            self._trained.add(node)

    def diverged(self, node: str, layers: Iterable[int]) -> None:
        """A node has masks of its own in these layers."""
        self._own[node] = set(layers)

    def forget(self, node: str) -> None:
        """A node failed, or what it has is unknown."""
        self._has[node] = None

    def forget_all(self) -> None:
        self._has = dict.fromkeys(self._has)

    def _mask(self, layer: int) -> EncodedMask:
        if layer not in self._encoded:
            self._encoded[layer] = encode_smallest(self._masks[layer])
        return self._encoded[layer]
