"""A simulated node's answers against torch's own modules, autograd and optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedtiny.federation.aggregate import combine_moments
from fedtiny.federation.tasks import (
    Describe,
    Done,
    Evaluate,
    Infer,
    Install,
    Load,
    MeasureBn,
    NodeFailure,
    PutData,
    Report,
    Score,
    Subset,
    Train,
)
from fedtiny.fleet.order import shuffled
from fedtiny.fleet.simulated import SimulatedFleet
from fedtiny.pruning import allocate, magnitude_masks
from fedtiny_export.blob import write_blob
from fedtiny_export.masks import encode_mask
from fedtiny_export.values import pack_values, unpack_values

from .runs import model, net, samples

MICRO_BATCH = 8
LAYER = 6
TRAIN = Train(epochs=2, lr=0.05, momentum=0.9, weight_decay=1e-3, seed=0xFFFFFFFF)  # seed + 1 wraps around


def masks(density=0.3):
    allocation = allocate(model().graph, density, "uniform")
    return {model().graph.layer_names[layer]: mask for layer, mask in magnitude_masks(model(), allocation).items()}


def loaded(sparse, count=45, micro_batch=MICRO_BATCH):
    x, y = samples(count, seed=5)
    fleet = SimulatedFleet(("a",))
    blob = write_blob(model().graph, model().arrays, sparse, names=False)
    ask(fleet, PutData(x=x, y=y, dev_count=13), Load(blob=blob, micro_batch=micro_batch, topk_max=64))
    return fleet, torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


def ask(fleet, *tasks):
    ((_, answer),) = fleet.ask({fleet.nodes[0]: tasks})
    assert not isinstance(answer, NodeFailure), answer.reason
    return answer[-1]


def masked_net(sparse):
    module = net()
    with torch.no_grad():
        for name, mask in sparse.items():
            module.get_parameter(name).mul_(torch.from_numpy(mask))
    return module.train()


@pytest.mark.parametrize("sparse", [{}, masks()], ids=["dense", "sparse"])
def test_training_is_torch_sgd_over_torch_modules(sparse):
    fleet, x, y = loaded(sparse)
    update = ask(fleet, TRAIN)
    module = masked_net(sparse)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for seed in (0xFFFFFFFF, 0):
        order = torch.from_numpy(shuffled(45, seed))
        losses, hits = [], 0
        for batch in torch.split(order[:40], MICRO_BATCH):
            optimiser.zero_grad()
            logits = module(x[batch])
            loss = F.cross_entropy(logits, y[batch])
            loss.backward()
            for name, mask in sparse.items():
                module.get_parameter(name).grad.mul_(torch.from_numpy(mask))
            optimiser.step()
            losses.append(loss.item())
            hits += int((logits.argmax(1) == y[batch]).sum())
    for name, array in unpack_values(model().graph, update.values, sparse).items():
        np.testing.assert_allclose(array, module.get_parameter(name).detach().numpy(), atol=1e-5, err_msg=name)
    assert (update.samples, update.seen, update.correct) == (45, 40, hits)
    assert update.loss_sum == pytest.approx(sum(losses) * MICRO_BATCH, rel=1e-5)


def test_fewer_samples_than_a_micro_batch_make_one_batch():
    fleet, _, _ = loaded({}, count=13, micro_batch=32)
    assert ask(fleet, TRAIN).seen == 13


def test_scores_are_the_largest_of_autograds_dense_gradient_over_several_batches():
    sparse = masks()
    fleet, x, y = loaded(sparse)
    name = model().graph.layer_names[LAYER]
    found = ask(fleet, Score(k={LAYER: 20, LAYER + 1: 3}, batches=3, seed=9))
    module = masked_net(sparse)
    order = torch.from_numpy(shuffled(45, 9))
    for batch in torch.split(order[: 3 * MICRO_BATCH], MICRO_BATCH):
        (F.cross_entropy(module(x[batch]), y[batch]) / 3).backward()
    dense = module.get_parameter(name).grad.numpy().ravel()
    dead = np.flatnonzero(~sparse[name].ravel())
    expected = np.sort(dead[np.argsort(-np.abs(dense[dead]))[:20]])
    assert found.indices[LAYER].tolist() == expected.tolist()
    np.testing.assert_allclose(found.gradients[LAYER], dense[expected], atol=1e-6)
    assert len(found.indices[LAYER + 1]) == 3
    assert found.samples == 45


def test_scores_of_more_batches_than_there_are_take_those_there_are():
    fleet, _, _ = loaded(masks())
    few, many = (ask(fleet, Score(k={LAYER: 5}, batches=batches, seed=9)) for batches in (5, 500))
    assert np.array_equal(few.gradients[LAYER], many.gradients[LAYER])


def norm_inputs(module, x):
    """What enters each batch norm of a torch module in training mode, in order of execution."""
    seen = []
    hooks = [
        m.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        for m in module.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    module.train()
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_measured_moments_are_torchs_statistics_of_the_samples_as_given():
    fleet, x, _ = loaded({}, micro_batch=45)
    answer = ask(fleet, MeasureBn(subset=Subset.ALL))
    found = combine_moments(model().graph, [answer.moments[0]], [answer.samples])
    expected = {}
    for given in norm_inputs(net(), x):
        var, mean = torch.var_mean(given, (0, 2, 3), correction=0)
        expected[len(expected)] = np.concatenate([mean.numpy(), var.numpy()])
    # operators of the graph may stand in another order of branches than torch runs them: compare as sets of rows
    at, rows = 0, []
    for op in model().graph.batchnorms:
        channels = model().graph.tensors[op.output].shape[0]
        rows.append(found[at : at + 2 * channels])
        at += 2 * channels
    for row in rows:
        assert any(len(row) == len(e) and np.allclose(row, e, atol=2e-5) for e in expected.values())


def test_moments_of_the_first_norm_do_not_depend_on_the_micro_batch():
    stem = slice(0, 8)
    found = []
    for micro_batch in (4, 13, 45):  # 13 leaves an incomplete last one, which counts
        fleet, _, _ = loaded({}, micro_batch=micro_batch)
        answer = ask(fleet, MeasureBn(subset=Subset.ALL))
        found.append(combine_moments(model().graph, [answer.moments[0]], [45])[stem])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5)
    np.testing.assert_allclose(found[1], found[2], rtol=1e-5)


def test_the_development_set_is_the_first_samples():
    fleet, _, _ = loaded({})
    assert ask(fleet, MeasureBn(subset=Subset.DEV)).samples == 13
    assert ask(fleet, Describe()).dev_samples == 13


def test_candidates_are_evaluated_as_torch_evaluates_the_pruned_module():
    sparse = masks(0.4)
    fleet, x, y = loaded(sparse)
    graph = model().graph
    thresholds = np.zeros((2, len(graph.layers)), np.float32)
    thresholds[1, LAYER] = np.sort(np.abs(model().arrays[graph.layer_names[LAYER]]), axis=None)[-100]
    thresholds[:, 0] = 100.0  # dense: ignored
    moments = ask(fleet, MeasureBn(subset=Subset.DEV, candidates=thresholds))
    stats = np.stack([combine_moments(graph, [row], [13]) for row in moments.moments])
    found = ask(fleet, Evaluate(subset=Subset.DEV, candidates=thresholds, stats=stats))
    for c in range(2):
        module = masked_net(sparse)
        weight = module.get_parameter(graph.layer_names[LAYER])
        with torch.no_grad():
            weight[weight.abs() < float(thresholds[c, LAYER])] = 0
        at = 0
        for op in graph.batchnorms:
            for index in op.params[2:]:
                buffer = module.get_buffer(graph.params[index].name)
                buffer.copy_(torch.from_numpy(stats[c, at : at + len(buffer)]))
                at += len(buffer)
        with torch.no_grad():
            logits = module.eval()(x[:13])
        assert found.loss_sum[c] == pytest.approx(float(F.cross_entropy(logits, y[:13], reduction="sum")), rel=1e-4)
        assert found.correct[c] == int((logits.argmax(1) == y[:13]).sum())
    assert found.loss_sum[0] != found.loss_sum[1]


def test_after_candidates_the_installed_model_is_back():
    fleet, x, _ = loaded(masks())
    before = ask(fleet, Infer(x=x.numpy())).logits
    thresholds = np.full((1, len(model().graph.layers)), 0.2, np.float32)
    moments = ask(fleet, MeasureBn(subset=Subset.DEV, candidates=thresholds)).moments
    stats = combine_moments(model().graph, [moments[0]], [13])[None]
    ask(fleet, Evaluate(subset=Subset.DEV, candidates=thresholds, stats=stats))
    assert np.array_equal(ask(fleet, Infer(x=x.numpy())).logits, before)


def test_installed_masks_and_values_replace_the_loaded_ones():
    sparse = masks()
    fleet, _, _ = loaded(sparse)
    name = model().graph.layer_names[LAYER]
    moved = sparse | {name: np.roll(sparse[name], 1)}
    values = np.arange(len(pack_values(model().graph, model().arrays, moved)), dtype=np.float32) / 1e4
    ask(fleet, Install(values=values, masks={LAYER: encode_mask(moved[name])}))
    still = ask(fleet, Train(epochs=1, lr=0.0, momentum=0.0, weight_decay=0.0, seed=0))
    assert np.array_equal(still.values, values)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ((TRAIN,), "Load task first"),
        ((Load(blob=b"FTM1", micro_batch=8),), "not a valid blob"),
    ],
)
def test_a_node_that_cannot_do_its_task_fails_alone_and_says_why(tasks, words):
    fleet = SimulatedFleet(("a", "b"))
    answers = dict(fleet.ask({"a": tasks, "b": [Describe()]}))
    assert isinstance(answers["a"], NodeFailure)
    assert words in answers["a"].reason
    assert not isinstance(answers["b"], NodeFailure)


def test_a_mask_beyond_the_loaded_room_and_values_that_do_not_fit_are_refused():
    sparse = masks()
    fleet, _, _ = loaded(sparse)
    full = np.ones_like(sparse[model().graph.layer_names[LAYER]])
    values = pack_values(model().graph, model().arrays, sparse)
    broken = values.copy()
    broken[3] = np.nan
    for task in (
        Install(values=values, masks={LAYER: encode_mask(full)}),
        Install(values=values[:-1]),
        Install(values=broken),
    ):
        ((_, answer),) = fleet.ask({"a": [task]})
        assert isinstance(answer, NodeFailure)
    assert isinstance(ask(fleet, Install(values=values)), Done)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000])
def test_the_order_of_an_epoch_visits_each_sample_once(count):
    for key in (0, 1, 0xFFFFFFFF):
        assert sorted(shuffled(count, key)) == list(range(count))


def test_epochs_are_ordered_differently():
    assert shuffled(100, 1).tolist() != shuffled(100, 2).tolist()


def test_the_callers_threads_are_given_back():
    before = torch.get_num_threads()
    fleet, _, _ = loaded({})
    ask(fleet, TRAIN)
    assert torch.get_num_threads() == before


def test_the_number_of_threads_changes_no_bit():
    found = []
    for threads in (1, 2):
        x, y = samples(30, seed=1)
        fleet = SimulatedFleet(("a", "b", "c"), threads=threads)
        blob = write_blob(model().graph, model().arrays, masks(), names=False)
        orders = [PutData(x=x, y=y, dev_count=3), Load(blob=blob, micro_batch=8), TRAIN]
        found.append({name: replies[-1].values.tobytes() for name, replies in fleet.ask(dict.fromkeys("abc", orders))})
    assert found[0] == found[1]


def test_a_report_counts_tasks_and_time():
    fleet, _, _ = loaded({})
    ask(fleet, TRAIN)
    report = ask(fleet, Report())
    assert report.tasks == 3  # before this one
    assert report.busy_s > 0
