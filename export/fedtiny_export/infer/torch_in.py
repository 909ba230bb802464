"""A torch module -> network, by way of ONNX: also what fedtiny does not train, such as concatenations."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from fedtiny_export.errors import ExportError
from fedtiny_export.infer import simulate
from fedtiny_export.infer.network import Network
from fedtiny_export.infer.onnx_in import from_onnx
from fedtiny_export.infer.passes.layout import channels_last
from fedtiny_export.torch_in import TOLERANCE, exported

if TYPE_CHECKING:
    import torch


def from_torch(module: torch.nn.Module, input_shape: tuple[int, ...], name: str = "model") -> Network:
    """The float32 network of a module that maps (N, *input_shape) to one tensor; the module stays as it is.

    Raises UnsupportedModel for what the engine lacks and ExportError where torch cannot export the module, or where
    the network computes something else than the module.
    """
    import torch

    module = copy.deepcopy(module).cpu().float().eval()
    x = torch.randn((2, *input_shape), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = module(x)
    except Exception as error:
        raise ExportError(
            f"the module fails on an input of the shape {tuple(x.shape)}: {error}. Check input_shape."
        ) from error
    if not isinstance(expected, torch.Tensor):
        raise ExportError("the module must return one tensor. Select one of its outputs.")
    network = from_onnx(exported(module, x), name)
    samples = x.numpy().transpose(channels_last(x.dim()))
    shape = network.tensors[network.inputs[0]].shape
    ours = simulate.run(network, [np.ascontiguousarray(samples).reshape(2, *shape)])[network.outputs[0]]
    wanted = expected.numpy().transpose(channels_last(expected.dim())).reshape(ours.shape)
    difference = float(np.abs(ours - wanted).max(initial=0.0))
    if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0.0))):
        raise ExportError(
            f"the network's outputs differ by {difference:.2g} from torch's. "
            "Does the module's computation depend on its input's values or on randomness?"
        )
    return network
