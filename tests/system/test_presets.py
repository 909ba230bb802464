"""The presets that ship, as a user meets them: the main job shortened, and the watch data where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import fedtiny
from fedtiny import models
from fedtiny.federation.tasks import Infer, Load, Logits, PutData
from fedtiny.fleet.encoding import Packer
from fedtiny.fleet.native import NativeNode
from fedtiny_export import onnxruntime_logits, to_onnx, write_blob
from tests.system.conftest import Fedtiny

ROOT = Path(__file__).resolve().parents[2]
WATCH = "spar_windows_6x128.npz"


def test_pytorch_onnx_runtime_and_the_node_agree_on_the_500_test_images() -> None:
    """The torch side is the user's own module with the trained numbers put back, not our reading of its graph."""
    config = fedtiny.load_config("fashion-mini", {"train.rounds": 3, "pruning.delta_rounds": 1})
    with fedtiny.Experiment(config) as experiment:
        assert len(list(experiment)) == 3
        model, masks, x = experiment.model, experiment.masks, experiment.dataset.x_test
    assert len(x) == 500
    module = models.build("resnet-mini", input_shape=(1, 28, 28), classes=10).eval()
    missing, unexpected = module.load_state_dict(
        {name: torch.from_numpy(array) for name, array in model.arrays.items()}, strict=False
    )
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    node = NativeNode()
    node.do(Load(blob=write_blob(model.graph, model.arrays, masks), micro_batch=8))
    answer = node.do(Infer(x=x))
    assert isinstance(answer, Logits)
    np.testing.assert_allclose(answer.logits, expected, atol=1e-4)
    np.testing.assert_allclose(onnxruntime_logits(to_onnx(model), x), expected, atol=1e-4)


def watch_folder() -> Path | None:
    """Where the windows are: FEDTINY_DATA, or the data beside a development checkout."""
    places = [Path(os.environ.get("FEDTINY_DATA", "")), ROOT.parent / "shared/data/spar_watch"]
    return next((place for place in places if (place / WATCH).is_file()), None)


@pytest.mark.skipif(watch_folder() is None, reason=f"no {WATCH}: set FEDTINY_DATA to its folder")
def test_ten_people_with_a_watch_each_train_one_model(fedtiny: Fedtiny) -> None:
    done = fedtiny("run", "spar-watch", "--rounds", "6", "--data-dir", str(watch_folder()), "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["nodes"] == 10
    assert result["accuracy"] > 0.6  # seven classes
    assert result["parity"]["node_max_abs"] < 1e-4


def test_what_the_small_boards_preset_takes_fits_a_board_of_128_kilobytes() -> None:
    """Samples as they travel and stay, the blob and the arena together; the rest is the firmware's own."""
    with fedtiny.Experiment(fedtiny.load_config("board-mini")) as experiment:
        experiment.prepare()
        plan = experiment.server.plans["node-01"].plan_bytes
        model = write_blob(experiment.model.graph, experiment.model.arrays, experiment.masks, names=False)
        for shard in experiment.shards.values():
            assert len(shard.y) == 32
            put = PutData(x=shard.x, y=shard.y, dev_count=shard.dev_count)
            (job,) = Packer(run=bytes(8), round_number=0, limit_s=1).jobs(put, 1 << 20)
            assert len(job.objects[0].data) + len(model) + plan <= 110_000
