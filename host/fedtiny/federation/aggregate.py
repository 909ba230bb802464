"""What many nodes' answers come to, and which answers may count.

Sums run in float64 and in the order given (the server gives node order), so the order of arrival changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedtiny.federation.tasks import (
    Done,
    Evaluate,
    Evaluation,
    Install,
    Load,
    Loaded,
    MeasureBn,
    Moments,
    Reply,
    Score,
    Task,
    TopK,
    Train,
    Update,
)
from fedtiny.pruning.pool import Masks, by_name
from fedtiny_export.graph import F32, Graph
from fedtiny_export.values import stat_count, value_count


def combine_moments(graph: Graph, moments: Sequence[F32], samples: Sequence[int]) -> F32:
    """Statistics (mean, biased variance) of all samples together, from each node's (sum, m2).

    moments: vectors of `stat_count` floats, node k's over samples[k]. The law of total variance, weighted by what
    each node counted: mu = sum w_k mu_k, var = sum w_k (var_k + (mu_k - mu)^2). Exact, not an average of variances.
    """
    counts = np.asarray(samples, np.float64)[:, None]
    table = np.asarray(moments, np.float64).reshape(len(samples), -1)
    result = np.empty(stat_count(graph), np.float32)
    for start, channels, positions in _norm_slices(graph):
        n = counts * positions
        sums, m2 = table[:, start : start + channels], table[:, start + channels : start + 2 * channels]
        mean = sums.sum(axis=0) / n.sum()
        variance = (m2 + n * (sums / n - mean) ** 2).sum(axis=0) / n.sum()
        result[start : start + channels] = mean
        result[start + channels : start + 2 * channels] = variance
    return result


def average_values(values: Sequence[F32], samples: Sequence[int]) -> F32:
    """FedAvg: the mean of values vectors, weighted by each node's samples."""
    total = np.zeros(values[0].shape, np.float64)
    for vector, count in zip(values, samples, strict=True):
        total += vector.astype(np.float64) * count
    return (total / sum(samples)).astype(np.float32)


def average_topk(graph: Graph, answers: Sequence[TopK]) -> dict[int, F32]:
    """Mean gradient of each asked layer, of its parameter's shape (Eq. 8): weighted by each node's samples, 0 where a
    node did not report a position."""
    weight = sum(answer.samples for answer in answers)
    result = {}
    for layer in sorted({layer for answer in answers for layer in answer.indices}):
        param = graph.params[graph.layers[layer]]
        total = np.zeros(param.size, np.float64)
        for answer in answers:
            if layer in answer.indices:
                total[answer.indices[layer]] += answer.gradients[layer].astype(np.float64) * answer.samples
        result[layer] = (total / weight).astype(np.float32).reshape(param.shape)
    return result


def reply_problem(task: Task, reply: Reply, graph: Graph, masks: Masks) -> str | None:
    """Why a reply must not count, or None. `masks`: those that the node works under."""
    match task, reply:
        case Train(), Update():
            return _update_problem(reply, graph, masks)
        case MeasureBn(), Moments():
            rows = 1 if task.candidates is None else len(task.candidates)
            return _samples_problem(reply.samples) or _moments_problem(reply.moments, (rows, stat_count(graph)), graph)
        case Evaluate(), Evaluation():
            return _evaluation_problem(reply, 1 if task.candidates is None else len(task.candidates))
        case Score(), TopK():
            return _topk_problem(reply, task, masks)
        case (Load(), Loaded()) | (Install(), Done()):
            return None
    return f"{type(reply).__name__} in reply to {type(task).__name__}"


def _update_problem(update: Update, graph: Graph, masks: Masks) -> str | None:
    count = value_count(graph, by_name(graph, masks))
    if update.values.shape != (count,):
        return f"values of shape {update.values.shape} where {count} were expected"
    if not np.isfinite(update.values).all():
        return "NaN or infinity in values"
    if not np.isfinite(update.loss_sum):
        return "NaN or infinity in the loss"
    return _samples_problem(min(update.samples, update.seen)) or _moments_problem(
        update.moments, (stat_count(graph),), graph
    )


def _evaluation_problem(answer: Evaluation, candidates: int) -> str | None:
    if answer.loss_sum.shape != (candidates,) or answer.correct.shape != (candidates,):
        return f"losses of shape {answer.loss_sum.shape} for {candidates} candidates"
    if not np.isfinite(answer.loss_sum).all():
        return "NaN or infinity in a candidate's loss"
    return _samples_problem(answer.samples)


def _topk_problem(answer: TopK, task: Score, masks: Masks) -> str | None:
    """At most k entries per asked layer, ascending, finite, all of pruned weights."""
    if answer.indices.keys() != answer.gradients.keys() or not answer.indices.keys() <= task.k.keys():
        return "gradients of layers that were not asked for"
    for layer, indices in answer.indices.items():
        gradients = answer.gradients[layer]
        if indices.ndim != 1 or indices.shape != gradients.shape:
            return f"layer {layer}: {gradients.shape} gradients for {indices.shape} indices"
        if len(indices) > task.k[layer]:
            return f"layer {layer}: {len(indices)} gradients where at most {task.k[layer]} were asked for"
        if not np.isfinite(gradients).all():
            return f"layer {layer}: NaN or infinity in gradients"
        order = indices.astype(np.int64)
        if order.size and (order[0] < 0 or order[-1] >= masks[layer].size or not (np.diff(order) > 0).all()):
            return f"layer {layer}: indices out of range or not ascending"
        if masks[layer].ravel()[order].any():
            return f"layer {layer}: a gradient of a live weight"
    return _samples_problem(answer.samples)


def _samples_problem(samples: int) -> str | None:
    return None if samples >= 1 else "no samples"


def _norm_slices(graph: Graph) -> Iterator[tuple[int, int, int]]:
    """Of each batch norm: where its floats start, its channels, positions (height x width) of its map."""
    start = 0
    for op in graph.batchnorms:
        channels, height, width = graph.tensors[op.output].shape
        yield start, channels, height * width
        start += 2 * channels


def _moments_problem(moments: F32, shape: tuple[int, ...], graph: Graph) -> str | None:
    if moments.shape != shape:
        return f"moments of shape {moments.shape} where {shape} was expected"
    if not np.isfinite(moments).all():
        return "NaN or infinity in batch-norm moments"
    for start, channels, _ in _norm_slices(graph):
        if (moments[..., start + channels : start + 2 * channels] < 0).any():
            return "a negative variance in batch-norm moments"
    return None
