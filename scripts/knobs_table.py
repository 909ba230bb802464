"""What the memory knobs cost in accuracy: trains the ResNet8 of the RAM rows with each, writes the figures.

    .venv/bin/python scripts/knobs_table.py --cifar10 cifar10.npz

The file holds x_train (n, H, W[, 3]), y_train, x_test and y_test, bytes 0..255. One node of the C core trains alone,
batch 1, group norm, 10 % of every layer's weights but the first's alive, drawn evenly. Each way of training gets its
own learning rate, chosen on a fifth of the training images held out and one seed; then every seed is trained on all of
them and tested. The figures go to docs/knobs.json; rows that the file already has are not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtiny import models
from fedtiny.bench import cases
from fedtiny_export.blob import write_blob
from fedtiny_export.core import CoreNode, NodeConfig
from fedtiny_export.torch_in import from_torch

FIGURES = Path("docs/knobs.json")
DENSITY = 0.1
TUNING_SEED = 1000
RATES = {0.9: (0.0003, 0.001, 0.003), 0.0: (0.003, 0.01, 0.03)}  # by momentum


@dataclass(frozen=True, kw_only=True)
class Net:
    """A model of the benchmark, and the images that stand in for its own data."""

    model: str
    data: str
    epochs: int
    train: int
    test: int


NETS = (Net(model="resnet8", data="cifar10", epochs=12, train=2000, test=2000),)
WAYS = (("f32", 0.9), ("f32", 0.0), ("f16", 0.0), ("int8", 0.0), ("int8", 0.9))


@dataclass(frozen=True, kw_only=True)
class Job:
    net: Net
    path: Path
    keep: str
    momentum: float
    lr: float
    seed: int
    tune: bool


def accuracy(job: Job) -> float:
    """Share of right answers after training: on held-out training images when `tune`, else on the test images."""
    x, y, x_test, y_test = images(job.path, job.net)
    if job.tune:
        cut = len(y) * 4 // 5
        x, y, x_test, y_test = x[:cut], y[:cut], x[cut:], y[cut:]
    shape = (x.shape[1], x.shape[2], x.shape[3])
    model = from_torch(models.build(job.net.model, input_shape=shape, classes=10, norm="group", seed=job.seed), shape)
    live = cases.masks(model, DENSITY, seed=job.seed)
    arrays = {name: array * live[name] if name in live else array for name, array in model.arrays.items()}
    config = NodeConfig(
        micro_batch=1, modes=("train", "infer"), keep=job.keep, lean=True, layerwise=True, plain_sgd=job.momentum == 0
    )
    with CoreNode(write_blob(model.graph, arrays, live), config) as node:
        node.set_samples(x, y, 1)
        node.train(epochs=job.net.epochs, lr=job.lr, momentum=job.momentum, weight_decay=5e-4, seed=job.seed)
        return float(np.mean(node.infer(x_test).argmax(1) == y_test))


def images(path: Path, net: Net) -> tuple[Any, Any, Any, Any]:
    """x (n, C, H, W) float32 of mean 0 and deviation 1, y uint16: the first `train` and `test` of the file."""
    with np.load(path) as arrays:
        parts = [arrays[key][:n] for n, keys in _parts(net) for key in keys]
    x, y, x_test, y_test = parts
    mean, std = x.mean(), x.std()

    def scaled(raw: Any) -> Any:
        channels = raw.transpose(0, 3, 1, 2) if raw.ndim == 4 else raw[:, None]
        return np.ascontiguousarray((channels - mean) / std, np.float32)

    return scaled(x), y.astype(np.uint16), scaled(x_test), y_test.astype(np.uint16)


def _parts(net: Net) -> Iterator[tuple[int, tuple[str, str]]]:
    yield net.train, ("x_train", "y_train")
    yield net.test, ("x_test", "y_test")


def row(
    net: Net, path: Path, keep: str, momentum: float, seeds: list[int], pool: ProcessPoolExecutor
) -> dict[str, Any]:
    def trained(lr: float, seed: int, *, tune: bool) -> Job:
        return Job(net=net, path=path, keep=keep, momentum=momentum, lr=lr, seed=seed, tune=tune)

    rates = RATES[momentum]
    tuned = list(pool.map(accuracy, [trained(lr, TUNING_SEED, tune=True) for lr in rates]))
    lr = rates[int(np.argmax(tuned))]
    found = list(pool.map(accuracy, [trained(lr, seed, tune=False) for seed in seeds]))
    return {
        "model": net.model, "data": net.data, "keep": keep, "momentum": momentum, "lr": lr, "epochs": net.epochs,
        "train_images": net.train, "tuned": dict(zip(map(str, rates), tuned, strict=True)), "seeds": seeds,
        "accuracy": found,
    }  # fmt: skip


def markdown(rows: list[dict[str, Any]]) -> str:
    """One row a way; the differences are paired by seed with the row f32 of the same momentum."""
    lines = [
        "| model, data | kept | momentum | learning rate | accuracy by seed | mean (std) | against f32, paired (std) |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        same = next(o for o in rows if (o["model"], o["keep"], o["momentum"]) == (r["model"], "f32", r["momentum"]))
        gains = [100 * (a - b) for a, b in zip(r["accuracy"], same["accuracy"], strict=True)]
        spread = 100 * statistics.stdev(r["accuracy"])
        paired = "" if r is same else f"{statistics.mean(gains):+.1f} ({statistics.stdev(gains):.1f})"
        seeds = ", ".join(f"{100 * a:.1f}" for a in r["accuracy"])
        lines.append(
            f"| {r['model']}, {r['data']} | {r['keep']} | {r['momentum']:g} | {r['lr']:g} | {seeds} "
            f"| **{100 * statistics.mean(r['accuracy']):.1f}** ({spread:.1f}) % | {paired} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.figures.read_text())["rows"] if args.figures.exists() else []
    have = {(r["model"], r["keep"], r["momentum"]) for r in rows}
    with ProcessPoolExecutor(args.workers) as pool:
        for net in NETS:
            for keep, momentum in WAYS:
                if (net.model, keep, momentum) in have:
                    continue
                rows.append(row(net, getattr(args, net.data), keep, momentum, args.seeds, pool))
                args.figures.write_text(json.dumps({"density": DENSITY, "rows": rows}, indent=1) + "\n")
                print(rows[-1], flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
