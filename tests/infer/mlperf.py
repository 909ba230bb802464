"""The reference models of MLPerf Tiny, where the shared data is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtiny_export.infer.network import Array, Network

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "mlperf_tiny"
INT8 = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "str_ww_ref_model", "vww_96_int8")
FLOAT = ("ad01_fp32", "pretrainedResnet", "vww_96_float")
HYBRID = "kws_ref_model_float32"  # int8 weights, float activations


def model_bytes(name: str) -> bytes:
    path = FOLDER / "models" / f"{name}.tflite"
    if not path.is_file():
        pytest.skip("the models of MLPerf Tiny are not in ../shared/data")
    return path.read_bytes()


def golden() -> tuple[Array, Array]:
    """200 official images of CIFAR-10, uint8 (200, 32, 32, 3), and their labels."""
    path = FOLDER / "ic01_200_golden.npz"
    if not path.is_file():
        pytest.skip("the golden samples of MLPerf Tiny are not in ../shared/data")
    with np.load(path) as data:
        return data["x"], data["y"]


def random_samples(network: Network, count: int, seed: int = 0) -> list[Array]:
    """Half of them over the whole range of the input, half near its zero as real ones are."""
    random = np.random.default_rng(seed)
    made = []
    for i in network.inputs:
        tensor = network.tensors[i]
        shape = (count, *tensor.shape)
        if tensor.dtype == np.int8 and tensor.quantization is not None:
            wide = random.integers(-128, 128, shape)
            near = np.clip(random.normal(float(tensor.quantization.zero_point[0]), 20, shape), -128, 127)
            made.append(
                np.where(np.arange(count).reshape(-1, *[1] * len(tensor.shape)) % 2, near, wide).astype(np.int8)
            )
        else:
            made.append(random.normal(0, 1, shape).astype(np.float32))
    return made
