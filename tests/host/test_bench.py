"""The benchmark: stable rows, counts that two instruments agree on, a control that computes what the node computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedtiny.bench import builds, cases, counting, cycles
from fedtiny.bench.cases import Case
from fedtiny.bench.cycles import Instruction
from fedtiny.bench.peers import PEERS
from fedtiny.bench.rows import GOALS, KERNELS, Bench, entries
from fedtiny.emulation import missing_packages
from fedtiny_export.core import CoreNode, NodeConfig, plan

PROMISED = [
    "ref.train.m4f.d0.1.instructions",
    "ref.train.m4f.d0.1.cycles",
    "ref.train.m4f.d0.1.fast.instructions",
    "ref.train.m4f.d1.fast.instructions",
    "ref.train.d0.1.ram_bytes",
    "resnet8.infer.m4f.d0.1.f32.fast.instructions",
    "resnet8.train.d0.1.ram_bytes",
    "resnet8.train.mb4.d0.1.ram_bytes",
    "dscnn.train.d0.1.ram_bytes",
    "node.flash_bytes",
    "conv64x64.m4f.d0.1.fast.instructions_per_mac",
    "ref.train.host.d0.1.speedup_vs_torch",
]
REF = Case(model="ref", density=0.1, mode="train")
needs_m4f = pytest.mark.skipif(
    bool(missing_packages(builds.board_of("m4f"))), reason="no compiler or emulator for the M4F on this machine"
)


def test_the_promised_rows_come_first_and_each_figure_of_a_peer_has_its_row() -> None:
    assert list(entries())[: len(PROMISED)] == PROMISED
    assert set(GOALS) <= set(PROMISED)
    assert {peer.row for peer in PEERS} <= set(entries())


def test_the_reference_net_is_the_one_that_peers_were_measured_with() -> None:
    graph = cases.model("ref", "batch").graph
    assert sum(param.size for param in graph.params) == 9098


def test_every_layer_but_the_first_has_the_density_of_its_name() -> None:
    model = cases.model("ref", "batch")
    masks = cases.masks(model, 0.1)
    assert list(masks) == list(model.graph.layer_names[1:])
    assert all(mask.sum() == round(0.1 * mask.size) for mask in masks.values())


@needs_m4f
def test_timer_and_plugin_count_the_same_instructions(tmp_path: Path) -> None:
    cost = counting.count_cases("m4f", builds.DETERMINISTIC, [REF], tmp_path)[REF]
    elf = builds.program("m4f", builds.DETERMINISTIC, "steps", tmp_path)
    executed, taken = counting.blocks_of("m4f", elf, ["0.case"], tmp_path)
    total, instructions = cycles.cycles(cycles.disassemble(builds.board_of("m4f"), elf), executed, taken)
    assert abs(instructions - cost.instructions) < 100  # the plugin also sees the printing of a number with more digits
    assert instructions < total < 4 * instructions
    assert 128 < cost.stack < 4096
    planned = plan(cases.blob(REF), REF.node_config).peak
    assert planned - 256 < cost.arena <= planned  # pointers are shorter than this computer's


@needs_m4f
def test_ram_is_arena_stack_and_data() -> None:
    (row,) = KERNELS.measure(r"^ref\.train\.d0\.1\.ram_bytes$")
    assert row.value == sum(row.config["what"].values())
    assert row.value <= 48 * 1024


@needs_m4f
def test_the_control_trains_as_the_node_does(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    counting.count_control("m4f", bench.control_data(), tmp_path)
    node = CoreNode(cases.blob(Case(model="ref", density=1.0, mode="train")), NodeConfig(modes=("train",)))
    node.set_samples(cases.sample("ref")[None], np.ones(1, np.uint16), 0)
    before = node.values()
    node.train(epochs=1, lr=0.01, momentum=0.9, weight_decay=0.0, seed=0)
    control = np.fromfile(tmp_path / "control.out", np.float32)
    assert np.abs(node.values() - before).max() > 1e-3
    np.testing.assert_allclose(control, node.values(), atol=1e-6)


@pytest.mark.parametrize(
    ("instruction", "before", "after", "expected"),
    [
        (("add", "r0, r1"), None, None, 1),
        (("ldr.w", "r0, [r1, #4]"), ("add", "r1, r2"), None, 2),
        (("ldr", "r0, [r1, #4]"), ("ldr", "r2, [r1]"), None, 1),
        (("strb", "r0, [r1]"), None, None, 1),
        (("ldmia.w", "sp!, {r4, r5, r6, pc}"), None, None, 5),
        (("vldmia", "r3!, {s0-s7}"), None, None, 9),
        (("vpush", "{d8-d15}"), None, None, 17),
        (("vldr", "s0, [r1]"), None, None, 2),
        (("vfma.f32", "s0, s1, s2"), None, None, 3),
        (("vmul.f32", "s0, s1, s2"), None, ("vadd.f32", "s3, s3, s0"), 2),
        (("vmul.f32", "s0, s1, s2"), None, ("vadd.f32", "s3, s3, s4"), 1),
        (("vadd.f32", "s0, s1, s2"), None, ("vstr", "s0, [r1]"), 2),
        (("vdiv.f32", "s0, s1, s2"), None, None, 14),
        (("udiv", "r0, r1, r2"), None, None, 12),
        (("bne.n", "8000"), None, None, 1),
    ],
)
def test_an_instruction_costs_what_the_table_says(
    instruction: tuple[str, str], before: tuple[str, str] | None, after: tuple[str, str] | None, expected: int
) -> None:
    neighbours = [None if it is None else Instruction(*it) for it in (before, after)]
    assert cycles.cost(Instruction(*instruction), *neighbours) == expected


def test_only_taken_branches_refill_the_pipeline() -> None:
    program = {0: Instruction("subs", "r0, #1"), 2: Instruction("bne.n", "0"), 4: Instruction("nop", "")}
    executed = Counter({(0, 2): 10, (4, 1): 1})
    assert cycles.cycles(program, executed, Counter({(0, 2): 9, (4, 1): 1})) == (10 * 2 + 9 * 2 + 1, 21)


def test_a_row_without_its_tools_names_the_command_and_the_others_still_come(tmp_path: Path) -> None:
    environment = dict(os.environ, PATH=str(tmp_path))  # a computer without compiler and emulator
    command = [
        sys.executable,
        "-m",
        "fedtiny",
        "bench",
        "kernels",
        "--json",
        "--only",
        r"^node\.flash|^ref\.train\.d0\.1\.ram",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ram, flash = json.loads(done.stdout)["rows"]
    assert (ram["name"], flash["name"]) == ("ref.train.d0.1.ram_bytes", "node.flash_bytes")
    for row in (ram, flash):
        assert row["value"] is None
        assert "apt-get install" in row["missing"]


@needs_m4f
def test_rows_have_name_value_unit_and_config() -> None:
    (row,) = KERNELS.measure("^dscnn.train.d0.1.ram_bytes$")
    assert row.as_json().keys() == {"name", "value", "unit", "config"}
    assert row.config["density"] == 0.1


def test_a_pattern_without_rows_is_a_mistake() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedtiny", "bench", "kernels", "--only", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no row matches" in done.stderr
