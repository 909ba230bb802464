"""The two kinds of fleet give the same answers, within float tolerance, so that the server cannot tell them apart."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny.config import load_config
from fedtiny.experiment import Experiment
from fedtiny.federation.tasks import Load, MeasureBn, Norm, PutData, Report, Score, Subset, Train
from fedtiny.fleet import open_fleet
from fedtiny.fleet.order import shuffled
from fedtiny_export.blob import write_blob
from fedtiny_export.core import shuffle
from fedtiny_export.errors import ConfigError

from .runs import method, model, server, shards


@pytest.fixture(scope="module")
def finished():
    runs = {}
    for kind in ("native", "simulated"):
        data = shards()
        fleet = open_fleet(kind, tuple(data))
        list(fleet.ask({node: [put] for node, put in data.items()}))
        run = server(fleet, rounds=3, lr=0.02)
        runs[kind] = (run, list(run.rounds()))
        fleet.close()
    return runs


def test_both_choose_the_same_candidate_by_the_same_losses(finished):
    native, simulated = (finished[kind][0].selection for kind in ("native", "simulated"))
    np.testing.assert_allclose(native.losses, simulated.losses, rtol=1e-4)
    assert native.chosen == simulated.chosen
    assert native.accuracies == simulated.accuracies


def test_both_train_and_adjust_alike(finished):
    native, simulated = (finished[kind][1] for kind in ("native", "simulated"))
    for ours, theirs in zip(native, simulated, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=2e-2)
        assert ours.adjustment == theirs.adjustment
    assert native[0].train_loss == pytest.approx(simulated[0].train_loss, rel=1e-4)


def test_both_cost_the_same_bytes_and_plan_the_same_memory(finished):
    native, simulated = (finished[kind][0] for kind in ("native", "simulated"))
    assert native.traffic.by_kind.keys() == simulated.traffic.by_kind.keys()
    assert native.traffic.up_by_kind == simulated.traffic.up_by_kind
    assert native.plans == simulated.plans
    assert all(plan.plan_bytes > 0 for plan in native.plans.values())


def test_a_whole_run_comes_to_the_same_accuracy_and_masks_within_noise():
    ends = {}
    for kind in ("native", "simulated"):
        with Experiment(load_config("quick", {"fleet.kind": kind})) as experiment:
            records = list(experiment)
            ends[kind] = experiment.selection.chosen, records[-1].accuracy, experiment.server.masks
    (chosen, accuracy, masks), (other, their_accuracy, their_masks) = ends["native"], ends["simulated"]
    assert chosen == other
    assert accuracy == pytest.approx(their_accuracy, abs=0.03)
    assert accuracy > 0.5
    shared = sum(int((mask & their_masks[name]).sum()) for name, mask in masks.items())
    assert shared / sum(int(mask.sum()) for mask in masks.values()) > 0.9


@pytest.mark.parametrize("kind", ["native", "simulated"])
def test_frozen_norms_train_with_what_was_measured_after_the_last_round(kind: str):
    data = shards()
    fleet = open_fleet(kind, tuple(data))
    list(fleet.ask({node: [put] for node, put in data.items()}))
    run = server(fleet, rounds=3, lr=0.01, momentum=0.0, norm=Norm.FROZEN, how=method(progressive=False))
    losses = [record.train_loss for record in run.rounds()]
    fleet.close()
    assert max(losses) < 1.05 * losses[0]  # with stale statistics it goes to infinity
    assert losses[-1] < losses[0]


def test_frozen_norms_without_measuring_are_refused():
    with pytest.raises(ConfigError, match=r"model.norm = frozen, set run.bn_refresh = measure"):
        Experiment(
            load_config("quick", {"model.name": "resnet-mini", "model.norm": "frozen", "run.bn_refresh": "train"})
        )


def test_statistics_of_layers_that_do_not_train_stay_though_all_are_measured():
    data = shards(2)
    fleet = open_fleet("simulated", tuple(data))
    list(fleet.ask({node: [put] for node, put in data.items()}))
    run = server(fleet, rounds=2, last_layers=1, how=method(selection=False, last_layers=1))
    before = model().arrays
    list(run.rounds())
    fleet.close()
    constants = model().graph.constants(1)
    assert constants
    assert all(np.array_equal(run.model.arrays[name], before[name]) for name in constants if "running" in name)


def test_what_is_measured_does_not_depend_on_the_statistics_that_are_stored():
    moments = {}
    put = shards(1)["n0"]
    for kind, norm in (("native", Norm.FROZEN), ("simulated", Norm.FROZEN), ("simulated", Norm.BATCH)):
        fleet = open_fleet(kind, ("n0",))
        load = Load(blob=write_blob(model().graph, model().arrays, {}, names=False), micro_batch=4, norm=norm)
        ((_, replies),) = fleet.ask({"n0": [put, load, MeasureBn(subset=Subset.ALL)]})
        moments[kind, norm] = replies[2].moments
        fleet.close()
    for found in moments.values():
        np.testing.assert_allclose(found, moments["simulated", Norm.BATCH], rtol=1e-3, atol=1e-3)


def test_each_answer_to_the_same_tasks_agrees():
    start = method().start(model(), seed=0)
    named = {model().graph.layer_names[layer]: mask for layer, mask in start.masks.items()}
    put = shards(1)["n0"]
    tasks = [
        PutData(x=put.x, y=put.y, dev_count=4),
        Load(blob=write_blob(model().graph, model().arrays, named, names=False), micro_batch=8, topk_max=50),
        MeasureBn(subset=Subset.ALL, candidates=start.pool.thresholds),
        MeasureBn(subset=Subset.DEV),
        Train(epochs=1, lr=0.02, momentum=0.9, weight_decay=1e-3, seed=3),
        Score(k={6: 10, 7: 5}, batches=2, seed=4),
        Report(),
    ]
    del tasks[3]  # after candidates a native node waits for values: the server always installs them
    tasks.insert(3, tasks[1])
    answers = []
    for kind in ("native", "simulated"):
        fleet = open_fleet(kind, ("a",))
        ((_, answer),) = fleet.ask({"a": tasks})
        assert isinstance(answer, tuple), answer
        answers.append(answer)
        fleet.close()
    for native, simulated in zip(*answers, strict=True):
        assert type(native) is type(simulated)
    (_, _, moments, _, update, topk, report), (_, _, moments2, _, update2, topk2, report2) = answers
    np.testing.assert_allclose(moments.moments, moments2.moments, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(update.values, update2.values, atol=1e-5)
    np.testing.assert_allclose(update.moments, update2.moments, rtol=1e-3, atol=1e-3)
    assert (update.samples, update.seen, update.correct) == (update2.samples, update2.seen, update2.correct)
    assert {k: v.tolist() for k, v in topk.indices.items()} == {k: v.tolist() for k, v in topk2.indices.items()}
    assert report.memory == report2.memory
    assert report.peak_bytes == report2.peak_bytes


@pytest.mark.parametrize("count", [1, 2, 5, 64, 65, 500])
def test_both_visit_samples_in_the_same_order(count):
    for key in (0, 7, 0xFFFFFFFF):
        assert shuffled(count, key).tolist() == [shuffle(i, count, key) for i in range(count)]


def test_both_train_alike_on_the_squared_error():
    losses = {}
    for kind in ("native", "simulated"):
        data = shards()
        fleet = open_fleet(kind, tuple(data))
        list(fleet.ask({node: [put] for node, put in data.items()}))
        losses[kind] = [record.train_loss for record in server(fleet, rounds=2, lr=0.02, loss="mse").rounds()]
        fleet.close()
    assert losses["native"] == pytest.approx(losses["simulated"], rel=1e-3)
    assert losses["native"][0] < 0.5  # of three classes: cross-entropy would begin near ln 3
