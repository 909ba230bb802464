"""torch -> ONNX -> graph, checked against ONNX Runtime."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch

from fedtiny_export.errors import ExportError, UnsupportedModel
from fedtiny_export.model import Model
from fedtiny_export.onnx_in import from_onnx
from fedtiny_export.onnx_out import to_onnx
from fedtiny_export.runtimes import onnxruntime_logits

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit if that exceeds 1: runtimes sum in different orders."""


def from_torch(module: torch.nn.Module, input_shape: tuple[int, ...]) -> Model:
    """The graph and parameters of a module that maps (N, *input_shape) to (N, classes); the module stays as it is.

    `input_shape` is (C, H, W), (C, W) or (F,). Raises UnsupportedModel for what a node lacks and ExportError when torch
    cannot export the module or when ONNX Runtime computes something else from the exported graph.
    """
    module = copy.deepcopy(module).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, *input_shape), generator=generator)
    try:
        with torch.no_grad():
            expected = module(x)
    except Exception as error:
        raise ExportError(
            f"the module fails on an input of the shape {tuple(x.shape)}: {error}. Check input_shape."
        ) from error
    if not isinstance(expected, torch.Tensor) or expected.dim() != 2:
        raise ExportError("the module must return one tensor of logits (N, classes). Flatten or select its output.")
    model = from_onnx(exported(module, x[:2]))
    _check_names(module, model)
    wanted = np.asarray(expected.numpy(), np.float32)
    difference = float(np.abs(onnxruntime_logits(to_onnx(model), x.numpy()) - wanted).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise ExportError(
            f"ONNX Runtime's logits of the exported model differ by {difference:.2g} from torch's. "
            "Does the module's computation depend on its input's values or on randomness?"
        )
    return model


def exported(module: torch.nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    """ONNX with every parameter unfolded and named as in the state_dict."""
    file = io.BytesIO()
    try:
        with _quiet():
            torch.onnx.export(
                module,
                (x,),
                file,  # type: ignore[arg-type]  # its annotation lacks the file objects that it takes
                dynamo=False,
                opset_version=17,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=["input"],
                output_names=["logits"],
                dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
            )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"torch cannot export this module to ONNX: {reason}. Use modules of torch.nn.") from error
    return onnx.load_from_string(file.getvalue())


def _check_names(module: torch.nn.Module, model: Model) -> None:
    """Each parameter of the graph is one of the module's, so that values can travel back."""
    state = module.state_dict()
    problems = []
    for param in model.graph.params:
        if param.name not in state:
            problems.append(f"a constant stands for {param.name}; norms need affine=True and tracked statistics")
        elif not np.array_equal(state[param.name].numpy().reshape(-1), model.arrays[param.name].reshape(-1)):
            problems.append(f"{param.name} is changed before it is used; apply the change to the parameter itself")
    if problems:
        raise UnsupportedModel(problems)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
