"""Mistakes seen in public implementations: each test shows the faulty result and that ours differs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedtiny.federation.aggregate import average_topk, combine_moments
from fedtiny.federation.tasks import (
    Evaluate,
    MeasureBn,
    Moments,
    NodeFailure,
    Score,
    Subset,
    TopK,
    Update,
)
from fedtiny.federation.traffic import reply_bytes
from fedtiny.fleet.order import shuffled
from fedtiny.pruning import FedAvg, FedTiny, blocks, exchanged
from fedtiny_export.graph import Graph, OpKind
from fedtiny_export.values import stat_count

from .runs import WatchedFleet, full_model, method, model, net, server, shards


def pooled_stem_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of the first batch norm's input over samples x, by torch."""
    with torch.no_grad():
        var, mean = torch.var_mean(net().stem[0](torch.from_numpy(x)), (0, 2, 3), correction=0)
    return mean.numpy(), var.numpy()


def uneven_shards():
    """Nodes whose data differ in size, brightness and contrast."""
    data = shards()
    return {
        node: type(put)(x=put.x * (1 + k) + 3 * k, y=put.y, dev_count=4 + 3 * k)
        for k, (node, put) in enumerate(data.items())
    }


def measured(data):
    """The answers of a fleet to a measurement of the plain model on development sets, in node order."""
    fleet = WatchedFleet(data)
    run = server(fleet, how=FedAvg())
    run.prepare()
    answers = dict(fleet.ask({node: [MeasureBn(subset=Subset.DEV)] for node in fleet.nodes}))
    return [reply for node in fleet.nodes for reply in answers[node] if isinstance(reply, Moments)]


def test_trap_1_statistics_of_all_nodes_count_and_not_only_the_last_ones():
    data = uneven_shards()
    answers = measured(data)
    ours = combine_moments(model().graph, [a.moments[0] for a in answers], [a.samples for a in answers])[:8]
    last = combine_moments(model().graph, [answers[-1].moments[0]], [answers[-1].samples])[:8]
    expected = np.concatenate(pooled_stem_statistics(np.concatenate([p.x[: p.dev_count] for p in data.values()])))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert np.abs(last / expected - 1).max() > 0.2


def test_trap_1_variances_are_combined_and_not_averaged():
    data = uneven_shards()
    answers = measured(data)
    weights = np.array([a.samples for a in answers], float)
    alone = [combine_moments(model().graph, [a.moments[0]], [a.samples])[4:8] for a in answers]
    naive = np.average(alone, axis=0, weights=weights)
    ours = combine_moments(model().graph, [a.moments[0] for a in answers], [a.samples for a in answers])[4:8]
    _, expected = pooled_stem_statistics(np.concatenate([p.x[: p.dev_count] for p in data.values()]))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert (naive < expected).all()  # what lies between the nodes is missing
    assert (naive < 0.8 * expected).any()


def test_trap_1_the_statistics_that_candidates_are_judged_with_are_the_combined_ones():
    data = uneven_shards()
    fleet = WatchedFleet(data)
    server(fleet).prepare()
    (_, _, task), *others = fleet.tasks(Evaluate)
    _, expected = pooled_stem_statistics(np.concatenate([p.x[: p.dev_count] for p in data.values()]))
    np.testing.assert_allclose(task.stats[0][4:8], expected, rtol=1e-4)
    assert all(np.array_equal(other.stats, task.stats) for _, _, other in others)


def test_trap_2_every_block_is_adjusted_equally_often():
    full = full_model()
    walker = FedTiny(density=0.05, delta_rounds=10, stop_round=100)
    masks = walker.start(full, seed=0).masks
    walk = [name for name, _ in blocks(full.graph, masks)]
    ours, adjustments = [], 0
    for number in range(1, 101):
        request = walker.request(full.graph, masks, round_number=number, adjustments=adjustments)
        if request is not None:
            ours.append(request.block)
            adjustments += 1
    assert ours[: len(walk)] == walk
    assert max(Counter(ours).values()) - min(Counter(ours).values()) <= 1
    # Four blocks by round number modulo four: with ten rounds between adjustments only two are ever met.
    assert {number % 4 for number in range(10, 101, 10)} == {0, 2}
    assert set(ours) == set(walk)


