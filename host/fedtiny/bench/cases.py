"""What is measured: named models at named densities, packed as a blob with one micro-batch of work."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fedtiny_export.blob import write_blob
from fedtiny_export.core import HOLDS, KEEPS, MODES, NORMS, NodeConfig
from fedtiny_export.graph import F32, Bits
from fedtiny_export.model import Model
from fedtiny_export.torch_in import from_torch

if TYPE_CHECKING:
    from torch import nn

_HEADER = struct.Struct("<6I8B")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of work. `density` is that of every layer but the first; 1 stores every layer dense.

    The last five are NodeConfig's.
    """

    model: str
    density: float
    mode: str  # "infer" or "train"
    micro_batch: int = 1
    norm: str = "batch"
    keep: str = "f32"
    lean: bool = False
    layerwise: bool = False
    plain_sgd: bool = False
    hold: str = "by_cost"

    @property
    def knobs(self) -> dict[str, str | bool]:
        names = ("keep", "lean", "layerwise", "plain_sgd", "hold")
        return {name: getattr(self, name) for name in names}

    @property
    def node_config(self) -> NodeConfig:
        return NodeConfig(
            micro_batch=self.micro_batch, modes=(self.mode,), norm=self.norm, keep=self.keep, lean=self.lean,
            layerwise=self.layerwise, plain_sgd=self.plain_sgd, hold=self.hold,
        )  # fmt: skip


@cache
def module(name: str, norm: str) -> nn.Module:
    """The named net in torch: `ref` of 9,098 parameters, MLPerf Tiny's ResNet8 and DS-CNN, or one of the kernels."""
    from fedtiny import models
    from fedtiny.bench import kernels

    if name in kernels.NETS:
        return kernels.NETS[name].module()
    build = {
        "ref": lambda: models.build("lenet-mini", input_shape=(1, 28, 28), classes=10),
        "resnet8": lambda: models.build("resnet8", input_shape=(3, 32, 32), classes=10, norm=norm),
        "dscnn": lambda: models.build("ds-cnn", input_shape=(1, 49, 10), classes=12, norm=norm),
    }
    return build[name]()


def shape(name: str) -> tuple[int, int, int]:
    from fedtiny.bench import kernels

    known = {"ref": (1, 28, 28), "resnet8": (3, 32, 32), "dscnn": (1, 49, 10)}
    return known[name] if name in known else kernels.NETS[name].shape


def norm_layer(case: Case) -> str:
    """Batch 1 trains with a norm that needs no batch; inference takes the batch norm that a node stores."""
    return "group" if case.mode == "train" and case.micro_batch == 1 else "batch"


@cache
def model(name: str, norm: str) -> Model:
    return from_torch(module(name, norm), shape(name))


def masks(model: Model, density: float, seed: int = 0) -> dict[str, Bits]:
    """Exactly round(density * size) live weights, drawn evenly, in every layer but the first."""
    if density >= 1:
        return {}
    rng, made = np.random.default_rng(seed), {}
    names = model.graph.layer_names
    for name in names[1:] if len(names) > 1 else names:
        mask = np.zeros(model.arrays[name].size, np.bool_)
        mask[rng.permutation(mask.size)[: max(1, round(density * mask.size))]] = True
        made[name] = mask.reshape(model.arrays[name].shape)
    return made


def blob(case: Case) -> bytes:
    built = model(case.model, norm_layer(case))
    live = masks(built, case.density)
    arrays = {name: array * live[name] if name in live else array for name, array in built.arrays.items()}
    return write_blob(built.graph, arrays, live, names=False)


def sample(name: str) -> F32:
    return np.random.default_rng(1).normal(size=shape(name)).astype(np.float32)


def case_file(case: Case) -> bytes:
    """The file that steps.c reads."""
    packed, x = blob(case), sample(case.model)
    knobs = (KEEPS[case.keep], case.lean, case.layerwise, case.plain_sgd, HOLDS[case.hold], 0, 0, 0)
    head = _HEADER.pack(len(packed), x.size, 1, case.micro_batch, MODES[case.mode], NORMS[case.norm], *knobs)
    return head + b"\0" * (-len(head) % 8) + packed + b"\0" * (-len(packed) % 8) + x.tobytes()
