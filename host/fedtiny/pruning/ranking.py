"""Masks from scores: what pruning before training keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.density import Allocation, kept, layer_sizes
from fedtiny_export.graph import F32, Bits, Graph

Scores = Mapping[int, NDArray[np.floating]]
"""By layer number, of the weight's shape; the largest live."""


def weights_of(graph: Graph, arrays: Mapping[str, F32]) -> dict[int, F32]:
    """The weights of every layer by its number."""
    return {layer: arrays[name] for layer, name in enumerate(graph.layer_names)}


def keep_best(graph: Graph, allocation: Allocation, scores: Scores) -> dict[int, Bits]:
    """Ranks all masked layers together and keeps as many weights in all as the allocation gives them.

    Every layer keeps its best weight, so that none is cut off. Layers with an equal number of weights per row are
    ranked row by row. Dense layers of the allocation stay dense. Ties go to the lower layer, then the lower index.
    """
    sizes = layer_sizes(graph)
    masks = {layer: keep_rows(scores[layer], count) for layer, count in allocation.rows.items()}
    ranked = [layer for layer in allocation.masked if layer not in allocation.rows]
    budget = sum(kept(allocation.densities[layer], sizes[layer]) for layer in ranked)
    if not ranked:
        return masks
    flat = [np.asarray(scores[layer], np.float64).ravel().copy() for layer in ranked]
    for each in flat:
        each[np.argmax(each)] = np.inf
    order = np.argsort(-np.concatenate(flat), kind="stable")[:budget]
    live = np.zeros(sum(map(len, flat)), np.bool_)
    live[order] = True
    at = 0
    for layer in ranked:
        masks[layer] = live[at : at + sizes[layer]].reshape(scores[layer].shape)
        at += sizes[layer]
    return dict(sorted(masks.items()))


def keep_layer(scores: NDArray[np.floating], count: int) -> Bits:
    """The `count` best of one layer."""
    return keep_rows(scores.reshape(1, -1), count).reshape(scores.shape)


def keep_rows(scores: NDArray[np.floating], count: int) -> Bits:
    """The `count` best of every row of scores (rows, ...)."""
    rows = scores.reshape(len(scores), -1)
    mask = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(mask, np.argsort(-rows, axis=1, kind="stable")[:, :count], True, axis=1)
    return mask.reshape(scores.shape)


def keep_each(graph: Graph, allocation: Allocation, scores: Scores) -> dict[int, Bits]:
    """Keeps every layer's best at exactly the allocated densities."""
    sizes = layer_sizes(graph)
    return {
        layer: keep_rows(scores[layer], allocation.rows[layer])
        if layer in allocation.rows
        else keep_layer(scores[layer], kept(allocation.densities[layer], sizes[layer]))
        for layer in allocation.masked
    }


def all_live(graph: Graph, allocation: Allocation) -> dict[int, Bits]:
    """Masks of the layers that will be pruned, with every weight live: a dense model that can be pruned later."""
    return {layer: np.ones(graph.params[graph.layers[layer]].shape, np.bool_) for layer in allocation.masked}


def random_masks(graph: Graph, allocation: Allocation, *, seed: int) -> dict[int, Bits]:
    """Masks drawn at random, at exactly the allocated densities."""
    generator = np.random.default_rng([seed, 0xF002])
    scores = {layer: generator.random(graph.params[graph.layers[layer]].shape) for layer in allocation.masked}
    return keep_each(graph, allocation, scores)
