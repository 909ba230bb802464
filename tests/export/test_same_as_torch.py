"""What is exported computes what the torch module computes: in training, in inference, and in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedtiny_export import (
    GraphModule,
    OpKind,
    WSConv2d,
    from_onnx,
    from_torch,
    onnxruntime_logits,
    parity,
    standardised,
    to_onnx,
)


def test_inference_equals_torch(net):
    model = from_torch(net.module, net.input_shape)
    x = net.batch(5)
    with torch.no_grad():
        torch.testing.assert_close(GraphModule(model.graph, model.arrays).eval()(x), net.module.eval()(x))


def test_a_training_step_equals_torch_in_logits_and_in_every_gradient(net):
    model = from_torch(net.module, net.input_shape)
    graph = GraphModule(model.graph, model.arrays).train()
    module = net.module.train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.eval()
    x, y = net.batch(6), torch.arange(6) % model.graph.classes
    logits, expected = graph(x), module(x)
    torch.testing.assert_close(logits, expected)
    F.cross_entropy(logits, y).backward()
    F.cross_entropy(expected, y).backward()
    for name, param in module.named_parameters():
        torch.testing.assert_close(
            graph.param(name).grad.reshape(param.shape), param.grad, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_parameter_keeps_its_state_dict_name_and_value(net):
    model = from_torch(net.module, net.input_shape)
    state = {k: v.numpy() for k, v in net.module.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {p.name for p in model.graph.params} == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(model.arrays[name].reshape(array.shape), array)


def test_parameters_with_equal_values_are_not_confused():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 2),
    )
    names = {p.name for p in from_torch(module, (1, 4, 4)).graph.params}
    assert {"1.weight", "1.running_var", "2.weight", "2.running_var", "2.running_mean", "2.bias"} <= names


def test_onnx_runtime_equals_torch(net):
    model = from_torch(net.module, net.input_shape)
    x = net.batch(16)
    with torch.no_grad():
        expected = net.module.eval()(x).numpy()
    # Float32 sums in another order: 1e-5 is usual, 1e-4 the promise.
    np.testing.assert_allclose(onnxruntime_logits(to_onnx(model), x.numpy()), expected, atol=1e-5, rtol=1e-5)
    c, h, w = model.graph.tensors[model.graph.input].shape
    assert 0 <= parity(model, x.numpy().reshape(-1, c, h, w))["onnxruntime_max_abs"] < 1e-4


def test_onnx_round_trip_keeps_graph_and_arrays(net):
    model = from_torch(net.module, net.input_shape)
    again = from_onnx(to_onnx(model))
    if isinstance(net.module[0] if isinstance(net.module, torch.nn.Sequential) else None, WSConv2d):
        assert all(op.eps == 0 for op in again.graph.ops if op.kind is OpKind.CONV2D)  # ONNX holds what is applied
        return
    assert again.graph == model.graph
    assert all(np.array_equal(again.arrays[n], a) for n, a in model.arrays.items())


def test_a_dense_weight_is_standardised_as_a_batch_norm_of_it_would():
    weight = torch.randn(5, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, 3, 3, 2, dtype=torch.float64)
    expected = F.batch_norm(weight.reshape(1, 5, -1), None, None, training=True, eps=1e-3).reshape(weight.shape)
    ours = standardised(weight, 1e-3)
    torch.testing.assert_close(ours, expected)
    slopes = [torch.autograd.grad(w, weight, upstream)[0] for w in (ours, expected)]
    torch.testing.assert_close(*slopes)


def test_pruned_weights_take_no_part_and_learn_what_growing_them_would_do():
    weight, upstream = torch.randn(1, 8, 1, 1, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    weight[0, 5:] = 0.0
    live = weight[0, :5].clone().requires_grad_()
    dense = standardised(live[None], 0.1)
    (expected,) = torch.autograd.grad(dense.flatten() @ upstream[:5], live)
    weight.requires_grad_()
    ours = standardised(weight, 0.1)
    torch.testing.assert_close(ours[:, :5], dense)
    assert not ours[:, 5:].any()
    (slope,) = torch.autograd.grad(ours.flatten() @ upstream, weight)
    torch.testing.assert_close(slope[0, :5], expected)
    # chained by hand at w = 0, with the moments of the live weights
    var, mean = torch.var_mean(live.detach(), correction=0)
    scale, g = (var + 0.1).rsqrt(), upstream[:5]
    hat = (live.detach().flatten() - mean) * scale
    grown = (upstream[5:] - g.mean() + mean * scale * (g * hat).mean()) * scale
    torch.testing.assert_close(slope[0, 5:].flatten(), grown)


def test_exporting_leaves_the_module_as_it_was(residual):
    module = residual.module.train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    from_torch(module, residual.input_shape)
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_frozen_norms_train_with_stored_statistics(residual):
    model = from_torch(residual.module, residual.input_shape)
    graph = GraphModule(model.graph, model.arrays, norm="frozen").train()
    x, y = residual.batch(4), torch.tensor([0, 1, 2, 3])
    F.cross_entropy(graph(x), y).backward()
    module = residual.module.eval()
    F.cross_entropy(module(x), y).backward()
    for name, param in module.named_parameters():
        torch.testing.assert_close(graph.param(name).grad, param.grad)


def test_training_keeps_no_running_averages(residual):
    model = from_torch(residual.module, residual.input_shape)
    graph = GraphModule(model.graph, model.arrays).train()
    graph(residual.batch(4))
    assert all(np.array_equal(a, model.arrays[n]) for n, a in graph.arrays().items())


def test_moments_are_those_of_every_batch_norms_input(residual):
    model = from_torch(residual.module, residual.input_shape)
    module, seen = residual.module.train(), []
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    x = residual.batch(6)
    expected = module(x)
    logits, moments = GraphModule(model.graph, model.arrays).train().forward_with_moments(x)
    torch.testing.assert_close(logits, expected)
    assert len(moments) == len(seen) == 2
    for (total, m2, count), source in zip(moments, seen, strict=True):
        assert count == source.numel() // source.shape[1]
        torch.testing.assert_close(total, source.sum((0, 2, 3)))
        torch.testing.assert_close(m2, ((source - source.mean((0, 2, 3), keepdim=True)) ** 2).sum((0, 2, 3)))


def test_one_element_per_channel_is_normalised_to_the_shift():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.nn.init.normal_(module[1].bias)
    model = from_torch(module, (3,))
    logits = GraphModule(model.graph, model.arrays).train()(torch.randn(1, 3))
    torch.testing.assert_close(logits[0], module[1].bias)


def test_arrays_can_be_replaced_in_place(residual):
    model = from_torch(residual.module, residual.input_shape)
    graph = GraphModule(model.graph, model.arrays)
    graph.load_arrays({"norm.running_mean": np.full(8, 3.0, np.float32), "head.bias": np.zeros(4, np.float32)})
    assert (graph.arrays()["norm.running_mean"] == 3).all()
    assert not graph.param("head.bias").detach().any()
    assert np.array_equal(graph.arrays()["stem.weight"], model.arrays["stem.weight"])


@pytest.mark.filterwarnings("ignore")
def test_what_torchs_newer_exporter_writes_is_read_too(residual):
    program = torch.onnx.export(residual.module.eval(), (residual.batch(2),), dynamo=True, verbose=False)
    model = from_onnx(program.model_proto)
    x = residual.batch(2, seed=3)
    with torch.no_grad():  # that exporter folds batch norms, so only the results are the same
        torch.testing.assert_close(GraphModule(model.graph, model.arrays).eval()(x), residual.module(x))
