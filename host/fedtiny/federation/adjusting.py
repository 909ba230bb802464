"""What a method sees of a round's answers, and the average of nodes that trained under masks of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedtiny.federation.tasks import Install, TopK, Update
from fedtiny.pruning.method import Answer
from fedtiny.pruning.pool import Masks, by_name
from fedtiny.pruning.ranking import weights_of
from fedtiny_export.graph import F32, Graph
from fedtiny_export.masks import encode_smallest
from fedtiny_export.values import pack_values, unpack_values


def answer_of(graph: Graph, update: Update, masks: Masks, top: TopK | None = None) -> Answer:
    """A node's update and top-K as arrays by layer number; `masks`: those that it trained under."""
    weights = weights_of(graph, unpack_values(graph, update.values, by_name(graph, masks)))
    gradients = {}
    for layer, indices in (top.indices if top else {}).items():
        dense = np.zeros(weights[layer].size, np.float32)
        dense[indices] = top.gradients[layer] if top else 0.0
        gradients[layer] = dense.reshape(weights[layer].shape)
    return Answer(
        samples=update.samples, weights=weights, masks=masks, indices=dict(top.indices) if top else {},
        gradients=gradients,
    )  # fmt: skip


def travel(updates: Sequence[Update], *, lr: float, momentum: float, epochs: int, micro_batch: int) -> float:
    """How far the average node's weights move per unit of a constant gradient: lr x steps / (1 - momentum)."""
    samples = [update.samples for update in updates]
    steps = [epochs * max(1, count // micro_batch) for count in samples]
    return lr * float(np.average(steps, weights=samples)) / (1.0 - momentum)


def own_install(graph: Graph, update: Update, masks: Masks, own: Masks) -> Install:
    """A node's own values under its own masks: what it dropped is gone, what it grew is 0. `masks`: those before."""
    arrays = unpack_values(graph, update.values, by_name(graph, masks))
    values = pack_values(graph, arrays, by_name(graph, {**masks, **own}))
    return Install(values=values, masks={layer: encode_smallest(mask) for layer, mask in own.items()})


def average_own(graph: Graph, updates: Sequence[Update], masks: Sequence[Masks]) -> dict[str, F32]:
    """The mean of every parameter over the nodes that have it, weighted by samples; 0 where none has.

    `masks`: those that each node trained under.
    """
    total: dict[str, np.ndarray] = {}
    weight: dict[str, np.ndarray] = {}
    for update, own in zip(updates, masks, strict=True):
        named = by_name(graph, own)
        for name, array in unpack_values(graph, update.values, named).items():
            share = np.float64(update.samples) * named.get(name, np.ones(array.shape, np.bool_))
            total[name] = total.get(name, 0.0) + array.astype(np.float64) * share
            weight[name] = weight.get(name, 0.0) + share
    return {name: (total[name] / np.maximum(weight[name], 1e-300)).astype(np.float32) for name in total}


def of_layers(arrays: Mapping[str, F32], graph: Graph) -> dict[int, F32]:
    """Copies of the weights of every layer by its number."""
    return {layer: weights.copy() for layer, weights in weights_of(graph, arrays).items()}
