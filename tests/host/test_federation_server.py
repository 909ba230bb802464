"""The round loop over simulated nodes: what it sends, whom it leaves out, and that it gives the same bits."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedtiny.federation.cost import score_flops
from fedtiny.federation.records import QuorumLost
from fedtiny.federation.tasks import Install, Load, MeasureBn, NodeFailure, Norm, PutData, Subset, Train, Update
from fedtiny.federation.traffic import task_bytes
from fedtiny.fleet.order import shuffled
from fedtiny.pruning import FedAvg
from fedtiny_export.flops import training_flops
from fedtiny_export.masks import decode_mask
from fedtiny_export.values import value_count

from ..conftest import Outcome
from .runs import ListJournal, WatchedFleet, method, model, net, server, settings, shards

ORDERS = 20


def sha(run) -> str:
    arrays = run.model.arrays
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def test_fedavg_of_one_node_is_plain_torch_training():
    data = shards(1)
    fleet = WatchedFleet(data)
    run = server(fleet, how=FedAvg(), rounds=3, lr=0.05, lr_decay="constant", momentum=0.9)
    list(run.rounds())
    module = net().train()
    (put,) = data.values()
    x, y = torch.from_numpy(put.x), torch.from_numpy(put.y.astype(np.int64))
    for _, _, task in fleet.tasks(Train):
        optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        order = torch.from_numpy(shuffled(len(x), task.seed))
        for batch in torch.split(order[: len(x) // 8 * 8], 8):
            optimiser.zero_grad()
            F.cross_entropy(module(x[batch]), y[batch]).backward()
            optimiser.step()
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(run.model.arrays[name], parameter.detach().numpy(), atol=1e-5, err_msg=name)


def test_the_order_of_arrival_changes_no_bit(outcome: Outcome):
    shas = set()
    for order in (None, *range(ORDERS)):
        run = server(WatchedFleet(shards(), shuffle=order), rounds=2)
        list(run.rounds())
        shas.add(sha(run))
    assert len(shas) == 1
    same = "the same model, bit for bit"
    outcome("answers overtake each other", end="host", tried=ORDERS, what="orders", result=same)


def test_another_seed_gives_another_model():
    runs = [server(WatchedFleet(shards()), rounds=1, seed=seed) for seed in (0, 1)]
    for run in runs:
        list(run.rounds())
    assert sha(runs[0]) != sha(runs[1])


def test_the_candidate_with_the_smallest_mean_loss_is_chosen_and_sent_as_masks():
    fleet = WatchedFleet(shards())
    run = server(fleet)
    selection = run.prepare()
    assert selection.chosen == int(np.argmin(selection.losses))
    assert len(selection.losses) == 5
    assert abs(run.density - selection.densities[selection.chosen]) < 1e-9
    chosen = run.masks
    next(run.rounds())
    _, _, first = fleet.tasks(Install)[0]
    assert first.masks
    for layer, encoded in first.masks.items():
        mask = chosen[run.model.graph.layer_names[layer]].ravel()
        assert np.array_equal(decode_mask(encoded, mask.size), mask)


def test_the_union_with_thresholds_is_smaller_than_the_candidates_apart():
    selection = server(WatchedFleet(shards())).prepare()
    assert selection.bytes < selection.bytes_if_sent_apart / 2


def test_the_pruned_weights_of_the_model_are_zero_and_the_density_stays():
    run = server(WatchedFleet(shards()), rounds=5)
    run.prepare()
    live = {name: int(mask.sum()) for name, mask in run.masks.items()}
    records = list(run.rounds())
    assert all(record.adjustment is not None and record.adjustment.grown > 0 for record in records)
    assert {name: int(mask.sum()) for name, mask in run.masks.items()} == live
    for name, mask in run.masks.items():
        assert not run.model.arrays[name][~mask].any()


def test_masks_travel_only_when_they_changed():
    fleet = WatchedFleet(shards())
    run = server(fleet, how=method(delta_rounds=2), rounds=5, bn_refresh="train")
    records = list(run.rounds())
    by_round = {}
    trained = 0
    for orders in fleet.orders:
        if any(isinstance(task, Train) for tasks in orders.values() for task in tasks):
            trained += 1
            by_round[trained] = [t.masks for tasks in orders.values() for t in tasks if isinstance(t, Install)]
    changed = {record.round for record in records if record.adjustment}
    assert changed == {2, 4}
    for number in (2, 4):  # the round after the choice, and the one after each round that adjusted nothing
        assert all(not masks for masks in by_round[number])
    for number in (3, 5):  # one block each: not the layers of the others
        names = {run.model.graph.layer_names[layer] for masks in by_round[number] for layer in masks}
        assert names
        assert names < set(run.masks)


def test_a_failing_node_is_left_out_named_and_comes_back_with_the_right_masks():
    calls = {}

    def damage(call, node, answer):
        calls.setdefault(call, []).append(node)
        return NodeFailure(reason="battery empty") if node == "n2" and call == 4 else answer

    fleet = WatchedFleet(shards(), damage=damage)
    run = server(fleet, rounds=4, bn_refresh="train")
    records = list(run.rounds())  # calls: 0 load, 1-2 select, 3 to 6 rounds 1 to 4, 7 final measurement
    assert records[1].participants == ("n0", "n1", "n3")
    assert [(f.node, f.reason) for f in records[1].failures] == [("n2", "battery empty")]
    assert records[2].participants == ("n0", "n1", "n2", "n3")
    tasks = fleet.orders[5]["n2"]
    assert isinstance(tasks[0], Load)  # it may have lost its model, so it gets it whole, with the masks of now
    assert isinstance(fleet.orders[5]["n1"][0], Install)
    assert isinstance(fleet.orders[6]["n2"][0], Install)


def test_a_node_that_missed_rounds_ends_with_the_masks_of_the_others():
    lost = {3, 4, 5}
    fleet = WatchedFleet(
        shards(),
        damage=lambda call, node, answer: NodeFailure(reason="gone") if node == "n1" and call in lost else answer,
    )
    run = server(fleet, rounds=5, bn_refresh="train")
    records = list(run.rounds())
    assert [("n1" in record.participants) for record in records] == [False, False, False, True, True]
    assert all(not record.rejections for record in records)  # a wrong mask would give values of a wrong count


def test_a_node_that_does_not_answer_at_all_is_a_failure():
    fleet = WatchedFleet(shards(), damage=lambda call, node, answer: None if node == "n0" and call == 3 else answer)
    record = next(server(fleet).rounds())
    assert [failure.node for failure in record.failures] == ["n0"]
    assert "n0" not in record.participants


def test_a_failure_while_preparing_stands_in_the_first_record():
    fleet = WatchedFleet(
        shards(), damage=lambda call, node, answer: NodeFailure(reason="late") if node == "n3" and call == 0 else answer
    )
    record = next(server(fleet).rounds())
    assert [(failure.node, failure.phase) for failure in record.failures] == [("n3", "load")]
    assert "n3" in record.participants


def spoil(node_to_spoil, at):
    def damage(call, node, answer):
        if node != node_to_spoil or call != at:
            return answer
        return tuple(
            replace(r, values=np.where(np.arange(r.values.size) == 5, np.nan, r.values)) if isinstance(r, Update) else r
            for r in answer
        )

    return damage


def test_an_update_with_nan_is_rejected_named_and_changes_nothing():
    journal = ListJournal()
    run = server(WatchedFleet(shards(), damage=spoil("n1", 3)), journal=journal, rounds=1)
    record = next(run.rounds())
    assert [(r.node, r.reason) for r in record.rejections] == [("n1", "NaN or infinity in values")]
    assert record.participants == ("n0", "n2", "n3")
    assert [node for _, node, _ in journal.updates] == ["n0", "n2", "n3"]
    assert all(np.isfinite(array).all() for array in run.model.arrays.values())
    silent = server(
        WatchedFleet(
            shards(), damage=lambda call, node, a: NodeFailure(reason="off") if node == "n1" and call == 3 else a
        ),
        rounds=1,
    )
    next(silent.rounds())
    assert sha(run) == sha(silent)


def test_a_lost_quorum_keeps_the_state_and_the_run_goes_on_from_it():
    journal = ListJournal()
    down = {5}  # the third round

    def damage(call, node, answer):
        return NodeFailure(reason="storm") if call in down and node != "n0" else answer

    run = server(WatchedFleet(shards(), damage=damage), journal=journal, bn_refresh="train")
    rounds = run.rounds()
    next(rounds)
    next(rounds)
    before = sha(run)
    with pytest.raises(QuorumLost, match=r"round 3: only 1 of 4 .* quorum is 2.*storm.*after round 2 is kept") as lost:
        next(rounds)
    assert sha(run) == before
    assert run.round == lost.value.state.round == journal.stops[0][0].round == 2
    down.clear()
    assert [record.round for record in run.rounds()] == [3, 4]
    untroubled = server(WatchedFleet(shards()), bn_refresh="train")
    list(untroubled.rounds())
    assert sha(run) == sha(untroubled)


def test_a_lost_quorum_while_preparing_leaves_the_model_as_it_was():
    fleet = WatchedFleet(shards(), damage=lambda call, node, answer: NodeFailure(reason="none here"))
    run = server(fleet)
    before = sha(run)
    with pytest.raises(QuorumLost):
        run.prepare()
    assert sha(run) == before
    assert run.round == -1


def test_a_restored_run_ends_in_the_same_bits():
    journal = ListJournal()
    whole = server(WatchedFleet(shards()), journal=journal)
    list(whole.rounds())
    late = server(WatchedFleet(shards()))
    late.restore(journal.states[1])
    records = list(late.rounds())
    assert [record.round for record in records] == [3, 4]
    assert sha(late) == sha(whole)
    assert late.selection == whole.selection
    assert late.flops_per_round_max == whole.flops_per_round_max
    assert [r.adjustment for r in records] == [r.adjustment for r in journal.records[2:]]


def test_dense_fedavg_bytes_are_those_that_dense_fedavg_moves():
    for refresh in ("train", "measure"):
        run = server(WatchedFleet(shards()), how=FedAvg(), bn_refresh=refresh)
        list(run.rounds())
        assert run.traffic.dense_fedavg == run.traffic.down + run.traffic.up
        sparse = server(WatchedFleet(shards()), bn_refresh=refresh)
        list(sparse.rounds())
        assert sparse.traffic.dense_fedavg == run.traffic.dense_fedavg


def test_bytes_down_are_the_payloads_sent():
    fleet = WatchedFleet(shards())
    run = server(fleet)
    records = list(run.rounds())
    sent = [task for orders in fleet.orders for tasks in orders.values() for task in tasks]
    assert run.traffic.down == sum(task_bytes(task).total() for task in sent)
    assert run.traffic.down_by_kind["model"] == sum(len(task.blob) for _, _, task in fleet.tasks(Load))
    masks = [mask for _, _, task in fleet.tasks(Install) for mask in task.masks.values()]
    assert run.traffic.down_by_kind["mask"] == sum(len(mask.data) + 3 for mask in masks)
    values = [task.values for _, _, task in fleet.tasks(Install)]
    assert run.traffic.down_by_kind["values"] == 4 * sum(len(vector) for vector in values)
    assert all(len(vector) == value_count(run.model.graph, run.masks) for vector in values)
    in_rounds = sum(record.bytes_down + record.bytes_up for record in records)
    assert 0 < in_rounds < run.traffic.down + run.traffic.up


def test_the_costliest_round_counts_training_and_the_blocks_dense_gradient():
    run = server(WatchedFleet(shards()), how=method(delta_rounds=2, stop_round=6), rounds=2, epochs=3)
    first, second = run.rounds()
    graph, densities, most = run.model.graph, run.densities, max(put.y.size for put in shards().values())
    train = training_flops(graph, densities, samples=most, epochs=3)
    assert first.flops == pytest.approx(train)
    block = [name for name in run.masks if "stage3" in name]
    assert second.flops == pytest.approx(train + score_flops(graph, densities, block, samples=16))
    assert run.flops_per_round_max == second.flops
    assert run.flops_ratio_to_dense == pytest.approx(second.flops / training_flops(graph, samples=most, epochs=3))


def test_the_last_record_judges_the_model_that_is_exported():
    judged = []

    def evaluate(current):
        judged.append({name: array.copy() for name, array in current.arrays.items()})
        return 1.0, 0.5

    fleet = WatchedFleet(shards())
    run = server(fleet, evaluate=evaluate, rounds=2, bn_refresh="train")
    list(run.rounds())
    assert all(np.array_equal(judged[-1][name], array) for name, array in run.model.arrays.items())
    assert [task.subset for _, node, task in fleet.tasks(MeasureBn) if node == "n0"][-1] is Subset.ALL


def test_statistics_travel_only_where_nodes_train_with_them():
    for norm, expected in ((Norm.BATCH, False), (Norm.FROZEN, True)):
        fleet = WatchedFleet(shards())
        next(server(fleet, norm=norm, rounds=1, lr=0.001).rounds())
        assert all((task.stats is not None) is expected for _, _, task in fleet.tasks(Install))


def test_a_model_without_batch_norms_is_selected_and_trained_too():
    fleet = WatchedFleet(shards())
    run = server(fleet, start=model("group"))
    records = list(run.rounds())
    assert len(records) == 4
    assert run.selection.count == 5
    assert not fleet.tasks(MeasureBn)


def test_training_learns():
    data = shards()
    x, y = (np.concatenate([getattr(put, key) for put in data.values()]) for key in ("x", "y"))
    data = {name: PutData(x=put.x, y=put.y, dev_count=8) for name, put in data.items()}
    records = list(server(WatchedFleet(data), rounds=6, epochs=3, lr=0.1).rounds())
    assert len(x) == len(y)
    assert records[-1].train_loss < records[0].train_loss / 2
    assert records[-1].train_accuracy > 0.8


def test_the_learning_rate_falls_as_a_cosine_to_its_final_share():
    falling = settings(rounds=11, lr=0.2, lr_final=0.1)
    assert falling.lr_at(1) == pytest.approx(0.2)
    assert falling.lr_at(6) == pytest.approx(0.11)
    assert falling.lr_at(11) == pytest.approx(0.02)
    assert settings(rounds=11, lr=0.2, lr_decay="constant").lr_at(11) == 0.2


def test_every_answer_is_told_to_the_listener():
    events = []
    list(server(WatchedFleet(shards()), listen=events.append, rounds=1).rounds())
    assert {event.phase for event in events} == {"load", "select", "train", "measure"}
    assert [event.done for event in events if event.phase == "train"] == [1, 2, 3, 4]
