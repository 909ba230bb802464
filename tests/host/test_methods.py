"""Each method's defining property, on a net small enough that all of them run in seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedtiny.federation.tasks import Install, Load, Score, Train
from fedtiny.pruning import BUILT_IN, Answer, Public, Seen, allocate, density_of, make_method
from fedtiny.pruning.density import Allocation, layer_sizes
from fedtiny.pruning.fedrts import core
from fedtiny.pruning.ranking import keep_best, weights_of
from fedtiny.pruning.saliency import gradients, hessian_gradient, linearised, path_scores
from fedtiny_export.errors import ConfigError
from fedtiny_export.model import Model
from fedtiny_export.torch_in import from_torch
from fedtiny_export.values import pack_values

from .runs import CLASSES, SHAPE, ListJournal, WatchedFleet, model, net, samples, server, shards

DENSITY = 0.2
FIXED = ("magnitude", "snip", "synflow", "grasp", "ssfl")
CHANGING = ("fedtiny", "prunefl", "feddst", "fedmef", "fedrts")


@cache
def public() -> Public:
    x, y = samples(24, seed=50)
    return Public(x=x, y=y)


def made(name: str, **options):
    settings = {"density": DENSITY, "pool_size": 3, "delta_rounds": 1, "stop_round": 3, "score_batches": 1}
    return make_method(name, settings, options)


def run_of(name: str, nodes: int = 2, fleet: WatchedFleet | None = None, **changes):
    changes = {"rounds": 3, "public": public(), "momentum": 0.9} | changes
    options = changes.pop("options", {})
    fleet = fleet or WatchedFleet(shards(nodes))
    return server(fleet, how=made(name, **options), **changes), fleet


def seen(weights, gradients=None, answers=(), before=None, **more) -> Seen:
    zeros = {layer: np.zeros_like(w) for layer, w in weights.items()}
    fields = {"travel": 1.0, "round_number": 1, "seed": 5} | more
    return Seen(weights=weights, before=before or weights, gradients=gradients or zeros, answers=answers, **fields)


def test_every_built_in_method_is_made_by_its_name():
    assert {made(name).name for name in BUILT_IN} == set(BUILT_IN)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in ("fedavg", "small-dense")])
def test_a_run_ends_at_the_density_asked_for_and_its_pruned_weights_are_zero(name: str):
    run, _ = run_of(name)
    records = list(run.rounds())
    assert not any(record.failures or record.rejections for record in records)
    wanted = density_of(run.model.graph, keep_best(run.model.graph, allocate(run.model.graph, DENSITY), _ones()))
    assert run.density == pytest.approx(wanted, rel=0.02)  # the pool's tolerance; others are exact
    for layer, mask in run.masks.items():
        assert not run.model.arrays[layer][~mask].any()
        assert mask.any()


def _ones():
    return {layer: np.ones_like(w) for layer, w in weights_of(model().graph, model().arrays).items()}


@pytest.mark.parametrize("name", FIXED)
def test_pruning_before_training_changes_no_mask_afterwards(name: str):
    run, _ = run_of(name)
    run.prepare()
    before = run.masks
    records = list(run.rounds())
    assert all(record.adjustment is None for record in records)
    assert all(np.array_equal(before[layer], mask) for layer, mask in run.masks.items())


@pytest.mark.parametrize("name", CHANGING)
def test_the_others_move_weights_and_keep_their_number(name: str):
    run, _ = run_of(name)
    run.prepare()
    before = run.masks
    records = list(run.rounds())
    moved = [record.adjustment for record in records if record.adjustment]
    assert sum(adjustment.grown for adjustment in moved) > 0
    assert all(adjustment.grown == adjustment.pruned for adjustment in moved)
    assert sum(m.sum() for m in before.values()) == sum(m.sum() for m in run.masks.values())


@pytest.mark.parametrize("name", ["lotteryfl", "prunefl", "feddst", "fedrts"])
def test_a_stopped_run_goes_on_to_the_same_bits(name: str):
    journal = ListJournal()
    whole, _ = run_of(name, journal=journal)
    list(whole.rounds())
    late, _ = run_of(name)
    late.restore(journal.states[0])
    list(late.rounds())
    assert all(np.array_equal(array, whole.model.arrays[key]) for key, array in late.model.arrays.items())
    assert late.costs.tally()["flops_total"] == whole.costs.tally()["flops_total"]


def test_magnitude_keeps_the_largest_weights_of_each_layer():
    masks = made("magnitude").start(model(), seed=0).masks
    for layer, mask in masks.items():
        size = np.abs(weights_of(model().graph, model().arrays)[layer])
        assert size[mask].min() >= size[~mask].max()


def torch_loss(module, x, y):
    return F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y.astype(np.int64)))


def torch_weights(module):
    """The layers' weights in the order of the graph."""
    return [module.get_parameter(name) for name in model().graph.layer_names]


