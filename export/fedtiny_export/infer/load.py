"""A model from a file, whatever its kind, as a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedtiny_export.errors import ConfigError
from fedtiny_export.infer.network import Array, Network
from fedtiny_export.infer.passes.layout import channels_first

if TYPE_CHECKING:
    from fedtiny_export.model import Model

KINDS = (".tflite", ".onnx", ".ftm")


@dataclass(frozen=True, eq=False)
class Loaded:
    """`channels_first`: whether the file's own samples are (N, C, ...). `training`: what a node trains, of a `.ftm`.
    `data`: the file's bytes."""

    network: Network
    path: Path
    data: bytes
    channels_first: bool
    training: Model | None = None


def load_model(path: Path) -> Loaded:
    """Raises ConfigError for a file that cannot be read or is of no known kind, and what its importer raises."""
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ConfigError(f"{path} is neither the folder of a run nor a file that ends in {', '.join(KINDS)}.")
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ConfigError(f"cannot read the model {path}: {problem.strerror}. Name a file that is there.") from None
    if kind == ".tflite":
        from fedtiny_export.infer.tflite_in import from_tflite

        return Loaded(from_tflite(data, path.stem), path, data, channels_first=False)
    if kind == ".onnx":
        from fedtiny_export.infer.onnx_in import from_onnx

        return Loaded(from_onnx(data, path.stem), path, data, channels_first=True)
    from fedtiny_export.blob import read_blob
    from fedtiny_export.infer.from_graph import from_model

    blob = read_blob(data)
    return Loaded(from_model(blob.model, path.stem), path, data, channels_first=True, training=blob.model)


def as_inputs(network: Network, x: Array, *, first: bool) -> list[Array]:
    """Samples x (n, ...) as the one input of a network takes them: (n, *shape), channels last.

    `first`: whether x is channels first where both would fit. Raises ConfigError where its shape does not fit.
    """
    if len(network.inputs) != 1:
        raise ConfigError(f"the model has {len(network.inputs)} inputs; samples from a file are for models with one.")
    shape = network.tensors[network.inputs[0]].shape
    forms = {False: shape[1:], True: tuple(shape[i] for i in channels_first(len(shape)))[1:]}
    for order in (first, not first):
        if _without_ones(x.shape[1:]) == _without_ones(forms[order]):
            array = x.reshape(len(x), *forms[order])
            if order and len(shape) > 2:
                array = np.moveaxis(array, 1, -1)
            return [np.ascontiguousarray(array).reshape(len(x), *shape)]
    raise ConfigError(f"the samples have the shape {tuple(x.shape[1:])} each; the model takes {forms[first]}.")


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [d for d in shape if d != 1]
