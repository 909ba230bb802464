"""Mean squared error beside cross-entropy, against torch.nn.functional.mse_loss: from the label and from the sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig, plan
from fedtiny_export.errors import CoreError, PlanError
from fedtiny_export.values import unpack_values

from .nets import INPUT, apply_masks, make, node_of, random_masks, random_samples

BATCH, ERR_DATA = 4, 8
CASES = [("residual", "mse"), ("linear", "mse"), ("autoencoder", "mse"), ("autoencoder", "reconstruction")]
KNOBS = [{}, {"lean": True}, {"keep": "f16"}]


def torch_loss(loss: str, outputs: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    target = x.flatten(1) if loss == "reconstruction" else F.one_hot(labels, outputs.shape[1]).float()
    return F.mse_loss(outputs, target)


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize(("net", "loss"), CASES)
def test_loss_and_gradients_equal_autograds(net: str, loss: str, density: float) -> None:
    module, model = make(net)
    masks = random_masks(model, density) if density < 1 else {}
    apply_masks(module, masks)
    x, y = random_samples(2 * BATCH, model.graph.classes)
    node = node_of(model, masks, micro_batch=BATCH, loss=loss)
    node.set_samples(x, y, 0)
    gradients, loss_sum = node.gradient(BATCH, BATCH)
    inputs, labels = torch.from_numpy(x[BATCH:]), torch.from_numpy(y[BATCH:].astype(np.int64))
    expected = torch_loss(loss, module.train()(inputs), inputs, labels)
    expected.backward()
    assert loss_sum / BATCH == pytest.approx(expected.item(), rel=1e-5)
    ours = unpack_values(model.graph, gradients, masks)
    for name, tensor in module.named_parameters():
        assert tensor.grad is not None
        wanted = tensor.grad.numpy() * masks.get(name, 1)
        # sums in another order than PyTorch's: 1e-5 of the parameter's largest gradient, or of the loss's scale
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(ours[name], wanted, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("loss", ["mse", "reconstruction"])
def test_evaluation_sums_the_samples_losses_and_counts_hits_of_labels_only(loss: str) -> None:
    module, model = make("autoencoder")
    x, y = random_samples(9, model.graph.classes)
    with torch.no_grad():
        outputs = module.eval()(torch.from_numpy(x))
    y[:3] = outputs[:3].argmax(1).numpy()
    node = node_of(model, {}, loss=loss)
    node.set_samples(x, y, 0)
    tally = node.evaluate(1)
    expected = torch_loss(loss, outputs, torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))
    assert tally.loss_sum / 9 == pytest.approx(expected.item(), rel=1e-5)
    hits = int((outputs.argmax(1) == torch.from_numpy(y.astype(np.int64))).sum())
    assert tally.correct == (0 if loss == "reconstruction" else hits)
    assert hits >= 3


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_a_hundred_steps_towards_the_sample_equal_torch(knobs: dict[str, object]) -> None:
    module, model = make("autoencoder")
    x, y = random_samples(8, model.graph.classes)
    node = node_of(model, {}, micro_batch=8, loss="reconstruction", **knobs)
    node.set_samples(x, y, 0)
    node.train(epochs=100, lr=0.1, momentum=0.9, weight_decay=1e-3, seed=0)
    module, inputs = module.double(), torch.from_numpy(x.astype(np.float64))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(100):
        optimiser.zero_grad()
        F.mse_loss(module(inputs), inputs.flatten(1)).backward()
        optimiser.step()
    ours = unpack_values(model.graph, node.values(), {})
    tolerance = 1e-4 if "keep" not in knobs else 2e-2  # f16 rounds what backward reads to 11 bits
    for name, tensor in module.named_parameters():
        expected = tensor.detach().numpy()
        assert np.linalg.norm(ours[name] - expected) <= tolerance * np.linalg.norm(expected), name


def test_labels_are_not_read_where_the_target_is_the_sample() -> None:
    _, model = make("autoencoder")
    x, y = random_samples(4, model.graph.classes)
    y[2] = 60_000
    for loss, refused in (("reconstruction", False), ("mse", True)):
        node = node_of(model, {}, loss=loss)
        node.set_samples(x, y, 0)
        if refused:
            with pytest.raises(CoreError) as caught:
                node.evaluate(1)
            assert caught.value.status == ERR_DATA
        else:
            node.evaluate(1)


def test_a_sample_is_no_target_for_outputs_of_another_size() -> None:
    _, model = make("residual")
    with pytest.raises((PlanError, CoreError), match="out of range"):
        node_of(model, {}, loss="reconstruction")


def test_the_sample_stays_until_the_loss_and_no_longer() -> None:
    """What a reconstruction takes more than another loss, in inference: the sample beside the last operator's maps."""
    _, model = make("autoencoder")
    blob = write_blob(model.graph, model.arrays, {})
    peaks = [plan(blob, NodeConfig(modes=("infer",), loss=loss)).activations for loss in ("mse", "reconstruction")]
    assert 0 < peaks[1] - peaks[0] <= 4 * int(np.prod(INPUT))
    assert CoreNode(blob, NodeConfig(modes=("infer",), loss="reconstruction")).memory.activations == peaks[1]
