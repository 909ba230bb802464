"""Every operator's gradient against central differences of the node's own loss: no other library, no shared formula."""

from __future__ import annotations

import numpy as np
import pytest

from fedtiny_export.core import CoreNode
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model

from .nets import NETS, make, node_of, random_masks, random_samples

BATCH = 4
# A loss near 1 carries a rounding error of about 1e-7: over a step of 1e-3 that is 1e-4, over 1e-4 it is 1e-3. Long
# steps add the curvature and may cross a kink (ReLU, max pooling), which spoils the difference. So of several steps the
# best is taken: a wrong gradient is wrong at all of them.
STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
TOLERANCE = 1e-3


def parts_of(model: Model, masks: dict[str, Bits]) -> list[tuple[str, slice]]:
    """Where each trained parameter's live elements lie in the values vector."""
    parts, at = [], 0
    for index in model.graph.trained:
        name, size = model.graph.params[index].name, model.graph.params[index].size
        live = int(masks[name].sum()) if name in masks else size
        parts.append((name, slice(at, at + live)))
        at += live
    return parts


def slope(node: CoreNode, values: F32, direction: F32, step: float) -> float:
    """Central difference of the mean loss along a direction; the step is what float32 really made of it."""
    losses, ends = [], []
    for sign in (1.0, -1.0):
        end = (values + np.float32(sign * step) * direction).astype(np.float32)
        node.set_values(end)
        losses.append(node.gradient(0, BATCH)[1] / BATCH)
        ends.append(end.astype(np.float64))
    return float((losses[0] - losses[1]) / ((ends[0] - ends[1]) @ direction.astype(np.float64)))


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_each_gradient_is_the_slope_of_the_loss(name: str, density: float, norm: str) -> None:
    _, model = make(name)
    masks = random_masks(model, density) if density < 1 else {}
    node = node_of(model, masks, micro_batch=BATCH, norm=norm)
    values, best = node.values(), dict[str, float]()
    for seed in range(4):  # a kink close by spoils a parameter at some samples, a wrong gradient at all
        for parameter, error in errors_at(node, model, masks, values, seed).items():
            best[parameter] = min(best.get(parameter, np.inf), error)
    assert {parameter: error for parameter, error in best.items() if error > TOLERANCE} == {}


@pytest.mark.parametrize("loss", ["mse", "reconstruction"])
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_each_gradient_is_the_slope_of_a_squared_error(density: float, loss: str) -> None:
    _, model = make("autoencoder")
    masks = random_masks(model, density) if density < 1 else {}
    node = node_of(model, masks, micro_batch=BATCH, loss=loss)
    values, best = node.values(), dict[str, float]()
    for seed in range(4):
        for parameter, error in errors_at(node, model, masks, values, seed).items():
            best[parameter] = min(best.get(parameter, np.inf), error)
    assert {parameter: error for parameter, error in best.items() if error > TOLERANCE} == {}


def errors_at(node: CoreNode, model: Model, masks: dict[str, Bits], values: F32, seed: int) -> dict[str, float]:
    """The larger error of two directions, each at its best step, relative to the gradient: by parameter."""
    node.set_values(values)
    node.set_samples(*random_samples(BATCH, model.graph.classes, seed=seed), 0)
    gradient = node.gradient(0, BATCH)[0].astype(np.float64)
    rng, found = np.random.default_rng(1), dict[str, float]()
    scale = max(1.0, float(np.linalg.norm(gradient)))
    for parameter, where in parts_of(model, masks):
        # along the gradient, where the slope is largest and any missing factor shows, and along a random direction
        for along in (gradient[where], rng.normal(size=where.stop - where.start)):
            length = float(np.linalg.norm(along))
            if length < 1e-6:  # a bias in front of a batch norm
                continue
            direction = np.zeros_like(values)
            direction[where] = along / length
            expected = float(gradient @ direction.astype(np.float64))
            error = min(abs(slope(node, values, direction, step) - expected) for step in STEPS) / scale
            found[parameter] = max(found.get(parameter, 0.0), error)
    return found
