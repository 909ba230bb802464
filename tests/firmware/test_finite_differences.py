"""Every operator's gradient against central differences of the node's own loss: no other library, no shared formula.

A difference across a kink (ReLU, max pooling) is no slope. Where kinks lie is not guessed: the slow reference runs at
both ends, and a step that flips a ReLU or moves a maximum there is not taken. What is left must hold, all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fedtiny_export.core import CoreNode
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model
from fedtiny_export.reference import GraphModule
from fedtiny_export.values import unpack_values

from .nets import NETS, make, node_of, random_masks, random_samples

BATCH = 4
# A loss near 1 carries a rounding error of about 1e-7: over a step of 1e-3 that is 1e-4, over 3e-4 it is 3e-4. Long
# steps add the curvature. So of the steps without a kink the best is taken: a wrong gradient is wrong at all of them.
STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 5e-4, 3e-4)
TOLERANCE = 1e-3
FARTHER = 1.1  # a kink just beyond an end in exact numbers may lie before it in float32
MOST_LEFT_OUT = 0.1  # of all directions: those with a kink closer than the shortest step


class Kinks(TorchFunctionMode):
    """Notes on which side of its kinks each operator works: the signs of ReLUs' inputs, the winners of max pools."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.relu:
            self.sides.append(args[0] > 0)
        elif func is F.relu6:
            self.sides += [args[0] > 0, args[0] < 6]
        elif getattr(func, "__name__", "") in ("max_pool2d", "_max_pool2d"):
            self.sides.append(F.max_pool2d(*args[:3], return_indices=True)[1])
        return func(*args, **(kwargs or {}))


class Reference:
    """The slow execution of the same net in float64, which says where a vector of values lies among the kinks."""

    def __init__(self, model: Model, masks: dict[str, Bits], norm: Any, x: F32) -> None:
        self._module = GraphModule(model.graph, model.arrays, norm=norm).double().train()
        self._model, self._masks, self._x = model, masks, torch.from_numpy(x.astype(np.float64))

    def sides(self, values: F32) -> list[torch.Tensor]:
        self._module.load_arrays(unpack_values(self._model.graph, values, self._masks))
        with torch.no_grad(), Kinks() as kinks:
            self._module(self._x)
        return kinks.sides

    def smooth_steps(self, here: list[torch.Tensor], values: F32, direction: F32) -> tuple[float, ...]:
        """The steps without a kink between their ends; here: the sides at `values`. Shorter ones lie inside longer."""
        for number, step in enumerate(STEPS):
            ends = (self.sides(values + np.float32(sign * step * FARTHER) * direction) for sign in (1, -1))
            if all(torch.equal(a, b) for end in ends for a, b in zip(here, end, strict=True)):
                return STEPS[number:]
        return ()


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


def check_slopes(name: str, density: float, **settings: Any) -> None:
    """Of the samples tried, all that has no kink must hold; the last ones leave nearly nothing out."""
    _, model = make(name)
    masks = random_masks(model, density) if density < 1 else {}
    node = node_of(model, masks, micro_batch=BATCH, **settings)
    for seed in range(8):
        x, y = random_samples(BATCH, model.graph.classes, seed=seed)
        node.set_samples(x, y, 0)
        reference = Reference(model, masks, settings.get("norm", "batch"), x)
        errors, left_out = errors_of(node, model, masks, reference)
        assert {parameter: error for parameter, error in errors if error > TOLERANCE} == {}
        if left_out <= MOST_LEFT_OUT * (len(errors) + left_out):
            return
    pytest.fail(f"{left_out} of {len(errors) + left_out} directions have a kink within {STEPS[-1]:g} with any samples")


def errors_of(
    node: CoreNode, model: Model, masks: dict[str, Bits], reference: Reference
) -> tuple[list[tuple[str, float]], int]:
    """Each direction's error at its best step; and how many have no step without a kink.

    Relative to the gradient, or to the loss where that is larger: its rounding is what a difference cannot see below.
    """
    errors, left_out, values = [], 0, node.values()
    slopes, loss_sum = node.gradient(0, BATCH)
    gradient, here = slopes.astype(np.float64), reference.sides(values)
    scale = max(1.0, float(np.linalg.norm(gradient)), loss_sum / BATCH)
    for parameter, direction in directions(model, masks, gradient):
        steps = reference.smooth_steps(here, values, direction)
        expected = float(gradient @ direction.astype(np.float64))
        found = [abs(slope(node, values, direction, step) - expected) / scale for step in steps]
        errors += [(parameter, min(found))] if found else []
        left_out += not found
    node.set_values(values)
    return errors, left_out


def directions(model: Model, masks: dict[str, Bits], gradient: np.ndarray[Any, Any]) -> Iterator[tuple[str, F32]]:
    """For each parameter: along the gradient, where the slope is largest and any missing factor shows, along a random
    direction, and along some single values."""
    rng = np.random.default_rng(1)
    for parameter, where in parts_of(model, masks):
        size = where.stop - where.start
        single = np.eye(size)[rng.permutation(size)[:2]] if size else []
        for along in (gradient[where], rng.normal(size=size), *single):
            length = float(np.linalg.norm(along))
            if length < 1e-6:  # a bias in front of a batch norm, a layer without live weights
                continue
            direction = np.zeros(gradient.size, np.float32)
            direction[where] = along / length
            yield parameter, direction


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Maps as small as these take longer with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_each_gradient_is_the_slope_of_the_loss(name: str, density: float, norm: str) -> None:
    check_slopes(name, density, norm=norm)


@pytest.mark.parametrize("loss", ["mse", "reconstruction"])
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_each_gradient_is_the_slope_of_a_squared_error(density: float, loss: str) -> None:
    check_slopes("autoencoder", density, loss=loss)
