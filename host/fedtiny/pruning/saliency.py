"""Scores that the server computes in torch on its public samples. torch is imported inside."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedtiny.pruning.method import Public
from fedtiny_export.errors import ConfigError
from fedtiny_export.graph import Graph, OpKind, Param, Role
from fedtiny_export.model import Model

if TYPE_CHECKING:
    from torch import Tensor

F64 = NDArray[np.float64]


def required(public: Public | None, method: str) -> Public:
    """The public samples, or why there have to be some."""
    if public is None or not len(public.y):
        raise ConfigError(f"{method} ranks weights on public samples: set pretrain.per_class to at least 1.")
    return public


def gradients(model: Model, public: Public) -> dict[int, F64]:
    """Gradient of the mean loss over all public samples at once, by layer number; norms use that batch's statistics."""
    import torch

    from fedtiny_export.reference import single_thread

    with single_thread():  # the order of additions, and so the ranking, is the same on any number of cores
        weights, loss = _loss(model, public, temperature=1.0)
        return _by_layer(torch.autograd.grad(loss, weights))


def hessian_gradient(model: Model, public: Public, *, temperature: float) -> dict[int, F64]:
    """H g by layer number, of the loss of logits / temperature: g the gradient, H the Hessian over all layers."""
    import torch

    from fedtiny_export.reference import single_thread

    with single_thread():
        weights, loss = _loss(model, public, temperature=temperature)
        first = torch.autograd.grad(loss, weights, create_graph=True)
        product = sum((g * g.detach()).sum() for g in first)
        return _by_layer(torch.autograd.grad(product, weights))  # type: ignore[arg-type]


def path_scores(model: Model) -> dict[int, F64]:
    """|w| dR/d|w| by layer number; R: the sum of outputs of `linearised` for an input of ones, in float64."""
    import torch

    from fedtiny_export.reference import GraphModule, single_thread

    plain = linearised(model)
    with single_thread():
        module = GraphModule(plain.graph, plain.arrays).double().eval()
        for name, array in plain.arrays.items():  # not through float32
            module.param(name).data = torch.from_numpy(np.asarray(array, np.float64))
        weights = [module.param(name) for name in plain.graph.layer_names]
        shape = plain.graph.tensors[plain.graph.input].shape
        flow = module(torch.ones((1, *shape), dtype=torch.float64)).sum()
        grads = torch.autograd.grad(flow, weights)
        return _by_layer([g * w.detach() for g, w in zip(grads, weights, strict=True)])


def linearised(model: Model) -> Model:
    """The model with |w| for every weight, no offsets, and norms that only scale by |gamma|.

    A positive input then flows through it as through a linear net: activations clip nothing, and what reaches the
    output is the sum of the products of weights along all paths.
    """
    params, ops = list(model.graph.params), []
    arrays = {name: np.asarray(array, np.float64) for name, array in model.arrays.items()}
    for op in model.graph.ops:
        if op.kind in (OpKind.BATCHNORM, OpKind.GROUPNORM):
            gamma, beta, *_ = op.params
            shape, at = params[gamma].shape, len(params)
            params += [Param(f"linearised.{at}.mean", Role.MEAN, shape), Param(f"linearised.{at}.var", Role.VAR, shape)]
            arrays[params[at].name] = np.zeros(shape)
            arrays[params[at + 1].name] = np.full(shape, 1.0 - op.eps)
            op = replace(op, kind=OpKind.BATCHNORM, params=(gamma, beta, at, at + 1), groups=1)
        elif op.kind is OpKind.RELU6:
            op = replace(op, kind=OpKind.RELU)
        elif op.kind is OpKind.CONV2D:
            op = replace(op, eps=0.0)
        ops.append(op)
    for param in model.graph.params:
        offset = param.role in (Role.BIAS, Role.BETA)
        arrays[param.name] = arrays[param.name] * 0 if offset else np.abs(arrays[param.name])
    graph = Graph(model.graph.tensors, tuple(params), tuple(ops), model.graph.input, model.graph.output)
    return Model(graph, arrays)  # type: ignore[arg-type]


def _loss(model: Model, public: Public, *, temperature: float) -> tuple[list[Tensor], Tensor]:
    import torch

    from fedtiny_export.reference import GraphModule, sample_losses

    module = GraphModule(model.graph, model.arrays).train()
    weights = [module.param(name) for name in model.graph.layer_names]
    x, y = torch.from_numpy(np.array(public.x, np.float32)), torch.from_numpy(public.y.astype(np.int64))
    return weights, sample_losses(public.loss, module(x) / temperature, x, y)[0].mean()


def _by_layer(tensors: list[Tensor] | tuple[Tensor, ...]) -> dict[int, F64]:
    return {layer: tensor.detach().double().numpy() for layer, tensor in enumerate(tensors)}
