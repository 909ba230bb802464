"""A node with a valid key that sends what it likes: a hundred of each kind, every one refused by name."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import numpy as np
import pytest

from fedtiny.federation.aggregate import reply_problem
from fedtiny.federation.tasks import Score, Task, Train
from fedtiny.fleet.encoding import BadAnswer, reply_of
from fedtiny.link.endpoint import Answer, Endpoint, Job
from fedtiny.link.frames import FrameType, stuff
from fedtiny.link.messages import Hello, ObjectKind, ObjectRef, Profile, Reply, TaskKind, decode, encode
from fedtiny.link.objects import Payload
from fedtiny.link.session import Handshake, Identity, hello_mac
from fedtiny_export.errors import LinkError, MessageError, NodeRefused
from fedtiny_export.graph import Bits
from fedtiny_export.values import stat_count, value_count

from ..conftest import Outcome
from ..host import runs
from ..link.node import Node
from ..link.wires import KEY, ask, wire

EACH = 100
HELLO = Hello(1, bytes(16), "n1", Profile.PSK, 0, 0, 1024, 1 << 20, 1, 1, "test", bytes(8), 0, 0, 0)
GRAPH = runs.model().graph
LAYER, K = 6, 40
MASKS: dict[int, Bits] = {
    number: np.random.default_rng(number).random(GRAPH.params[index].shape) < 0.1
    for number, index in enumerate(GRAPH.layers)
}
BY_NAME = {GRAPH.layer_names[number]: mask for number, mask in MASKS.items()}
TRAIN = Train(epochs=1, lr=0.1, momentum=0.0, weight_decay=0.0, seed=1)
SCORE = Score(k={LAYER: K}, batches=1, seed=1)
PRUNED = np.flatnonzero(~MASKS[LAYER].ravel())


def vector(numbers: np.ndarray, encoding: int = 0) -> bytes:
    return bytes((encoding, 0, 0, 0)) + numbers.astype("<f4").tobytes()


def update(values: bytes, moments: bytes | None = None) -> Answer:
    moments = vector(np.ones(stat_count(GRAPH))) if moments is None else moments
    objects = (Payload(ObjectKind.VALUES, values), Payload(ObjectKind.MOMENTS, moments))
    return Answer(0, (20, 20, 10, 5.0), objects, "")


def topk(indices: np.ndarray, gradients: np.ndarray, *, count: int | None = None, layer: int = LAYER) -> Answer:
    entries = np.zeros(len(indices), [("index", "<u4"), ("gradient", "<f4")])
    entries["index"], entries["gradient"] = indices, gradients
    head = struct.pack("<HHI", layer, 0, len(indices) if count is None else count)
    return Answer(0, (20,), (Payload(ObjectKind.TOPK, head + entries.tobytes()),), "")


def values(rng: random.Random) -> np.ndarray:
    return np.random.default_rng(rng.randrange(1 << 30)).normal(size=value_count(GRAPH, BY_NAME))


def indices(rng: random.Random, count: int = K) -> np.ndarray:
    return np.sort(np.random.default_rng(rng.randrange(1 << 30)).choice(PRUNED, count, replace=False))


def with_one(numbers: np.ndarray, rng: random.Random, one: float) -> np.ndarray:
    numbers[rng.randrange(len(numbers))] = one
    return numbers


def nan(rng: random.Random) -> tuple[Task, Answer]:
    return TRAIN, update(vector(with_one(values(rng), rng, np.nan)))


def infinity(rng: random.Random) -> tuple[Task, Answer]:
    return TRAIN, update(vector(with_one(values(rng), rng, rng.choice([np.inf, -np.inf]))))


def nan_in_moments(rng: random.Random) -> tuple[Task, Answer]:
    return TRAIN, update(vector(values(rng)), vector(with_one(np.ones(stat_count(GRAPH)), rng, np.nan)))


def wrong_shape(rng: random.Random) -> tuple[Task, Answer]:
    more = rng.choice([-1, 1]) * rng.randrange(1, 200)
    return TRAIN, update(vector(np.resize(values(rng), value_count(GRAPH, BY_NAME) + more)))


def wrong_type(rng: random.Random) -> tuple[Task, Answer]:
    """An encoding that there is not, halves called floats, or doubles."""
    numbers = values(rng)
    half, double = bytes(4) + numbers.astype("<f2").tobytes(), bytes(4) + numbers.astype("<f8").tobytes()
    return TRAIN, update(rng.choice([vector(numbers, rng.randrange(2, 256)), half, double]))


def more_than_asked(rng: random.Random) -> tuple[Task, Answer]:
    """More gradients than were asked for, or a count that the bytes do not hold, up to 32 bits of it."""
    many = K + 1 + rng.randrange(100)
    honest = topk(indices(rng, many), np.ones(many))
    bomb = topk(indices(rng), np.ones(K), count=rng.choice([K + 1, 1 << 20, (1 << 32) - 1 - rng.randrange(1000)]))
    return SCORE, rng.choice([honest, bomb])


def indices_that_fall(rng: random.Random) -> tuple[Task, Answer]:
    found = indices(rng)
    at = rng.randrange(1, K)
    found[at] = found[at - 1] - rng.choice([0, 0, min(found[at - 1], 5)])
    return SCORE, topk(found, np.ones(K))


def indices_outside(rng: random.Random) -> tuple[Task, Answer]:
    found = indices(rng)
    found[-1] = rng.choice([MASKS[LAYER].size + rng.randrange(1000), (1 << 32) - 1])
    return SCORE, topk(found, np.ones(K))


def gradients_of_live_weights(rng: random.Random) -> tuple[Task, Answer]:
    live = np.flatnonzero(MASKS[LAYER].ravel())
    return SCORE, topk(np.sort(np.append(indices(rng, K - 1), rng.choice(live.tolist()))), np.ones(K))


def another_layer(rng: random.Random) -> tuple[Task, Answer]:
    return SCORE, topk(indices(rng), np.ones(K), layer=rng.choice([0, 2, 3, 65535]))


def nan_in_gradients(rng: random.Random) -> tuple[Task, Answer]:
    return SCORE, topk(indices(rng), with_one(np.ones(K), rng, np.nan))


KINDS: list[Callable[[random.Random], tuple[Task, Answer]]] = [
    nan, infinity, nan_in_moments, wrong_shape, wrong_type, more_than_asked, indices_that_fall, indices_outside,
    gradients_of_live_weights, another_layer, nan_in_gradients,
]  # fmt: skip


def verdict(task: Task, answer: Answer) -> str | None:
    """Why the answer does not count."""
    try:
        reply = reply_of(task, [answer], HELLO)
    except BadAnswer as problem:
        return str(problem)
    return reply_problem(task, reply, GRAPH, MASKS)


def test_honest_answers_count() -> None:
    rng = random.Random(0)
    assert verdict(TRAIN, update(vector(values(rng)))) is None
    assert verdict(SCORE, topk(indices(rng), np.ones(K))) is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_hundred_hostile_answers_of_a_kind_are_refused_by_name(
    kind: Callable[[random.Random], tuple[Task, Answer]], outcome: Outcome
) -> None:
    rng = random.Random(1)
    for _ in range(EACH):
        assert verdict(*kind(rng))
    tell(outcome)


def tell(outcome: Outcome) -> None:
    kinds = len(KINDS) + 4
    outcome(
        "hostile updates", end="host", tried=EACH, what=f"updates, {EACH} each of {kinds} kinds", result="0 counted"
    )


def test_a_hundred_lengths_of_up_to_4_gb_are_refused_before_they_take_memory(outcome: Outcome) -> None:
    rng = random.Random(2)
    for _ in range(EACH):
        length = rng.randrange((64 << 20) + 1, 1 << 32)

        class Huge(Node):
            def _send(self, kind: FrameType, payload: bytes, length: int = length) -> None:
                if kind is FrameType.REPLY:
                    r = decode(Reply, payload)
                    refs = (ObjectRef(ObjectKind.VALUES, bytes(16), length),)
                    payload = encode(Reply(r.number, r.run, r.round, r.attempt, 0, None, refs))
                super()._send(kind, payload)

        with pytest.raises(LinkError, match=f"n1: its reply has {length} bytes, more than"):
            ask(wire(Huge()))
    tell(outcome)


def test_a_hundred_replies_to_other_rounds_do_not_count(outcome: Outcome) -> None:
    rng = random.Random(3)

    class Late(Node):
        def _send(self, kind: FrameType, payload: bytes) -> None:
            if kind is FrameType.REPLY:
                for _ in range(EACH):
                    r = decode(Reply, payload)
                    which = rng.randrange(3)
                    run = rng.randbytes(8) if which == 0 else r.run
                    number = r.round + (rng.randrange(1, 100) if which == 1 else 0)
                    attempt = (r.attempt + rng.randrange(1, 255)) % 256 if which == 2 else r.attempt
                    super()._send(kind, encode(Reply(r.number, run, number, attempt, 0, (666,))))
            super()._send(kind, payload)

    line = wire(Late())
    assert ask(line, Job(TaskKind.TRAIN, bytes(range(8)), 7, 0, (1,))).results == (1,)
    assert isinstance(line.host, Endpoint)
    assert line.host.traffic.dropped["binding"] == EACH
    tell(outcome)


def test_a_hundred_frames_played_again_do_not_count(outcome: Outcome) -> None:
    taped: list[bytes] = []

    class Taped(Node):
        def _put(self, frame: bytes) -> None:
            taped.append(frame)
            super()._put(frame)

    line = wire(Taped())
    for _ in range(EACH):
        ask(line)
    host = line.host
    assert isinstance(host, Endpoint)
    replies = [frame for frame in taped if frame[1] == FrameType.REPLY]
    before = host.traffic.up_frames.total()
    for frame in replies:
        host.feed(b"\0" + stuff(frame), line.now)
    assert len(replies) == EACH == host.traffic.dropped["replay"]
    assert host.traffic.up_frames.total() == before
    tell(outcome)


def test_a_hundred_devices_under_another_ones_name_get_no_session(outcome: Outcome) -> None:
    """With their own keys, and under their own names where this one was called."""
    rng = random.Random(4)
    for number in range(EACH):
        shake = Handshake(Identity("n1", Profile.PSK, KEY), max_payload=1024, random=rng.randbytes)
        name, key = ("n1", rng.randbytes(32)) if number % 2 else (f"n{2 + number}", KEY)
        hello = encode(Hello(1, rng.randbytes(16), name, Profile.PSK, 0, 0, 1024, 1, 1, 1, "", bytes(8), 0, 0, 0))
        with pytest.raises((NodeRefused, MessageError), match=name):
            shake.on_hello(hello + hello_mac(key, shake.invite[8:-4], hello))
    tell(outcome)