def test_snip_keeps_the_largest_sensitivities_of_torch():
    module = net().train()
    grads = torch.autograd.grad(torch_loss(module, public().x, public().y), torch_weights(module))
    expected = {
        layer: (g * w).abs().detach().numpy()
        for layer, (g, w) in enumerate(zip(grads, torch_weights(module), strict=True))
    }
    found = gradients(model(), public())
    for layer, w in weights_of(model().graph, model().arrays).items():
        np.testing.assert_allclose(np.abs(w * found[layer]), expected[layer], atol=1e-6)
    masks = made("snip").start(model(), seed=0, public=public()).masks
    free = [layer for layer in masks if layer not in allocate(model().graph, DENSITY).rows]
    live = np.concatenate([expected[layer][masks[layer]] for layer in free])
    dead = np.concatenate([expected[layer][~masks[layer]] for layer in free])
    assert (live < dead.max() - 1e-6).sum() <= len(free)  # at most the weight that every layer keeps


def test_grasp_scores_are_the_change_of_the_gradients_norm():
    """S(-w) = -w H g: half of the derivative of |g|^2 along -w, here by finite differences of torch's gradient."""
    norm = model("group")
    scores = {
        layer: w * hessian_gradient(norm, public(), temperature=1.0)[layer]
        for layer, w in weights_of(norm.graph, norm.arrays).items()
    }
    layer, step = 3, 1e-3

    def squared(scale):
        module = net(norm="group").double().train()
        names = norm.graph.layer_names
        with torch.no_grad():
            module.get_parameter(names[layer]).mul_(scale)
        x, y = torch.from_numpy(public().x).double(), torch.from_numpy(public().y.astype(np.int64))
        grads = torch.autograd.grad(F.cross_entropy(module(x), y), [module.get_parameter(name) for name in names])
        return sum(float((g**2).sum()) for g in grads)

    slope = (squared(1 + step) - squared(1 - step)) / (2 * step) / 2
    assert scores[layer].sum() == pytest.approx(slope, rel=1e-3)


def test_grasp_drops_the_weights_whose_loss_hurts_the_gradients_flow_least():
    masks = made("grasp").start(model(), seed=0, public=public()).masks
    found = hessian_gradient(model(), public(), temperature=200.0)
    layer = max(masks, key=lambda layer: masks[layer].size)
    scores = weights_of(model().graph, model().arrays)[layer] * found[layer]
    assert np.median(scores[masks[layer]]) > np.median(scores[~masks[layer]])


def chain() -> Model:
    """Layers one after another, as the conservation law wants them."""
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 6, 3, padding=1), torch.nn.GroupNorm(2, 6), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(6 * 36, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES),
    )  # fmt: skip
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return from_torch(module, SHAPE)


def test_synflow_conserves_flow_from_layer_to_layer():
    totals = [float(score.sum()) for score in path_scores(chain()).values()]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-9)


def test_synflow_needs_no_data_and_sees_no_offsets():
    plain = linearised(chain())
    for param in plain.graph.params:
        if param.name.endswith("bias"):
            assert not plain.arrays[param.name].any()
    masks = made("synflow").start(model(), seed=0).masks
    assert all(mask.any() for mask in masks.values())


def test_synflow_collapses_no_layer_where_one_step_by_magnitude_does():
    graph, density = chain().graph, 0.02
    budget = Allocation(dict.fromkeys(range(len(graph.layers)), density))
    size = {layer: np.abs(w) / (100 if layer == 1 else 1) for layer, w in weights_of(graph, chain().arrays).items()}
    assert keep_best(graph, budget, size)[1].sum() == 1  # the weight that every layer keeps
    faint = replace(chain(), arrays={n: a / 100 if n == graph.layer_names[1] else a for n, a in chain().arrays.items()})
    masks = make_method("synflow", {"density": density, "rule": "uniform"}).start(faint, seed=0).masks
    assert masks[1].sum() > 1


