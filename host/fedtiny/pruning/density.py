"""How a target density is shared out among the layers; the same rule for every method.

The default counts *every* convolution and linear weight: the first convolution, depthwise convolutions and the
classifier stay dense, and the other layers share uniformly what is left of the budget. A small classifier pruned
like the rest keeps a weight or less per class and the whole net collapses with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import Graph, OpKind

Rule = Literal["fedtiny", "uniform", "erk", "ranked"]


@dataclass(frozen=True)
class Allocation:
    """`densities`: share of live weights by layer number, 1.0 = dense (no mask).

    `rows`: layers of which every row (output) keeps the same number of weights, with that number; not varied by
    candidates, so that none of them starves a class.
    """

    densities: Mapping[int, float]
    rows: Mapping[int, int] = field(default_factory=dict)

    @property
    def masked(self) -> tuple[int, ...]:
        """Layer numbers that have a mask, ascending."""
        return tuple(layer for layer, density in sorted(self.densities.items()) if density < 1.0)


def layer_sizes(graph: Graph) -> tuple[int, ...]:
    """Weights of each layer, by layer number."""
    return tuple(graph.params[i].size for i in graph.layers)


def kept(density: float, size: int) -> int:
    """Weights that a layer of `size` weights keeps at a density: floor, at least 1."""
    return min(size, max(1, math.floor(density * size + 1e-6)))


def allocate(graph: Graph, density: float, rule: Rule = "fedtiny") -> Allocation:
    """Layer densities for a target 0 < density <= 1; 1 means no masks at all.

    - `fedtiny`: first convolution, depthwise convolutions and classifier (last linear layer) dense and counted in the
      target; the rest uniform. Where these would take more than half of the budget, the classifier gets what the others
      leave of that half, as an equal number of weights per row (at least 1).
    - `erk`: the same dense layers, the rest by Erdős–Rényi-kernel: proportional to (in + out + kh + kw) / size.
    - `ranked`: first and depthwise convolutions dense and counted; the others, the classifier too, share uniformly what
      is left. For scores that rank all layers together and so find each one's own share.
    - `uniform`: the published rule: first convolution dense and *not* counted, every other layer at `density`.

    Raises ConfigError where the budget is smaller than what must stay; the message names the smallest density.
    """
    if not 0.0 < density <= 1.0:
        raise ConfigError(f"density {density} is out of range: choose 0 < density <= 1.")
    sizes = layer_sizes(graph)
    every = range(len(sizes))
    if density == 1.0:
        return Allocation(dict.fromkeys(every, 1.0))
    first = _first_convolution(graph)
    if rule == "uniform":
        return Allocation({layer: 1.0 if layer == first else density for layer in every})
    classifier = _classifier(graph)
    fixed = {layer for layer in every if layer == first or _is_depthwise(graph, layer)}
    others = [layer for layer in every if layer not in fixed and layer != classifier]
    budget = density * sum(sizes) - sum(sizes[layer] for layer in fixed)
    densities = dict.fromkeys(every, 1.0)
    rows: dict[int, int] = {}
    if rule == "ranked" and classifier is not None:
        others.append(classifier)
    elif classifier is not None:
        dense = density * sum(sizes) - budget + sizes[classifier]
        if dense > density * sum(sizes) / 2:
            count = graph.params[graph.layers[classifier]].shape[0]
            least = sum(sizes) - sum(sizes[layer] for layer in others) - sizes[classifier] + count + len(others)
            if budget < count + len(others):
                raise _too_small(density, least, sum(sizes))
            width = sizes[classifier] // count
            per_row = math.floor((budget - density * sum(sizes) / 2) / count)
            per_row = max(per_row, math.floor((budget - sum(sizes[layer] for layer in others)) / count))
            per_row = min(width, max(1, min(per_row, int(budget - len(others)) // count)))
            if per_row < width:
                rows[classifier] = per_row
                densities[classifier] = per_row / width
            budget -= per_row * count
        else:
            budget -= sizes[classifier]
    if budget < len(others):
        raise _too_small(density, sum(sizes[layer] for layer in fixed) + len(others), sum(sizes))
    shares = _kernel_shares(graph, others, budget) if rule == "erk" else _uniform_shares(sizes, others, budget)
    return Allocation(densities | shares, rows)


def _first_convolution(graph: Graph) -> int | None:
    return next((layer for layer, op in enumerate(graph.layer_ops) if op.kind is OpKind.CONV2D), None)


def _classifier(graph: Graph) -> int | None:
    linear = [layer for layer, op in enumerate(graph.layer_ops) if op.kind is OpKind.LINEAR]
    return linear[-1] if linear else None


def _is_depthwise(graph: Graph, layer: int) -> bool:
    op = graph.layer_ops[layer]
    return op.kind is OpKind.CONV2D and op.groups == graph.tensors[op.inputs[0]].shape[0] > 1


def _uniform_shares(sizes: tuple[int, ...], layers: list[int], budget: float) -> dict[int, float]:
    return dict.fromkeys(layers, min(1.0, budget / max(1, sum(sizes[layer] for layer in layers))))


def _kernel_shares(graph: Graph, layers: list[int], budget: float) -> dict[int, float]:
    """Densities proportional to (in + out + kh + kw) / size, capped at 1, that use the budget up."""
    sizes = layer_sizes(graph)
    raw = {layer: sum(graph.params[graph.layers[layer]].shape) / sizes[layer] for layer in layers}
    full: set[int] = set()
    while len(full) < len(layers):
        open_layers = [layer for layer in layers if layer not in full]
        left = budget - sum(sizes[layer] for layer in full)
        scale = left / sum(raw[layer] * sizes[layer] for layer in open_layers)
        over = {layer for layer in open_layers if scale * raw[layer] >= 1.0}
        if not over:
            return {layer: 1.0 if layer in full else scale * raw[layer] for layer in layers}
        full |= over
    return dict.fromkeys(layers, 1.0)


def _too_small(density: float, least: int, total: int) -> ConfigError:
    smallest = math.ceil(least / total * 1e5) / 1e5
    return ConfigError(
        f"density {density} leaves too few of {total} weights: the layers that stay dense and one weight for every "
        f"other layer and class need {least}. Choose a density of at least {smallest:g}, or the uniform rule."
    )
