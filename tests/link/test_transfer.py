"""Objects over bad lines: the same bytes come out, at a rate that is worth having."""

from __future__ import annotations

import pytest

from fedtiny.link.endpoint import Endpoint, Job
from fedtiny.link.memory import Faults
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Payload

from ..conftest import Outcome
from .wires import AnyNode, ask, make_node, model, wire

pytestmark = pytest.mark.usefixtures("each_node")

KIB = 1024
DOWN_AND_UP = 2  # the node of these tests sends each object back


def both_ways(payload: Payload) -> Job:
    return Job(TaskKind.INFER, objects=(payload,))


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(loss=0.01),
        Faults(loss=0.05, duplicate=0.05, reorder=0.05),
        Faults(loss=0.2, duplicate=0.05, reorder=0.05),
        Faults(loss=0.5, duplicate=0.05, reorder=0.05),
        Faults(flip=1e-5),
        Faults(flip=1e-4),
        Faults(flip=1e-3),
        Faults(every_nth_lost=6),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_an_object_comes_back_unharmed(faults: Faults, seed: int, outcome: Outcome) -> None:
    payload = model(256 * KIB, seed)
    answer = ask(wire(faults=faults, seed=seed, patience_s=120.0), both_ways(payload))
    assert answer.objects == (payload,)
    if faults.every_nth_lost:
        outcome("every sixth frame lost", end="both", tried=1, what="objects of 256 KB each way", result="same hash")


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_an_object_of_equal_bytes_comes_back_unharmed(fill: bytes) -> None:
    payload = Payload(ObjectKind.VALUES, fill * 100_000)
    assert ask(wire(), both_ways(payload)).objects == (payload,)


@pytest.mark.parametrize("count", [0, 1, 1015, 1016, 1017, 64 * 1016])
def test_objects_of_odd_sizes_come_back(count: int) -> None:
    payload = model(count)
    assert ask(wire(), both_ways(payload)).objects == (payload,)


@pytest.mark.parametrize("baud", [115_200, 921_600])
@pytest.mark.parametrize(("loss", "share"), [(0.0, 0.8), (0.05, 0.6)])
def test_goodput_is_a_good_share_of_the_line(baud: int, loss: float, share: float) -> None:
    """Over a few seeds: where one lost frame waits for a timeout is luck."""
    rate, seconds, seeds = baud / 10, 0.0, 5
    for seed in range(seeds):
        line = wire(faults=Faults(loss=loss, bytes_per_s=rate), seed=seed)
        assert line.run(lambda line=line: isinstance(line.host, Endpoint) and line.host.connected, 30)  # type: ignore[misc]
        start = line.now
        ask(line, both_ways(model()))
        seconds += line.now - start
    assert seeds * DOWN_AND_UP * 256 * KIB / seconds >= share * rate


def test_nothing_is_sent_twice_over_a_good_line() -> None:
    line = wire()
    payload = model(256 * KIB)
    ask(line, both_ways(payload))
    host = line.host
    assert isinstance(host, Endpoint)
    assert host.traffic.resent_blocks == host.traffic.asked_again == host.traffic.repeated_blocks == 0
    assert host.traffic.down_frames["data.model"] == host.traffic.up_frames["data.model"] == -(-256 * KIB // 1016)


def test_traffic_counts_every_byte_of_the_line() -> None:
    line = wire(faults=Faults(loss=0.1), seed=4)
    ask(line, both_ways(model(20_000)))
    host = line.host
    assert isinstance(host, Endpoint)
    assert host.traffic.down_bytes == line.down.sent_bytes
    lossless = wire()
    ask(lossless, both_ways(model(20_000)))
    host = lossless.host
    assert isinstance(host, Endpoint)
    assert lossless.run(lambda: lossless.up.next_arrival() is None, 10)
    assert host.traffic.up_bytes == lossless.up.sent_bytes
    zeros = lossless.up.sent_bytes - host.traffic.up.total()
    assert 1 <= zeros <= host.traffic.up_frames.total()  # one before each frame that comes after a pause


@pytest.mark.parametrize("towards", ["node", "host"])
def test_a_cut_at_any_block_costs_at_most_a_window(towards: str, outcome: Outcome) -> None:
    """64 blocks, cut once after each of them; the transfer goes on over a new session."""
    payload = model(64 * 1016)
    for cut in range(1, 65):
        window = 16
        received = None if towards == "node" else 0
        job = Job(TaskKind.DESCRIBE, objects=(payload,))
        node = make_node(window=window, work=lambda task, objects: (0, (), objects if towards == "host" else ()))
        line = wire(node)
        host = line.host
        assert isinstance(host, Endpoint)
        ticket = host.ask(job, line.now)

        def blocks(host: Endpoint = host, node: AnyNode = node, received: int | None = received) -> int:
            return node.received_blocks if received is None else host.traffic.up_frames["data.model"]

        assert line.run(lambda at=cut, count=blocks: count() >= at, 100)  # type: ignore[misc]
        line.cut()
        host.link_down("cut")
        line.now += 3.0
        host.link_up(line.now)
        assert line.run(lambda ticket=ticket: ticket.done, 100)  # type: ignore[misc]
        assert ticket.answer is not None
        again = host.traffic.resent_blocks if towards == "node" else host.traffic.repeated_blocks
        assert again <= (window if towards == "node" else host.carrier.window)
        assert node.done == [ticket.number]
    outcome("link cut at every block", end="both", tried=64, what="cuts", result="at most a window sent again")
