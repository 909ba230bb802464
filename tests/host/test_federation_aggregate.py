"""Aggregation against pooled data and hand-made numbers, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedtiny.federation.aggregate import average_topk, average_values, combine_moments, reply_problem
from fedtiny.federation.tasks import Done, Evaluate, Evaluation, MeasureBn, Moments, Score, Subset, TopK, Train, Update
from fedtiny_export.values import stat_count, value_count

from .runs import model


def masks():
    layer = 1
    shape = model().graph.params[model().graph.layers[layer]].shape
    mask = np.zeros(shape, bool)
    mask.ravel()[::4] = True
    return {layer: mask}


def test_combined_moments_are_those_of_all_nodes_data_pooled():
    graph = model().graph
    generator = np.random.default_rng(0)
    counts, vectors, pooled = [3, 40, 11], [], [[] for _ in graph.batchnorms]
    for k, count in enumerate(counts):
        parts = []
        for i, op in enumerate(graph.batchnorms):
            c, h, w = graph.tensors[op.output].shape
            x = generator.normal(5 * k, 1 + k, (count, c, h, w))  # far from alike: an average of variances fails
            pooled[i].append(x)
            mean = x.mean((0, 2, 3), keepdims=True)
            parts += [x.sum((0, 2, 3)), ((x - mean) ** 2).sum((0, 2, 3))]
        vectors.append(np.concatenate(parts).astype(np.float32))
    var_mean = [torch.var_mean(torch.tensor(np.concatenate(xs)), (0, 2, 3), correction=0) for xs in pooled]
    expected = np.concatenate([part.numpy() for var, mean in var_mean for part in (mean, var)])
    np.testing.assert_allclose(combine_moments(graph, vectors, counts), expected, rtol=1e-5)


def test_values_are_averaged_by_samples():
    average = average_values([np.array([1, 2], np.float32), np.array([5, -2], np.float32)], [1, 3])
    assert average.tolist() == [4.0, -1.0]
    assert average.dtype == np.float32


def test_gradients_are_averaged_by_samples_with_zero_for_what_a_node_did_not_report():
    def top(indices, gradients, samples):
        return TopK(
            indices={1: np.array(indices, np.uint32)}, gradients={1: np.array(gradients, np.float32)}, samples=samples
        )

    average = average_topk(model().graph, [top([3, 7], [1.0, -2.0], 10), top([7], [4.0], 30)])[1]
    assert average.shape == model().graph.params[model().graph.layers[1]].shape
    assert average.ravel()[[3, 7]].tolist() == [0.25, 2.5]
    assert np.count_nonzero(average) == 2


def update(**changes):
    graph = model().graph
    named = {graph.layer_names[layer]: mask for layer, mask in masks().items()}
    good = Update(
        values=np.zeros(value_count(graph, named), np.float32),
        moments=np.zeros(stat_count(graph), np.float32),
        samples=10,
        seen=8,
        loss_sum=1.0,
        correct=3,
    )
    return replace(good, **changes)


TRAIN = Train(epochs=1, lr=0.1, momentum=0.9, weight_decay=0.0, seed=1)
SCORE = Score(k={1: 2}, batches=1, seed=1)


def top(indices, gradients=None, layer=1):
    gradients = np.ones(len(indices), np.float32) if gradients is None else np.array(gradients, np.float32)
    return TopK(indices={layer: np.array(indices, np.uint32)}, gradients={layer: gradients}, samples=5)


def test_a_good_reply_has_no_problem():
    assert reply_problem(TRAIN, update(), model().graph, masks()) is None
    assert reply_problem(SCORE, top([1, 2]), model().graph, masks()) is None
    assert reply_problem(SCORE, top([]), model().graph, masks()) is None


NAN = float("nan")


@pytest.mark.parametrize(
    ("task", "reply", "words"),
    [
        (TRAIN, lambda: update(values=np.full_like(update().values, NAN)), "NaN or infinity in values"),
        (TRAIN, lambda: update(values=np.full_like(update().values, np.inf)), "NaN or infinity in values"),
        (TRAIN, lambda: update(values=np.zeros(3, np.float32)), r"values of shape \(3,\)"),
        (TRAIN, lambda: update(loss_sum=NAN), "the loss"),
        (TRAIN, lambda: update(moments=np.full_like(update().moments, NAN)), "batch-norm moments"),
        (TRAIN, lambda: update(moments=np.full_like(update().moments, -1)), "negative variance"),
        (TRAIN, lambda: update(samples=0), "no samples"),
        (TRAIN, Done, "Done in reply to Train"),
        (SCORE, lambda: top([1, 2, 3]), "at most 2"),
        (SCORE, lambda: top([4]), "a gradient of a live weight"),
        (SCORE, lambda: top([2, 1]), "ascending"),
        (SCORE, lambda: top([1, 10**6]), "out of range"),
        (SCORE, lambda: top([1], [NAN]), "NaN or infinity in gradients"),
        (SCORE, lambda: top([1], [1, 2]), "gradients for"),
        (SCORE, lambda: top([1], layer=2), "not asked for"),
        (
            MeasureBn(subset=Subset.DEV),
            lambda: Moments(moments=np.zeros((2, stat_count(model().graph)), np.float32), samples=4),
            "moments of shape",
        ),
        (
            Evaluate(subset=Subset.DEV),
            lambda: Evaluation(loss_sum=np.array([NAN]), correct=np.array([1]), samples=4),
            "a candidate's loss",
        ),
        (
            Evaluate(subset=Subset.DEV),
            lambda: Evaluation(loss_sum=np.zeros(3), correct=np.zeros(3, np.int64), samples=4),
            "for 1 candidates",
        ),
    ],
)
def test_a_reply_that_must_not_count_is_refused_with_its_reason(task, reply, words):
    problem = reply_problem(task, reply(), model().graph, masks())
    assert problem is not None
    assert re.search(words, problem)
