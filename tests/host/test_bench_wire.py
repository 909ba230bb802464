"""The benchmark of the wire: stable rows, a line that is as slow as it says, figures of the firmware itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from fedtiny.bench import builds, programs, wire_lines, wire_mqtt
from fedtiny.bench.paced import paced_terminal
from fedtiny.bench.wire import DENSITIES, GOALS, PEERS, UPDATE_VALUES, WIRE, entries
from fedtiny.bench.wire_size import Calls
from fedtiny.emulation import missing_packages
from fedtiny.link.links import BITS_A_BYTE
from fedtiny_export.errors import ConfigError

from ..conftest import Outcome

PROMISED = [
    "serial.115200.goodput",
    "serial.921600.goodput",
    "serial.115200.loss5.goodput",
    "serial.921600.loss5.goodput",
    "update.d0.05.f16.bytes_over_values",
    "mask.bytes_over_entropy",
    "node.wire.flash_bytes",
    "node.wire.ram_bytes",
    "mqtt.1000.round_s",
]


def test_the_promised_rows_come_first_and_each_goal_and_peer_has_its_row() -> None:
    assert list(entries())[: len(PROMISED)] == PROMISED
    assert set(GOALS) >= set(PROMISED)
    assert set(GOALS) | {peer.row for peer in PEERS} <= set(entries())


def test_an_update_and_a_mask_take_the_bytes_that_are_promised() -> None:
    update, mask = WIRE.measure(r"^update|^mask\.bytes")
    for row in (update, mask):
        assert row.value is not None, row.missing
        assert GOALS[row.name].met(row.value), row
    assert update.config["values"] == UPDATE_VALUES
    assert update.config["value_bytes"] > 2 * UPDATE_VALUES  # frames and all
    assert mask.config["wire_bytes"] > mask.config["mask_bytes"] > mask.config["entropy_bytes"]


def test_the_smallest_encoding_of_a_mask_is_near_its_entropy_at_every_density() -> None:
    rows = list(WIRE.measure(r"^mask\.d"))
    assert len(rows) == len(DENSITIES)
    for row in rows:
        sizes = row.config["bytes"]
        assert row.value is not None
        assert 1 <= row.value <= 1.05, row
        assert row.value == pytest.approx(min(sizes.values()) / row.config["entropy_bytes"], rel=0.005)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_paced_terminal_takes_its_time_and_loses_whole_frames(loss: float) -> None:
    """What `cat` gives back went over the line twice, at the same time."""
    frames = [bytes((1 + n,)) * 99 + b"\0" for n in range(255)]

    async def work() -> tuple[bytes, float]:
        async with paced_terminal(["cat"], 50_000, loss=loss, seed=3) as path:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            waiting, back, start, last = b"".join(frames), b"", time.monotonic(), time.monotonic()
            while time.monotonic() - last < 0.5:
                with contextlib.suppress(BlockingIOError):
                    waiting = waiting[os.write(fd, waiting[:1000]) :] if waiting else b""
                try:
                    back += os.read(fd, 4096)
                    last = time.monotonic()
                except BlockingIOError:
                    await asyncio.sleep(0.002)
            os.close(fd)
            return back, last - start

    back, seconds = asyncio.run(work())
    assert seconds >= 0.95 * 25_500 / 50_000
    found = [piece + b"\0" for piece in back.split(b"\0")[:-1]]
    assert [frame for frame in frames if frame in found] == found, "frames come whole and in their order"
    lost = 1 - len(found) / len(frames)
    assert abs(lost - (1 - (1 - loss) ** 2)) < 0.08, lost


def test_a_serial_line_is_used_as_promised_with_and_without_loss(tmp_path: Path, outcome: Outcome) -> None:
    """The C node, in real time, four lines side by side: 12 s. The benchmark itself sends 256 KB over each."""
    lines = [(baud, loss) for baud in (115_200, 921_600) for loss in (0.0, 0.05)]

    async def work() -> list[float]:
        jobs = [
            wire_lines.goodput(
                programs.node_command(tmp_path / f"{baud}.{loss}", baud / BITS_A_BYTE), baud, loss, 48 * baud // 115_200
            )
            for baud, loss in lines
        ]
        return [found.bytes_per_s for found in await asyncio.gather(*jobs)]

    for (baud, loss), rate in zip(lines, asyncio.run(work()), strict=True):
        assert rate >= (0.6 if loss else 0.8) * baud / BITS_A_BYTE, f"{baud} baud, {loss:.0%} lost: {rate:.0f} B/s"
        result = f"at least {60 if loss else 80} % of the line"
        outcome(
            "goodput on a paced terminal", end="both", tried=1, what=f"speeds, {100 * loss:.0f} % lost", result=result
        )


@pytest.mark.skipif(bool(missing_packages(builds.board_of("m4f"))), reason="no compiler for the M4F on this machine")
def test_the_nodes_end_of_the_wire_is_as_small_as_promised() -> None:
    flash, ram = WIRE.measure(r"^node\.wire")
    for row in (flash, ram):
        assert row.value is not None, row.missing
        assert GOALS[row.name].met(row.value), row
    assert ram.value == sum(ram.config["what"].values())
    assert ram.config["what"]["state"] > 2 * 1024  # two frames


def test_the_deepest_chain_of_calls_is_what_the_compiler_told() -> None:
    calls = Calls()
    for name, count in (("main", 8), ("near", 100), ("far", 16), ("end", 96)):
        calls.add(f'node: {{ title: "{name}" label: "{name}\\nx.c:1:1\\n{count} bytes (static)" }}\n')
    for edge in (("main", "near"), ("main", "far"), ("far", "end"), ("end", "__indirect_call")):
        calls.add('edge: {{ sourcename: "{}" targetname: "{}" label: "x.c:2:2" }}\n'.format(*edge))
    assert calls.deepest("main") == (120, ("main", "far", "end", "__indirect_call"))
    calls.add('edge: { sourcename: "end" targetname: "far" label: "x.c:2:2" }\n')
    with pytest.raises(ConfigError, match="no bound"):
        calls.deepest("main")


@pytest.mark.skipif(wire_mqtt.mosquitto() is None, reason="no mosquitto: apt-get install mosquitto")
def test_a_swarm_of_nodes_gives_its_models_back(tmp_path: Path) -> None:
    found = wire_mqtt.mqtt_round([str(programs.swarm(tmp_path))], 30, 20_000, tmp_path)
    assert found.frames >= 30 * 2 * 5  # 4,088 bytes in each
    assert found.round_s < 5
