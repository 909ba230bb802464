"""Every operator of the node against PyTorch: logits, and each gradient by its name, dense and sparse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedtiny_export.values import unpack_values

from .nets import NETS, apply_masks, make, node_of, random_masks, random_samples

BATCH = 4
# float32 sums of some hundred terms in another order than PyTorch's: 1e-5 of the largest gradient of the parameter
TOLERANCE = 1e-5


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_inference_equals_torch(name: str, density: float) -> None:
    module, model = make(name)
    masks = random_masks(model, density) if density < 1 else {}
    apply_masks(module, masks)
    x, _ = random_samples(7, model.graph.classes)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(node_of(model, masks).infer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_each_gradient_of_a_training_step_equals_autograd(name: str, density: float, norm: str) -> None:
    module, model = make(name)
    masks = random_masks(model, density) if density < 1 else {}
    apply_masks(module, masks)
    x, y = random_samples(2 * BATCH, model.graph.classes)
    node = node_of(model, masks, micro_batch=BATCH, norm=norm)
    node.set_samples(x, y, 0)
    gradients, loss_sum = node.gradient(BATCH, BATCH)

    module.train(norm == "batch")
    logits = module(torch.from_numpy(x[BATCH:]))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(y[BATCH:].astype(np.int64)))
    loss.backward()
    assert loss_sum / BATCH == pytest.approx(loss.item(), rel=1e-5)
    ours = unpack_values(model.graph, gradients, masks)
    for parameter, tensor in module.named_parameters():
        assert tensor.grad is not None
        expected = tensor.grad.numpy() * masks.get(parameter, 1)
        # a bias in front of a batch norm has gradient zero: then the loss's own scale is the measure
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(
            ours[parameter], expected, atol=TOLERANCE * scale, err_msg=f"gradient of {parameter}"
        )


@pytest.mark.parametrize("count", [1, 3])
def test_an_incomplete_micro_batch_gives_its_own_gradient(count: int) -> None:
    module, model = make("residual")
    x, y = random_samples(5, model.graph.classes)
    node = node_of(model, {}, micro_batch=BATCH)
    node.set_samples(x, y, 0)
    gradients, _ = node.gradient(0, count)
    logits = module.train()(torch.from_numpy(x[:count]))
    nn.functional.cross_entropy(logits, torch.from_numpy(y[:count].astype(np.int64))).backward()
    ours = unpack_values(model.graph, gradients, {})
    for parameter, tensor in module.named_parameters():
        assert tensor.grad is not None
        np.testing.assert_allclose(ours[parameter], tensor.grad.numpy(), atol=2e-5, err_msg=parameter)
