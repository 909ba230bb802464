"""The slow, obvious execution of a graph in torch: what every faster node is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtiny_export.graph import F32, STATISTICS, Graph, Op, OpKind
from fedtiny_export.ws_conv import standardised

Moments = list[tuple[Tensor, Tensor, int]]
"""For each batch norm in operator order: sum[C] and m2[C] (squared deviations from the batch's own mean) of its input,
and over how many elements per channel."""


class GraphModule(nn.Module):
    """A `Graph` as a torch module: x (N, C, H, W) -> logits (N, classes).

    Trained parameters are `nn.Parameter`s, statistics are buffers; `param(name)` finds both by their name in the graph.
    In training mode a batch norm uses the micro-batch (biased variance) and keeps no running averages; with
    norm="frozen", and in eval mode, it uses the stored statistics. With `last_layers` only these train: what stands
    before them requires no gradient, and its norms use the stored statistics.
    """

    def __init__(
        self,
        graph: Graph,
        arrays: Mapping[str, F32],
        *,
        norm: Literal["batch", "frozen"] = "batch",
        last_layers: int = 0,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.norm = norm
        self._keys = _module_keys([p.name for p in graph.params])
        for param in graph.params:
            value = torch.tensor(np.asarray(arrays[param.name], np.float32))
            if param.role in STATISTICS:
                self.register_buffer(self._keys[param.name], value)
            else:
                self.register_parameter(self._keys[param.name], nn.Parameter(value))
        self.first_trained = graph.first_trained(last_layers)
        for op in graph.ops[: self.first_trained]:
            for index in op.params:
                self.param(graph.params[index].name).requires_grad_(False)
        self._input_shape = graph.tensors[graph.input].shape
        self._steps = [(op, [self._keys[graph.params[i].name] for i in op.params]) for op in graph.ops]

    def param(self, name: str) -> Tensor:
        """The live tensor of a parameter or statistic, by its name in the graph."""
        found = self._tensor(self._keys[name])
        assert found is not None
        return found

    def arrays(self) -> dict[str, F32]:
        """Copies of all parameters and statistics by name."""
        return {p.name: self.param(p.name).detach().cpu().numpy().copy() for p in self.graph.params}

    @torch.no_grad()
    def load_arrays(self, arrays: Mapping[str, F32]) -> None:
        """Copies the given arrays, by name, into the module in place; the others stay."""
        for name, array in arrays.items():
            self.param(name).copy_(torch.from_numpy(np.ascontiguousarray(array, np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x, None)

    def forward_with_moments(self, x: Tensor, *, measuring: bool = False) -> tuple[Tensor, Moments]:
        """Logits, and the moments of every batch norm's input; the moments carry no gradient.

        `measuring`: every norm uses the micro-batch, also those that train with stored statistics, so that what is
        measured does not depend on them.
        """
        moments: Moments = []
        return self._run(x, moments, measuring=measuring), moments

    def operate(self, op: Op, source: Tensor, params: list[Tensor | None]) -> Tensor:
        """One operator that is neither an addition nor a batch norm."""
        return _FORWARD[op.kind](op, source, params)

    def _tensor(self, key: str) -> Tensor | None:
        return self._parameters[key] if key in self._parameters else self._buffers[key]

    def _run(self, x: Tensor, moments: Moments | None, *, measuring: bool = False) -> Tensor:
        values: dict[int, Tensor] = {self.graph.input: x.reshape(-1, *self._input_shape)}
        for number, (op, keys) in enumerate(self._steps):
            own = self.norm == "batch" and number >= self.first_trained
            batch_statistics = measuring or (self.training and own)
            source = values[op.inputs[0]]
            params = [self._tensor(key) for key in keys]
            if op.kind is OpKind.ADD:
                out = source + values[op.inputs[1]]
            elif op.kind is OpKind.BATCHNORM:
                if moments is not None:
                    moments.append(batch_moments(source))
                gamma, beta, mean, var = params
                if batch_statistics:
                    mean = var = None
                # Not F.batch_norm, which refuses a single element per channel.
                out = torch.batch_norm(source, gamma, beta, mean, var, batch_statistics, 0.0, op.eps, False)
            else:
                out = self.operate(op, source, params)
            values[op.output] = out
        return values[self.graph.output].flatten(1)


def sample_losses(loss: str, outputs: Tensor, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (N,) of outputs (N, classes), and which of them are hits (N,), as a node with this `loss` counts them."""
    hits = outputs.argmax(1) == labels
    if loss == "cross_entropy":
        return F.cross_entropy(outputs, labels, reduction="none"), hits
    if loss == "mse":
        target = labels[:, None] == torch.arange(outputs.shape[1], device=labels.device)
    else:
        target, hits = x.flatten(1), torch.zeros_like(hits)
    return (outputs - target.to(outputs.dtype)).square().mean(1), hits


@contextmanager
def single_thread() -> Iterator[None]:
    """torch on one thread, so that results do not depend on how many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def batch_moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """x (N, C, H, W) -> sum[C], m2[C] and the number of elements per channel."""
    count = x.numel() // x.shape[1]
    var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    return mean * count, var * count, count


def _conv2d(op: Op, x: Tensor, params: list[Tensor | None]) -> Tensor:
    weight, bias = params[0], params[1] if len(params) > 1 else None
    assert weight is not None
    if op.eps:
        weight = standardised(weight, op.eps)
    top, left, bottom, right = op.padding
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, op.stride, (top, left), 1, op.groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, op.stride, 0, 1, op.groups)


def _linear(op: Op, x: Tensor, params: list[Tensor | None]) -> Tensor:
    weight, bias = params[0], params[1] if len(params) > 1 else None
    assert weight is not None
    return F.linear(x.flatten(1), weight, bias)[:, :, None, None]


def _groupnorm(op: Op, x: Tensor, params: list[Tensor | None]) -> Tensor:
    return F.group_norm(x, op.groups, params[0], params[1], op.eps)


def _maxpool(op: Op, x: Tensor, params: list[Tensor | None]) -> Tensor:
    top, left, bottom, right = op.padding
    if any(op.padding):
        x = F.pad(x, (left, right, top, bottom), value=float("-inf"))
    return F.max_pool2d(x, op.kernel, op.stride)


def _avgpool(op: Op, x: Tensor, params: list[Tensor | None]) -> Tensor:
    top, left, bottom, right = op.padding
    if not any(op.padding):
        return F.avg_pool2d(x, op.kernel, op.stride)
    pad = (left, right, top, bottom)
    mean = F.avg_pool2d(F.pad(x, pad), op.kernel, op.stride)
    if op.count_include_pad:
        return mean
    return mean / F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), pad), op.kernel, op.stride)


_FORWARD: dict[OpKind, Callable[[Op, Tensor, list[Tensor | None]], Tensor]] = {
    OpKind.CONV2D: _conv2d,
    OpKind.LINEAR: _linear,
    OpKind.GROUPNORM: _groupnorm,
    OpKind.RELU: lambda op, x, params: F.relu(x),
    OpKind.RELU6: lambda op, x, params: F.relu6(x),
    OpKind.MAXPOOL: _maxpool,
    OpKind.AVGPOOL: _avgpool,
    OpKind.FLATTEN: lambda op, x, params: x.flatten(1)[:, :, None, None],
}


def _module_keys(names: list[str]) -> dict[str, str]:
    """Module attributes cannot hold dots; a name that would collide gets its position appended."""
    keys: dict[str, str] = {}
    for index, name in enumerate(names):
        key = name.replace(".", "__")
        keys[name] = f"{key}__{index}" if key in keys.values() or hasattr(nn.Module, key) else key
    return keys
