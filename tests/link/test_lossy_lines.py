"""120 bad lines: an object of 256 KB goes down and comes back, and its hash is the same."""

from __future__ import annotations

import pytest

from fedtiny.link.endpoint import Endpoint, Job
from fedtiny.link.memory import Faults
from fedtiny.link.messages import TaskKind

from ..conftest import Outcome
from .wires import ask, model, wire

KIB = 1024
SEEDS = 15
BAUD_RATE = 92_160.0  # bytes per second


@pytest.mark.usefixtures("each_node")
@pytest.mark.parametrize(
    ("loss", "flip", "share"),
    [
        (0.0, 0.0, 0.8),
        (0.0, 1e-3, 0.0),
        (0.01, 1e-5, 0.0),
        (0.05, 0.0, 0.6),
        (0.1, 1e-4, 0.0),
        (0.2, 1e-5, 0.0),
        (0.35, 0.0, 0.0),
        (0.5, 1e-4, 0.0),
    ],
)
def test_an_object_survives_a_line_that_loses_doubles_overtakes_and_flips(
    loss: float, flip: float, share: float, outcome: Outcome
) -> None:
    """Loss, 5 % of the frames doubled, 5 % overtaken, a bit flipped in a share of the bytes; at 921,600 baud.

    `share` of the line in the mean: a lost REPLY or last block costs a second whatever the size of an object.
    """
    seconds = 0.0
    again = 0.05 if loss or flip else 0.0
    for seed in range(SEEDS):
        payload = model(256 * KIB, seed)
        faults = Faults(loss=loss, duplicate=again, reorder=again, flip=flip, bytes_per_s=BAUD_RATE)
        line = wire(faults=faults, seed=seed, patience_s=300.0)
        assert line.run(lambda line=line: isinstance(line.host, Endpoint) and line.host.connected, 100)  # type: ignore[misc]
        start = line.now
        assert ask(line, Job(TaskKind.INFER, objects=(payload,))).objects == (payload,)
        seconds += line.now - start
    assert SEEDS * 2 * 256 * KIB / seconds >= share * BAUD_RATE
    what = "lines, loss to 50 %, 5 % doubled, 5 % overtaken, flips to 1e-3"
    outcome("lossy line, 256 KB each way", end="both", tried=SEEDS, what=what, result="same hash")