def test_ssfl_saliency_is_the_nodes_own_gradient_averaged_by_samples():
    run, fleet = run_of("ssfl")
    run.prepare()
    (_, _, probe), *_ = fleet.tasks(Train)
    from fedtiny.fleet.order import shuffled

    total = dict.fromkeys(range(len(model().graph.layers)), 0.0)
    count = 0
    for put in fleet.data.values():
        module = net().train()
        order = shuffled(len(put.y), probe.seed)
        sums = [torch.zeros_like(w) for w in torch_weights(module)]
        for start in range(0, len(order) // 8 * 8, 8):
            chosen = order[start : start + 8]
            grads = torch.autograd.grad(torch_loss(module, put.x[chosen], put.y[chosen]), torch_weights(module))
            sums = [s + g for s, g in zip(sums, grads, strict=True)]
        for layer, (s, w) in enumerate(zip(sums, torch_weights(module), strict=True)):
            total[layer] = total[layer] + (s * w).abs().detach().numpy() * len(put.y)
        count += len(put.y)
    expected = keep_best(model().graph, allocate(model().graph, DENSITY), {k: v / count for k, v in total.items()})
    same = [np.mean(mask == expected[model().graph.layer_names.index(name)]) for name, mask in run.masks.items()]
    assert min(same) > 0.95  # float32's steps decide between neighbours at the threshold


def test_a_probe_leaves_weights_alone_and_loads_the_small_model():
    run, fleet = run_of("ssfl", rounds=1)
    run.prepare()
    for name, array in run.model.arrays.items():
        live = run.masks.get(name, np.ones(array.shape, bool))
        assert np.array_equal(array[live], model().arrays[name][live])
    loads = fleet.tasks(Load)
    assert len(loads) == 4  # two nodes, before the probe and after it
    assert len(loads[-1][2].blob) < len(loads[0][2].blob) / 2
    assert run.costs.flops_preparation > 0


def test_prunefl_asks_one_node_first_and_then_for_every_pruned_weight():
    run, fleet = run_of("prunefl")
    run.prepare()
    assert {node for _, node, _ in fleet.tasks(Train)} == {"n0"}
    next(run.rounds())
    (_, _, task), *_ = fleet.tasks(Score)
    loaded = made("prunefl").start(model(), seed=0).masks
    assert all(0 < k < loaded[layer].size for layer, k in task.k.items())


def test_prunefl_decides_among_the_smaller_weights_by_gradient_and_keeps_the_large():
    run, _ = run_of("prunefl")
    run.prepare()
    larger = {}
    for name, mask in run.masks.items():
        size = np.abs(model().arrays[name])
        larger[name] = np.median(size[mask]) / np.median(size[~mask])
    assert min(larger.values()) > 1.2  # magnitude decides who may go
    magnitude = made("magnitude").start(model(), seed=0).masks
    names = model().graph.layer_names
    assert any(not np.array_equal(mask, run.masks[names[layer]]) for layer, mask in magnitude.items())


def test_prunefl_leaves_every_layer_half_of_what_the_rule_gives_it():
    run, _ = run_of("prunefl", rounds=3, options={"prunable": 1.0})
    allocation, sizes = allocate(model().graph, DENSITY), layer_sizes(model().graph)
    run.prepare()
    for _ in [None, *run.rounds()]:
        for name, mask in run.masks.items():
            layer = model().graph.layer_names.index(name)
            assert mask.sum() >= int(allocation.densities[layer] * sizes[layer]) // 2


def test_prunefl_grows_the_largest_squared_gradient_per_time():
    method = made("prunefl", prunable=0.5)
    graph = model().graph
    w = weights_of(graph, model().arrays)
    masks = made("magnitude").start(model(), seed=0).masks
    free = [layer for layer in masks if layer not in allocate(graph, DENSITY).rows]
    early, late = free[0], free[-1]  # maps of 6 x 6 and of 2 x 2
    g = {layer: np.zeros_like(weights) for layer, weights in w.items()}
    at_early, at_late = np.flatnonzero(~masks[early])[0], np.flatnonzero(~masks[late])[0]
    g[early].flat[at_early], g[late].flat[at_late] = 2.0, 1.0
    request = method.request(graph, masks, round_number=1, adjustments=0)
    answers = [Answer(samples=10, weights=w, masks=masks, gradients=g)]
    change = method.adjust(graph, masks, request, seen(w, g, answers))
    assert change.masks[early].flat[at_early]
    assert change.masks[late].flat[at_late]
    assert change.grown == change.pruned
    assert sum(m.sum() for m in change.masks.values()) == sum(masks[layer].sum() for layer in change.masks)
    for layer in free:  # what may go is the smaller half of the live weights
        gone = masks[layer] & ~change.masks[layer]
        if gone.any():
            assert np.abs(w[layer][gone]).max() <= np.median(np.abs(w[layer][masks[layer]]))


def test_a_layer_that_outgrows_its_room_is_loaded_anew():
    run, fleet = run_of("prunefl", options={"prunable": 1.0}, rounds=3)
    run.prepare()
    before = {name: int(mask.sum()) for name, mask in run.masks.items()}
    records = list(run.rounds())
    assert any(int(mask.sum()) > before[name] for name, mask in run.masks.items())
    assert all(not record.failures for record in records)
    assert len(fleet.tasks(Load)) > 4


def test_lotteryfl_prunes_the_same_share_each_time_and_rewinds():
    run, _ = run_of("lotteryfl", epochs=2)
    run.prepare()
    start = {n: a for n, a in model().arrays.items() if not n.endswith(("running_mean", "running_var"))}
    densities, rewound = [run.density], []
    for _ in run.rounds():
        densities.append(run.density)
        expected = {name: np.where(run.masks.get(name, True), array, 0) for name, array in start.items()}
        rewound.append(all(np.array_equal(run.model.arrays[name], array) for name, array in expected.items()))
    assert densities[0] == 1.0
    assert all(a > b for a, b in pairwise(densities))
    layer = max(run.masks, key=lambda name: run.masks[name].size)
    final = run.masks[layer].mean()
    middle = made("lotteryfl")
    sizes = layer_sizes(model().graph)
    number = model().graph.layer_names.index(layer)
    one = middle.adjust(
        model().graph,
        {number: np.ones(run.masks[layer].shape, bool)},
        middle.request(model().graph, {number: np.ones(1, bool)}, round_number=1, adjustments=0),
        seen(weights_of(model().graph, model().arrays)),
    )
    assert one.masks[number].sum() == pytest.approx(sizes[number] * final ** (1 / 3), rel=0.01)
    assert all(rewound)


def test_feddst_nodes_train_on_under_masks_of_their_own():
    run, fleet = run_of("feddst", epochs=2)
    record = next(run.rounds())
    assert record.adjustment.grown > 0
    asked = [orders for orders in fleet.orders if any(isinstance(t, Train) for ts in orders.values() for t in ts)]
    second = asked[1]
    installs = {node: next(task for task in tasks if isinstance(task, Install)) for node, tasks in second.items()}
    assert len({tuple(mask.data for mask in install.masks.values()) for install in installs.values()}) == 2
    assert [task.epochs for tasks in second.values() for task in tasks if isinstance(task, Train)] == [1, 1]


def test_feddst_averages_a_weight_over_the_nodes_that_have_it():
    from fedtiny.federation.adjusting import average_own
    from fedtiny.federation.tasks import Update

    graph = model().graph
    layer = 2
    name = graph.layer_names[layer]
    one, other = np.zeros(model().arrays[name].shape, bool), np.zeros(model().arrays[name].shape, bool)
    one.flat[[0, 1]], other.flat[[1, 2]] = True, True

    def update(mask, value, count):
        arrays = model().arrays | {name: np.full(mask.shape, value, np.float32)}
        return Update(
            values=pack_values(graph, arrays, {name: mask}),
            moments=np.zeros(0, np.float32), samples=count, seen=count, loss_sum=0.0, correct=0,
        )  # fmt: skip

    mean = average_own(graph, [update(one, 1.0, 10), update(other, 4.0, 30)], [{layer: one}, {layer: other}])[name]
    np.testing.assert_allclose(mean.flat[:4], [1.0, (10 + 4 * 30) / 40, 4.0, 0.0])


def test_after_a_round_on_own_masks_all_nodes_have_the_servers():
    run, _ = run_of("feddst", epochs=2, bn_refresh="train")
    records = list(run.rounds())
    assert all(not record.rejections and not record.failures for record in records)


def test_fedmef_draws_what_will_go_towards_zero():
    """With a penalty the weights that the next adjustment prunes are smaller by then, so less is lost with them."""
    lost = {}
    for penalty in (0.0, 2.0):
        run, fleet = run_of("fedmef", options={"penalty": penalty, "activations": 1.0}, rounds=1, epochs=3)
        run.prepare()
        before = {name: np.abs(array) for name, array in run.model.arrays.items()}
        list(run.rounds())
        (_, _, task), *_ = fleet.tasks(Train)
        after = run.model.arrays
        names = model().graph.layer_names
        picked = []
        for layer, count in task.extrude.items():
            name = names[layer]
            live = np.flatnonzero(before[name])
            low = live[np.argsort(before[name].flat[live], kind="stable")[:count]]
            picked.append(np.abs(after[name].flat[low]))
        lost[penalty] = float(np.concatenate(picked).mean())
    assert lost[2.0] < lost[0.0] / 2


def test_pruned_activations_leave_outputs_and_input_gradients_exact():
    from fedtiny.fleet.more_training import PrunedActivations, largest

    whole, pruned = (PrunedActivations(model("group").graph, model("group").arrays).train() for _ in range(2))
    pruned.activations = 0.3
    results = []
    for module in (whole, pruned):
        x = torch.from_numpy(public().x[:4]).requires_grad_()
        out = module(x)
        out.square().sum().backward()
        results.append((out, x.grad, module.param(model().graph.layer_names[3]).grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(results[0][2], results[1][2], rtol=1e-2)
    kept = largest(torch.arange(1.0, 21.0).reshape(2, 10), 0.3)
    assert kept.count_nonzero(1).tolist() == [3, 3]
    assert kept[0].tolist()[-3:] == [8.0, 9.0, 10.0]


def test_fedmef_on_boards_says_why_not_and_what_would():
    assert "simulated" in made("fedmef").why_not("native")
    assert made("fedmef").why_not("simulated") is None
    assert made("fedmef", activations=1.0, extrusion_rounds=0).why_not("native") is None


def answer(weights, masks, count, layer, indices):
    return Answer(samples=count, weights=weights, masks=masks, indices={layer: np.array(indices, np.uint32)})


def test_fedrts_counts_indices_alone_as_payload():
    run, fleet = run_of("fedrts", rounds=1)
    list(run.rounds())
    (_, _, task), *_ = fleet.tasks(Score)
    assert task.indices_only
    assert run.traffic.up_by_kind["topk"] == 2 * sum(4 * k + 6 for k in task.k.values())


def test_fedrts_beliefs_follow_the_outcomes_and_decide():
    method = made("fedrts", lam=1000.0)
    graph = model().graph
    w = weights_of(graph, model().arrays)
    masks = dict(made("fedrts").start(model(), seed=0).masks)
    layer = max(set(masks) - set(allocate(graph, DENSITY).rows), key=lambda layer: masks[layer].size)
    dead = np.flatnonzero(~masks[layer])
    request = method.request(graph, masks, round_number=1, adjustments=0)
    k = request.k[layer]
    wanted = np.sort(dead[:k])
    answers = [answer(w, masks, 10, layer, wanted), answer(w, masks, 30, layer, wanted)]
    request = replace(request, k={layer: k})
    change = method.adjust(graph, masks, request, seen(w, answers=answers))
    inside = core(masks[layer], w[layer], k)
    a = change.memory[f"a/{layer}"]
    assert np.all(a[inside] == 1001.0)
    assert np.all(a.flat[wanted] == 1001.0)
    assert np.all(a[masks[layer] & ~inside] == 1.0)
    assert change.masks[layer].flat[wanted].all()  # everybody voted for them, and nobody for what goes
    assert change.masks[layer][inside].all()
    again = method.adjust(graph, masks, request, seen(w, answers=answers, memory=change.memory))
    assert np.all(again.memory[f"a/{layer}"][inside] == 2001.0)


def test_selection_without_adaptation_measures_no_batch_norms():
    from fedtiny.federation.tasks import Evaluate, MeasureBn

    measured, judged = {}, {}
    for adaptation in (True, False):
        run, fleet = run_of("fedtiny", options={"adaptation": adaptation})
        run.prepare()
        measured[adaptation] = len(fleet.tasks(MeasureBn))
        judged[adaptation] = fleet.tasks(Evaluate)[0][2].stats
    assert measured == {True: 2, False: 0}
    assert judged[True] is not None
    assert judged[False] is None


def test_a_small_dense_net_is_the_widest_that_the_budget_allows():
    def weights(width):
        return 10 * width * width

    method = make_method("small-dense", {"density": 0.25})
    assert method.width(16, weights) == 8
    assert make_method("small-dense", {"density": 0.3}).width(16, weights) == 8
    with pytest.raises(ConfigError, match=r"at least 0\.0039"):
        make_method("small-dense", {"density": 0.001}).width(16, weights)


def test_an_unknown_method_is_answered_with_the_near_one():
    with pytest.raises(ConfigError, match="Did you mean synflow"):
        make_method("sinflow", {})
    with pytest.raises(ConfigError, match=r"no option 'temprature'. Did you mean temperature"):
        make_method("grasp", {"density": 0.1}, {"temprature": 1.0})


@pytest.mark.parametrize("score", [gradients, partial(hessian_gradient, temperature=200.0)])
def test_a_ranking_does_not_depend_on_the_number_of_cores(score):
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(score(model(), public()))
    torch.set_num_threads(before)
    for layer, one in found[0].items():
        assert all(np.array_equal(one, other[layer]) for other in found[1:])


def test_what_is_rewound_in_the_last_round_would_never_be_trained_and_is_refused():
    with pytest.raises(ConfigError, match=r"lotteryfl changes masks until round 4 and has to train once more"):
        experiment(**{"pruning.method": "lotteryfl", "train.rounds": 4, "pruning.stop_round": 4})
    experiment(**{"pruning.method": "lotteryfl", "train.rounds": 5, "pruning.stop_round": 4}).close()


def test_feddst_leaves_every_class_half_of_its_minimum():
    graph = model().graph
    method = make_method("feddst", {"density": 0.03, "delta_rounds": 1, "stop_round": 3})
    layer, count = next(iter(allocate(graph, 0.03).rows.items()))
    masks = {layer: method.start(model(), seed=0).masks[layer]}
    weights = np.where(masks[layer], 1.0, 0.0).astype(np.float32)
    weights[0] *= 1e-6  # the server would rather have any other row's
    answer = Answer(samples=8, weights={layer: weights}, gradients={}, masks={layer: np.ones_like(masks[layer])})
    request = replace(method.request(graph, masks, round_number=1, adjustments=0), k={layer: 1})
    change = method.adjust(graph, masks, request, seen({layer: weights}, answers=[answer]))
    assert change.masks[layer][0].sum() >= -(-count // 2)
    assert change.masks[layer].sum() == masks[layer].sum()


def test_a_method_that_ranks_on_public_samples_says_so_where_there_are_none():
    with pytest.raises(ConfigError, match=r"pretrain\.per_class"):
        made("snip").start(model(), seed=0)


def experiment(**changes):
    from fedtiny.config import load_config
    from fedtiny.experiment import Experiment

    settings = {"fleet.kind": "simulated", "fleet.nodes": 2, "data.per_node": 16, "train.local_epochs": 1}
    settings |= {"train.rounds": 1, "pretrain.epochs": 1, "model.width": 4}
    return Experiment(load_config("quick", settings | changes))


def test_a_run_names_what_a_fleet_cannot_do_before_it_begins():
    with pytest.raises(ConfigError, match=r"fedmef cannot run on a fleet of kind native, because .* only simulated"):
        experiment(**{"pruning.method": "fedmef", "fleet.kind": "native"})
    with pytest.raises(ConfigError, match="only simulated nodes vary"):
        experiment(**{"train.augment": "shift", "fleet.kind": "native"})
    with pytest.raises(ConfigError, match=r"run\.bn_refresh = measure"):
        experiment(**{"train.augment": "shift", "run.bn_refresh": "train"})


def test_a_small_dense_run_has_about_the_weights_of_the_sparse_ones():
    with experiment(**{"pruning.method": "small-dense", "model.name": "resnet-mini", "model.width": 8}) as small:
        list(small)
        costs = small.result()["costs"]
    full = sum(w.size for w in weights_of(full_8().graph, full_8().arrays).values())
    assert 0.6 * 0.2 * full < costs["weights_live"] == costs["weights"] <= 0.2 * full
    from fedtiny.experiment import Experiment
    from fedtiny.models import build

    with pytest.raises(ConfigError, match="chooses the width"):
        Experiment(small.config, module=build("lenet-mini", input_shape=(1, 28, 28), classes=10))


@cache
def full_8() -> Model:
    from fedtiny.models import build

    return from_torch(build("resnet-mini", input_shape=(1, 28, 28), classes=10, width=8), (1, 28, 28))


def test_what_a_method_remembers_outlives_the_process(tmp_path):
    from fedtiny.journal import SqliteJournal

    run, _ = run_of("fedrts", rounds=2)
    next(run.rounds())
    state = run.state()
    assert state.memory
    with SqliteJournal(tmp_path / "run.db") as journal:
        journal.prepared(state)
    with SqliteJournal(tmp_path / "run.db") as journal:
        found = journal.state
    assert found.memory.keys() == state.memory.keys()
    assert all(np.array_equal(found.memory[name], array) for name, array in state.memory.items())


def test_augmentation_moves_samples_and_keeps_what_they_show():
    from fedtiny.augment import augmented

    x = torch.zeros(200, 1, 6, 6)
    x[:, 0, 3, 2] = 1.0
    moved = augmented(x, "shift", torch.Generator().manual_seed(0))
    places = {tuple(map(int, torch.nonzero(sample[0])[0])) for sample in moved}
    assert places == {(row, column) for row in range(1, 6) for column in range(5)}
    series = torch.arange(8.0).expand(20, 2, 1, 8).contiguous()
    shifted = augmented(series, "shift", torch.Generator().manual_seed(0))
    assert shifted.shape == series.shape  # one row high: it moves along time alone
    assert {float(sample[0, 0].diff().median()) for sample in shifted} == {1.0}
    flipped = augmented(series.expand(-1, 2, 8, 8).contiguous(), "crop-flip", torch.Generator().manual_seed(0))
    assert {float(sample[0].sum(0).diff().sign().sum().sign()) for sample in flipped} == {-1.0, 1.0}
    assert torch.equal(augmented(x, "none", torch.Generator()), x)


def test_augmentation_is_for_training_and_never_for_measuring():
    trained = {}
    for how in ("none", "shift"):
        run, fleet = run_of("magnitude", rounds=1, augment=how)
        run.prepare()
        start = fleet.tasks(Load)[0][2]
        list(run.rounds())
        trained[how] = run.model.arrays
        measured = fleet.tasks(type(fleet.tasks(Train)[0][2]))
        assert {task.augment for _, _, task in measured} == {how}
        from fedtiny.federation.tasks import MeasureBn, Subset

        ((_, replies),) = fleet.ask({"n0": [start, MeasureBn(subset=Subset.ALL)]})
        trained[how, "moments"] = replies[1].moments
    assert any(not np.array_equal(trained["none"][name], array) for name, array in trained["shift"].items())
    assert np.array_equal(trained["none", "moments"], trained["shift", "moments"])


@pytest.mark.parametrize("initial", ["snip", "grasp", "synflow"])
def test_fedtiny_starts_from_another_scores_mask_and_goes_on_from_there(initial: str):
    ours = made("fedtiny", initial=initial).start(model(), seed=0, public=public())
    theirs = made(initial).start(model(), seed=0, public=public())
    assert ours.pool is None
    assert all(np.array_equal(mask, theirs.masks[layer]) for layer, mask in ours.masks.items())
    request = made("fedtiny", initial=initial).request(model().graph, ours.masks, round_number=1, adjustments=0)
    assert request.k


def test_settings_leave_a_method_its_own_start():
    from fedtiny.config import load_config, method_of

    assert method_of(load_config("quick", {"pruning.method": "fedmef"})).initial == "random"
    assert method_of(load_config("quick", {"pruning.method": "fedtiny"})).initial == "magnitude"
    assert method_of(load_config("quick", {"pruning.initial": "snip"})).initial == "snip"
    with pytest.raises(ConfigError, match=r"one of magnitude, .*Did you mean synflow"):
        load_config("quick", {"pruning.initial": "synflo"})
