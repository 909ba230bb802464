"""A graph that many nodes run at once in torch: the channels of node n are the n-th group of every map's channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedtiny_export.graph import Op, OpKind
from fedtiny_export.reference import GraphModule

_FORGET_THEIR_OUTPUT = (OpKind.CONV2D, OpKind.BATCHNORM, OpKind.GROUPNORM, OpKind.ADD)
"""Their gradients need it not: what follows may write over it."""


def layout(x: Tensor) -> torch.memory_format:
    """How maps and weights of grouped convolutions lie: oneDNN's, on a CPU, are twice as fast with channels last."""
    return torch.channels_last if x.dim() == 4 and x.device.type == "cpu" else torch.contiguous_format


class Grouped:
    """`nodes` copies of a module in training, each with weights of its own.

    One convolution with `nodes` times as many groups does what all nodes' convolutions do, one batch norm what all
    their batch norms do: an operator costs one call, and its gradients for one node are those of that node's loss.
    """

    def __init__(self, module: GraphModule, nodes: int) -> None:
        self._module, self._nodes = module, nodes
        graph = module.graph
        self._trained = {index: at for at, index in enumerate(graph.trained)}
        self._fixed = {
            index: module.param(param.name).detach().repeat(nodes)
            for index, param in enumerate(graph.params)
            if index not in self._trained
        }
        readers = Counter(index for op in graph.ops for index in op.inputs)
        makers = {op.output: op.kind for op in graph.ops}
        self._in_place = {
            op.output
            for op in graph.ops
            if op.kind is OpKind.RELU
            and readers[op.inputs[0]] == 1
            and makers.get(op.inputs[0]) in _FORGET_THEIR_OUTPUT
        }
        self._ops = [
            replace(op, groups=op.groups * nodes) if op.kind in (OpKind.CONV2D, OpKind.GROUPNORM) else op
            for op in graph.ops
        ]

    def run(self, weights: Sequence[Tensor], x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Outputs (nodes, B, K), and of each batch norm's input, node after node, mean and 1 / sqrt(variance + eps).

        `weights`: in the order of `Graph.trained`, those of all nodes along the first axis. `x`: (B, nodes, ...).
        """
        graph = self._module.graph
        moments: list[tuple[Tensor, Tensor]] = []
        channels, height, width = graph.tensors[graph.input].shape
        x = x.reshape(len(x), self._nodes * channels, height, width)
        maps = {graph.input: x.contiguous(memory_format=layout(x))}
        for number, op in enumerate(self._ops):
            source = maps[op.inputs[0]]
            if op.kind is OpKind.ADD:
                maps[op.output] = source + maps[op.inputs[1]]
                continue
            params = [weights[self._trained[i]] if i in self._trained else self._fixed[i] for i in op.params]
            if op.kind is OpKind.BATCHNORM:
                maps[op.output] = self._norm(op, number, source, params, moments)
            elif op.output in self._in_place:
                maps[op.output] = torch.relu_(source)
            elif op.kind is OpKind.LINEAR:
                maps[op.output] = self._linear(source, params)
            else:
                maps[op.output] = self._module.operate(op, source, [*params])
        outputs = maps[graph.output]
        return outputs.reshape(len(outputs), self._nodes, -1).transpose(0, 1), moments

    def _norm(
        self, op: Op, number: int, source: Tensor, params: Sequence[Tensor], moments: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        gamma, beta, mean, var = params
        if self._module.norm == "batch" and number >= self._module.first_trained:
            out, seen, scale = torch.native_batch_norm(source, gamma, beta, None, None, True, 0.0, op.eps)
        else:
            out = torch.batch_norm(source, gamma, beta, mean, var, False, 0.0, op.eps, False)
            spread, seen = torch.var_mean(source.detach(), dim=(0, 2, 3), correction=0)
            scale = torch.rsqrt(spread + op.eps)
        moments.append((seen, scale))
        return out

    def _linear(self, source: Tensor, params: Sequence[Tensor]) -> Tensor:
        weight = params[0].reshape(self._nodes, -1, params[0].shape[1])
        x = source.reshape(len(source), self._nodes, -1).transpose(0, 1)
        out = torch.bmm(x, weight.transpose(1, 2)).transpose(0, 1).flatten(1)
        return (out + params[1] if len(params) > 1 else out)[:, :, None, None]
