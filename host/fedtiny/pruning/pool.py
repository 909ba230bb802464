"""The candidate pool of FedTiny's first module: nested coarse masks of one shared model.

Every candidate keeps, in each layer, the largest weights of the same pre-trained model, so candidates are nested: the
union travels once and a candidate is a row of per-layer magnitude thresholds (live: |w| >= threshold).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.density import Allocation, kept, layer_sizes
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import F32, Bits, Graph
from fedtiny_export.model import Model

Masks = Mapping[int, Bits]
"""Live weights by layer number, each of its parameter's shape; a layer without an entry is dense."""

TOLERANCE = 0.02  # of a candidate's global density, relative to the target
_DRAWS = 100_000


@dataclass(frozen=True)
class Pool:
    """`thresholds` (C, layers) float32, 0 for layers that no candidate varies; `union`: the masks that contain all."""

    thresholds: F32
    union: Masks

    def __len__(self) -> int:
        return len(self.thresholds)

    def masks(self, candidate: int, model: Model) -> dict[int, Bits]:
        """The masks of one candidate on the model that the pool was drawn from."""
        row = self.thresholds[candidate]
        return {layer: live & (np.abs(layer_weights(model, layer)) >= row[layer]) for layer, live in self.union.items()}


def layer_weights(model: Model, layer: int) -> F32:
    """The weights of a layer by its number."""
    return model.arrays[model.graph.layer_names[layer]]


def by_name(graph: Graph, masks: Masks) -> dict[str, Bits]:
    """The same masks by layer name, as blobs and values take them."""
    return {graph.layer_names[layer]: mask for layer, mask in masks.items()}


def density_of(graph: Graph, masks: Masks) -> float:
    """Live share of all convolution and linear weights, dense layers included."""
    sizes = layer_sizes(graph)
    live = sum(int(np.count_nonzero(masks[i])) if i in masks else size for i, size in enumerate(sizes))
    return live / sum(sizes)


def magnitude_masks(model: Model, allocation: Allocation) -> dict[int, Bits]:
    """Masks that keep each layer's largest weights at exactly the allocated densities."""
    return {layer: _layer_mask(model, layer, allocation, allocation.densities[layer]) for layer in allocation.masked}


def draw_pool(model: Model, allocation: Allocation, *, size: int, spread: float = 0.5, seed: int) -> Pool:
    """`size` candidates whose layer densities are the allocated ones times (1 + u), u ~ U(-spread, spread).

    All layers of a candidate are drawn again until its global density lies within 2 % of the allocation's (which equals
    the target up to rounding). Layers with an equal number of weights per row keep that mask in every candidate.
    """
    graph = model.graph
    sizes = np.array(layer_sizes(graph))
    varied = [layer for layer in allocation.masked if layer not in allocation.rows]
    base = np.array([allocation.densities[layer] for layer in varied])
    fixed = _live_outside(graph, allocation, varied)
    target = fixed + float(base @ sizes[varied])
    generator = np.random.default_rng([seed, 0xF001])
    counts = np.array([_draw(generator, base, sizes[varied], spread, fixed, target) for _ in range(size)])
    thresholds = np.zeros((size, len(sizes)), np.float32)
    union: dict[int, Bits] = {}
    for column, layer in enumerate(varied):
        magnitudes = np.abs(layer_weights(model, layer))
        descending = np.sort(magnitudes, axis=None)[::-1]
        thresholds[:, layer] = descending[counts[:, column] - 1]
        union[layer] = magnitudes >= thresholds[:, layer].min()
    for layer in allocation.rows:
        union[layer] = _layer_mask(model, layer, allocation, allocation.densities[layer])
    return Pool(thresholds, dict(sorted(union.items())))


def _draw(
    generator: np.random.Generator,
    base: NDArray[np.float64],
    sizes: NDArray[np.int64],
    spread: float,
    fixed: int,
    target: float,
) -> NDArray[np.int64]:
    """Weights kept in each layer by one candidate."""
    for _ in range(_DRAWS):
        wanted = base * (1.0 + generator.uniform(-spread, spread, len(base)))
        counts = np.clip(np.floor(wanted * sizes).astype(np.int64), 1, sizes)
        if abs(fixed + counts.sum() - target) < TOLERANCE * target:
            return counts
    raise ConfigError(
        f"no candidate came within {TOLERANCE:.0%} of the target density in {_DRAWS} draws: its layers are too small. "
        f"Choose a larger density or a smaller spread."
    )


def _live_outside(graph: Graph, allocation: Allocation, varied: list[int]) -> int:
    """Live weights of the layers that no candidate varies."""
    sizes = layer_sizes(graph)
    live = sum(size for layer, size in enumerate(sizes) if layer not in varied and layer not in allocation.rows)
    return live + sum(
        per_row * graph.params[graph.layers[layer]].shape[0] for layer, per_row in allocation.rows.items()
    )


def _layer_mask(model: Model, layer: int, allocation: Allocation, density: float) -> Bits:
    weights = layer_weights(model, layer)
    rows = weights.reshape(len(weights), -1) if layer in allocation.rows else weights.reshape(1, -1)
    count = allocation.rows.get(layer, kept(density, rows.shape[1]))
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")[:, :count]
    mask = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(mask, order, True, axis=1)
    return mask.reshape(weights.shape)
