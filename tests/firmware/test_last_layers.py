"""Training the last layers alone: PyTorch with requires_grad=False, exact memory, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedtiny_export.blob import write_blob
from fedtiny_export.core import NodeConfig, plan
from fedtiny_export.errors import CoreError
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model
from fedtiny_export.values import pack_values

from .nets import NETS, apply_masks, make, node_of, random_masks, random_samples
from .test_high_water import marks

BATCH, ERR_ARG = 4, 6
DEEP = [name for name in NETS if len(make(name)[1].graph.layers) > 1]


def hold(module: nn.Module, model: Model, last_layers: int) -> frozenset[str]:
    """Makes everything before the last layers a constant of the module; the names of what is."""
    names = model.graph.constants(last_layers)
    module.train()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in names)
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and f"{name}.weight" in names:
            layer.eval()
    return names


def autograds_tail(module: nn.Module, model: Model, masks: dict[str, Bits], names: frozenset[str]) -> F32:
    """Gradients of what trains, as the end of the values vector."""
    grads = {
        name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
        for name, p in module.named_parameters()
    }
    trained = sum(
        int(masks[name].sum()) if name in masks else grad.size for name, grad in grads.items() if name not in names
    )
    packed = pack_values(model.graph, grads, masks)
    return packed[packed.size - trained :]


@pytest.mark.parametrize("last_layers", [1, 2])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", DEEP)
def test_gradients_equal_autograds_with_the_rest_held(name: str, density: float, last_layers: int) -> None:
    module, model = make(name)
    masks = random_masks(model, density) if density < 1 else {}
    apply_masks(module, masks)
    names = hold(module, model, last_layers)
    x, y = random_samples(BATCH, model.graph.classes)
    node = node_of(model, masks, micro_batch=BATCH, last_layers=last_layers)
    node.set_samples(x, y, 0)
    gradients, loss_sum = node.gradient(0, BATCH)
    loss = nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y.astype(np.int64)))
    loss.backward()
    expected = autograds_tail(module, model, masks, names)
    assert loss_sum / BATCH == pytest.approx(loss.item(), rel=1e-5)
    assert gradients.shape == expected.shape == (node.trained_count,)
    # sums in another order than PyTorch's: 1e-5 of the largest gradient, or of the loss's scale
    np.testing.assert_allclose(gradients, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("knobs", [{}, {"lean": True}, {"layerwise": True}, {"keep": "f16"}], ids=str)
@pytest.mark.parametrize("name", ["residual", "separable", "strided residual with group norm"])
def test_training_moves_the_last_layers_as_torch_does_and_nothing_else(name: str, knobs: dict[str, object]) -> None:
    module, model = make(name)
    masks = random_masks(model, 0.5)
    apply_masks(module, masks)
    hold(module, model, 2)
    x, y = random_samples(BATCH, model.graph.classes)
    node = node_of(model, masks, micro_batch=BATCH, last_layers=2, **knobs)
    node.set_samples(x, y, 0)
    before = node.values()
    node.train(epochs=100, lr=0.01, momentum=0.9, weight_decay=1e-3, seed=0)
    after = node.values()
    constants = node.value_count - node.trained_count
    np.testing.assert_array_equal(after[:constants], before[:constants])
    module = module.double()
    held = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(held, lr=0.01, momentum=0.9, weight_decay=1e-3)
    for _ in range(100):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(
            module(torch.from_numpy(x.astype(np.float64))), torch.from_numpy(y.astype(np.int64))
        )
        loss.backward()
        optimiser.step()
        apply_masks(module, masks)
    arrays = {key: p.detach().numpy().astype(np.float32) for key, p in module.named_parameters()}
    expected = pack_values(model.graph, arrays, masks)[constants:]
    tolerance = 5e-2 if "keep" in knobs else 1e-4  # f16 rounds what backward reads to 11 bits
    assert np.linalg.norm(after[constants:] - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("mode", ["train", "score"])
@pytest.mark.parametrize("knobs", [{}, {"lean": True}], ids=str)
@pytest.mark.parametrize("name", ["residual", "separable", "standardised"])
def test_the_plan_is_the_nodes_high_water_mark_and_less_than_that_of_all_layers(
    name: str, knobs: dict[str, bool], mode: str
) -> None:
    _, model = make(name)
    blob = write_blob(model.graph, model.arrays, random_masks(model, 0.3))
    whole = NodeConfig(micro_batch=4, modes=(mode,), topk_max=20, score_tile_bytes=500, **knobs)
    part = NodeConfig(micro_batch=4, modes=(mode,), topk_max=20, score_tile_bytes=500, last_layers=2, **knobs)
    peak = plan(blob, part).peak
    assert peak < plan(blob, whole).peak
    if mode == "train":
        assert marks(blob, part, model, (peak,)) == [peak]


def test_more_layers_than_there_are_is_all_of_them() -> None:
    _, model = make("residual")
    blob = write_blob(model.graph, model.arrays, {})
    peaks = {plan(blob, NodeConfig(modes=("train",), last_layers=n)).peak for n in (0, 99)}
    assert len(peaks) == 1


def test_a_layer_that_does_not_train_is_not_scored() -> None:
    _, model = make("residual")
    node = node_of(model, random_masks(model, 0.3), topk_max=4, last_layers=1)
    x, y = random_samples(4, model.graph.classes)
    node.set_samples(x, y, 0)
    node.score(len(model.graph.layers) - 1, 4, batches=1, seed=0)
    with pytest.raises(CoreError) as caught:
        node.score(1, 4, batches=1, seed=0)
    assert caught.value.status == ERR_ARG
