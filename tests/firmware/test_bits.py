"""The same bits from every build: plain C without optimisation, the vector build, another compiler."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FIRMWARE = ROOT / "firmware"
PLAIN = [
    *sorted((FIRMWARE / "src").glob("*.c")),
    *sorted((FIRMWARE / "src/op").glob("*.c")),
    FIRMWARE / "port/posix/samples.c",
]
PLAIN = [path for path in PLAIN if path.name != "taps_vector.c"]


def digest() -> str:
    """SHA-256 of weights, moments and scores after 50 steps with a mask change in the middle, of three nets."""
    from fedtiny_export.masks import encode_mask

    from .nets import make, node_of, random_masks, random_samples

    total = hashlib.sha256()
    for name, norm in (("residual", "batch"), ("residual", "frozen"), ("group norm", "batch"), ("depthwise", "batch")):
        _, model = make(name)
        masks = random_masks(model, 0.3)
        node = node_of(model, masks, micro_batch=4, norm=norm, topk_max=10)
        x, y = random_samples(20, model.graph.classes)
        node.set_samples(x, y, 7)
        settings = {"epochs": 5, "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
        node.train(seed=0, **settings)
        indices, gradients = node.score(1, 10, batches=2, seed=0)
        mask = masks[model.graph.layer_names[1]].ravel().copy()
        mask[np.flatnonzero(mask)[0]] = False
        mask[indices[0]] = True
        values = node.values()
        node.set_mask(1, encode_mask(mask))
        node.set_values(values)
        _, moments = node.train(seed=1, **settings)
        tally = node.evaluate(1)
        for part in (node.values(), moments, gradients, node.measure_bn(0)[0], np.float64(tally.loss_sum)):
            total.update(part.tobytes())
    return total.hexdigest()


def digest_with(library: Path | None) -> str:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    environment.pop("FEDTINY_CORE", None)
    if library:
        environment["FEDTINY_CORE"] = str(library)
    script = "from tests.firmware.test_bits import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def installed() -> str:
    return digest_with(None)


@pytest.mark.parametrize(
    "command", [["gcc", "-O0"], ["gcc", "-O3", "-march=native"], ["clang", "-O3"]], ids=lambda c: " ".join(c)
)
def test_plain_c_gives_the_installed_cores_bits(command: list[str], installed: str, tmp_path: Path) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]} on this machine")
    library = tmp_path / "core.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]
    include = [f"-I{FIRMWARE / 'include'}", f"-I{FIRMWARE / 'port/posix'}"]
    subprocess.run([*command, *flags, *include, "-o", library, *PLAIN, "-lm"], check=True)
    assert digest_with(library) == installed
