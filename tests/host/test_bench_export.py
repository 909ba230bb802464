"""The benchmark of exported networks: stable rows, goals that are met, counts that do not move."""

from __future__ import annotations

import pytest

from fedtiny.bench import builds
from fedtiny.bench.export import EXPORT, GOALS, PEERS, TARGETS, entries, program
from fedtiny.emulation import missing_packages
from fedtiny_export.infer.network import Kind

PROMISED = [
    "resnet8.s8.m4f.dense.instructions",
    "resnet8.s8.m4f.dense.arena_bytes",
    "resnet8.s8.m4f.d0.1.instructions",
    "dscnn.s8.m4f.dense.instructions",
    "dscnn.s8.m4f.dense.arena_bytes",
    "resnet8.s8.code_bytes",
    "resnet8.s8.d0.1.model_bytes",
    "resnet8.s8.rv32.d0.1.instructions",
]


def missing(target: str) -> bool:
    return bool(missing_packages(builds.board_of(TARGETS[target])))


def test_the_promised_rows_come_first_and_each_goal_and_peer_has_its_row() -> None:
    assert list(entries())[: len(PROMISED)] == PROMISED
    assert list(GOALS) == PROMISED
    assert {peer.row for peer in PEERS} <= set(entries())


def test_the_nets_are_those_of_mlperf_tiny_and_a_tenth_of_the_weights_is_left() -> None:
    for name, multiply_adds in (("resnet8", 12_501_632), ("dscnn", 2_656_768)):
        network = program(name, 1.0).network
        taken = 0
        for op in network.operators:
            weight, y = network.tensors[op.inputs[1]] if len(op.inputs) > 1 else None, network.tensors[op.outputs[0]]
            if op.kind in (Kind.CONV2D, Kind.DEPTHWISE_CONV2D, Kind.FULLY_CONNECTED) and weight is not None:
                taken += weight.size * (y.size // y.shape[-1])
        assert taken == multiply_adds, name
    network = program("resnet8", 0.1).network
    weights = [
        network.tensors[op.inputs[1]] for op in network.operators if op.kind in (Kind.CONV2D, Kind.FULLY_CONNECTED)
    ]
    live = sum(int((weight.data != 0).sum()) for weight in weights)  # quantising rounds some to 0
    assert 0.09 <= live / sum(weight.size for weight in weights) <= 0.101


@pytest.mark.skipif(missing("m4f") or missing("rv32"), reason="no compiler or emulator for the boards on this machine")
def test_every_goal_is_met() -> None:
    rows = list(EXPORT.measure("|".join(f"^{name}$".replace(".", r"\.") for name in PROMISED)))
    assert len(rows) == len(PROMISED)
    for row in rows:
        print(f"{row.name:40} {row.value} {row.unit}")
        assert row.value is not None, row.missing
        assert GOALS[row.name].met(row.value), row