def test_trap_2_the_server_counts_adjustments():
    run = server(WatchedFleet(shards()), how=method(delta_rounds=3, stop_round=10), rounds=9)
    walked = [record.adjustment.block for record in run.rounds() if record.adjustment]
    assert len(walked) == len(set(walked)) == 3  # three blocks, three rounds between adjustments


def test_trap_3_the_cosine_runs_over_rounds_and_not_over_adjustments():
    stop, delta, live = 100, 10, 100_000
    ours = [exchanged(live, number, stop) for number in range(delta, stop + 1, delta)]
    faulty = [exchanged(live, adjustment, stop) for adjustment in range(1, len(ours) + 1)]
    assert ours[-1] == 0
    assert faulty[-1] > 0.29 * live  # it hardly decays
    walker = FedTiny(density=0.05, delta_rounds=delta, stop_round=stop, granularity="all")
    full = full_model()
    masks = walker.start(full, seed=0).masks
    for number in (10, 50, 90):
        request = walker.request(full.graph, masks, round_number=number, adjustments=number // delta - 1)
        assert request.k == {layer: exchanged(int(mask.sum()), number, stop) for layer, mask in masks.items()}


def test_trap_4_the_public_samples_come_from_the_training_split():
    from fedtiny.config import make_config
    from fedtiny.data.dataset import Dataset, Normalisation
    from fedtiny.experiment import Experiment

    def prepared(data: Dataset) -> bytes:
        config = make_config(
            {
                "fleet": {"kind": "simulated", "nodes": 2},
                "data": {"split": "even"},
                "model": {"width": 4},
                "pretrain": {"per_class": 4, "epochs": 2},
                "pruning": {"method": "fedavg"},
            }
        )
        with Experiment(config, dataset=data) as experiment:
            experiment.prepare()
            return b"".join(array.tobytes() for array in experiment.model.arrays.values())

    generator = np.random.default_rng(0)
    train, test = (generator.normal(size=(60, 1, 12, 12)).astype(np.float32) for _ in range(2))
    y = np.tile(np.arange(4, dtype=np.uint16), 15)

    def data(x_train: np.ndarray, x_test: np.ndarray) -> Dataset:
        return Dataset(
            name="noise",
            x_train=x_train,
            y_train=y,
            x_test=x_test,
            y_test=y,
            class_names=tuple("abcd"),
            normalisation=Normalisation(mean=(0.0,), std=(1.0,)),
        )

    pretrained = prepared(data(train, test))
    assert prepared(data(train, test[::-1].copy())) == pretrained
    assert prepared(data(test, train)) != pretrained  # pre-training on those samples would have shown


def test_trap_5_growth_averages_several_mini_batches():
    data = shards(1)
    fleet = WatchedFleet(data)
    run = server(fleet, how=method(density=0.5, rule="uniform", selection=False))
    run.prepare()
    (put,) = data.values()
    layer = 6
    ((_, (found,)),) = fleet.ask({"n0": [Score(k={layer: 40}, batches=2, seed=11)]})
    x, y = torch.from_numpy(put.x), torch.from_numpy(put.y.astype(np.int64))

    def gradient(order):
        """Of the same pruned weights in torch's own module."""
        module = net().train()
        with torch.no_grad():
            for name, mask in run.masks.items():
                module.get_parameter(name).mul_(torch.from_numpy(mask))
        batches = torch.split(torch.from_numpy(order), 8)
        for batch in batches:
            (F.cross_entropy(module(x[batch]), y[batch]) / len(batches)).backward()
        return module.get_parameter(model().graph.layer_names[layer]).grad.numpy().ravel()[found.indices[layer]]

    order = shuffled(len(put.y), 11)
    np.testing.assert_allclose(found.gradients[layer], gradient(order[:16]), atol=1e-6)
    assert np.abs(found.gradients[layer] - gradient(order[:8])).max() > 1e-3


def test_trap_5_growth_weighs_nodes_by_their_samples():
    def top(index, gradient, count):
        return TopK(
            indices={1: np.array([index], np.uint32)}, gradients={1: np.array([gradient], np.float32)}, samples=count
        )

    answers = [top(0, 1.0, 300), top(5, 2.0, 10)]
    ours = average_topk(model().graph, answers)[1].ravel()
    unweighted = np.array([1.0, 2.0]) / 2
    assert ours[0] > ours[5]
    assert unweighted[0] < unweighted[1]


def test_trap_6_statistics_are_measured_on_the_samples_as_given():
    data = shards()
    answers = measured(data)
    ours = combine_moments(model().graph, [a.moments[0] for a in answers], [a.samples for a in answers])[:8]
    given = np.concatenate([put.x[: put.dev_count] for put in data.values()])
    augmented = np.roll(given, 3, axis=3)
    augmented[..., :3] = 0  # a crop with padding
    np.testing.assert_allclose(ours, np.concatenate(pooled_stem_statistics(given)), rtol=1e-4, atol=1e-5)
    assert not np.allclose(ours, np.concatenate(pooled_stem_statistics(augmented)), rtol=1e-2)


def test_trap_7_every_method_trains_the_same_model():
    shapes = set()
    for how in (FedAvg(), method(), method(rule="uniform"), method(selection=False)):
        fleet = WatchedFleet(shards())
        run = server(fleet, how=how, rounds=1)
        next(run.rounds())
        shapes.add(tuple((name, array.shape) for name, array in run.model.arrays.items()))
        assert run.model.graph is model().graph
    assert len(shapes) == 1


def test_trap_7_another_definition_of_the_model_shows_in_the_graph():
    def kinds(graph: Graph):
        return [op.kind for op in graph.ops]

    assert kinds(model().graph) != kinds(model("group").graph)
    assert OpKind.GROUPNORM in kinds(model("group").graph)
    assert stat_count(model("group").graph) == 0


def test_trap_8_an_answer_has_k_entries_and_not_a_dense_gradient():
    fleet = WatchedFleet(shards())
    run = server(fleet, rounds=1)
    run.prepare()
    next(run.rounds())
    (_, node, task), *_ = fleet.tasks(Score)
    ((_, (_, answer)),) = fleet.ask({node: [fleet.tasks(Score)[0][2], task]})
    assert {layer: len(indices) for layer, indices in answer.indices.items()} == dict(task.k)
    dense = sum(4 * model().graph.params[model().graph.layers[layer]].size for layer in task.k)
    assert reply_bytes(answer)["topk"] == sum(8 * k + 6 for k in task.k.values())
    assert reply_bytes(answer)["topk"] < dense / 4


@pytest.mark.parametrize("extra", [1, 500])
def test_trap_8_the_server_refuses_more_than_it_asked_for(extra):
    def damage(call, node, answer):
        if isinstance(answer, NodeFailure) or node != "n1" or not any(isinstance(r, Update) for r in answer):
            return answer
        *others, top = answer
        layer = next(iter(top.indices))
        count = len(top.indices[layer]) + extra
        dense = TopK(
            indices=top.indices | {layer: np.arange(count, dtype=np.uint32)},
            gradients=top.gradients | {layer: np.ones(count, np.float32)},
            samples=top.samples,
        )
        return (*others, dense)

    record = next(server(WatchedFleet(shards(), damage=damage), rounds=1).rounds())
    assert [rejection.node for rejection in record.rejections] == ["n1"]
    assert "at most" in record.rejections[0].reason
    assert "n1" not in record.participants
