"""FedTiny's second module: one block of layers exchanges a shrinking share of its weights in each adjusting round."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.pool import Masks
from fedtiny_export.graph import F32, Bits, Graph, OpKind

Granularity = Literal["block", "layer", "all"]


def exchanged(live: int, round_number: int, stop_round: int, epochs: int = 1) -> int:
    """a_l(t) = ceil(0.15 (1 + cos(t pi / (R_stop E))) n_l), t = round x E: weights of a layer to prune and to grow.

    Counted in local epochs over all rounds (first round 1), not in adjustments: 0.293 n_l at a tenth of the way, 0 at
    the last adjusting round.
    """
    t = round_number * epochs
    return math.ceil(0.15 * (1.0 + math.cos(t * math.pi / (stop_round * epochs))) * live)


def blocks(graph: Graph, masks: Masks, granularity: Granularity = "block") -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and layer numbers of the blocks that adjustments walk, from the output to the input.

    Convolutions whose output maps have the same height and width form a block (the stages of a residual net); linear
    layers, the classifier among them, belong to the block nearest the output. Layers without a mask are left out, and
    so are blocks that have no other. `layer` makes a block of each layer, `all` one of all.
    """
    masked = [layer for layer in range(len(graph.layers)) if layer in masks]
    if granularity == "all":
        return (("all", tuple(masked)),) if masked else ()
    if granularity == "layer":
        return tuple((graph.layer_names[layer], (layer,)) for layer in reversed(masked))
    grouped: dict[tuple[int, int], list[int]] = {}
    maps = [graph.tensors[op.output].shape[1:] for op in graph.layer_ops if op.kind is OpKind.CONV2D]
    last = maps[-1] if maps else (1, 1)
    for layer, op in enumerate(graph.layer_ops):
        shape = graph.tensors[op.output].shape[1:] if op.kind is OpKind.CONV2D else last
        grouped.setdefault(shape, []).append(layer)
    named = [(f"{h}x{w}", tuple(i for i in layers if i in masks)) for (h, w), layers in grouped.items()]
    return tuple((name, layers) for name, layers in reversed(named) if layers)


def exchange(mask: Bits, weights: F32, gradients: F32, count: int, row_floor: int = 0) -> tuple[Bits, int]:
    """The mask of a layer after pruning its `count` smallest |weights| and growing the `count` largest |gradients|.

    All three have the layer's shape; `gradients` is 0 where nobody reported one. Only positions inactive before can
    grow, so none returns at once; as many are pruned as grow, so the layer's density stays. Ties go to the lower index.
    `row_floor`: weights that every row keeps of those it has.
    Returns the new mask and how many were exchanged (fewer than `count` where too few gradients were reported).
    """
    live = np.flatnonzero(mask)
    dead = np.flatnonzero(~mask)
    g = np.abs(gradients.ravel()[dead])
    grown = dead[np.argsort(-g, kind="stable")][: min(count, int(np.count_nonzero(g)))]
    by_size = live[np.argsort(np.abs(weights.ravel()[live]), kind="stable")]
    pruned = _spare(by_size, mask, row_floor)[: len(grown)]
    grown = grown[: len(pruned)]
    after = mask.copy().ravel()
    after[pruned] = False
    after[grown] = True
    return after.reshape(mask.shape), len(grown)


def _spare(by_size: NDArray[np.int64], mask: Bits, row_floor: int) -> NDArray[np.int64]:
    """The candidates for pruning in order, without the `row_floor` largest of each row."""
    if row_floor == 0:
        return by_size
    rows = by_size // (mask.size // len(mask))
    left = np.bincount(rows, minlength=len(mask))
    keep = np.zeros(len(by_size), np.bool_)
    for position, row in enumerate(rows):
        if left[row] > row_floor:
            left[row] -= 1
            keep[position] = True
    return by_size[keep]
