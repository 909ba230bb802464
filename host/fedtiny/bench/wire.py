"""The rows of `bench wire`: their names, which are stable, what each should reach, and how each is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from fedtiny.bench import cases, programs, wire_host, wire_lines, wire_mqtt, wire_size
from fedtiny.bench.suite import Config, Goal, Peer, Say, Suite, Take
from fedtiny.bench.wire_lines import Goodput, WireBytes
from fedtiny.link.links import BITS_A_BYTE
from fedtiny.link.messages import Profile
from fedtiny_export.graph import Bits
from fedtiny_export.masks import encode_rice, encode_smallest, entropy_bytes
from fedtiny_export.model import Model

BAUDS = (115_200, 921_600)
LOSS = 0.05
NODES, MODEL_BYTES = 1000, 64 * 1024
NET = "resnet-mini"  # of the preset fashion-mini
DENSITY = 0.05
UPDATE_VALUES = 4672
"""What that net sends after training: live weights, biases, the parameters of its norms."""
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
ELEMENTS = 36_864  # of the largest layer of that net

GOALS = {
    "serial.115200.goodput": Goal(9.2, at_least=True),
    "serial.921600.goodput": Goal(74, at_least=True),
    "serial.115200.loss5.goodput": Goal(round(0.6 * 11.52, 2), at_least=True),
    "serial.921600.loss5.goodput": Goal(round(0.6 * 92.16, 2), at_least=True),
    "update.d0.05.f16.bytes_over_values": Goal(1.05 + 64 / (2 * UPDATE_VALUES)),
    "mask.bytes_over_entropy": Goal(1.25),
    "node.wire.flash_bytes": Goal(12 * 1024),
    "node.wire.ram_bytes": Goal(4 * 1024),
    "mqtt.1000.round_s": Goal(5),
}

PEERS = (Peer("serial.115200.goodput", "MCUmgr SMP at best", 4.0, "kB/s", "published: base64, stop and wait"),)


class WireBench:
    """Measures what rows ask for, each thing once."""

    def __init__(self, folder: Path, say: Say, wanted: Sequence[str]) -> None:
        self.folder, self._say, self._wanted = folder, say, wanted
        self._goodputs: dict[tuple[int, float], Goodput] = {}
        self._bytes: WireBytes | None = None
        self._round: wire_mqtt.Round | None = None

    def goodput(self, baud: int, loss: float) -> Goodput:
        """Lines of one speed are measured side by side: each waits for its own pace nearly all of the time."""
        if (baud, loss) not in self._goodputs:
            todo = [(baud, loss) for loss in (0.0, LOSS) if _goodput_name(baud, loss) in self._wanted]
            self._say(f"{len(todo)} lines of {baud:,} baud, {wire_lines.OBJECT_KIB} KB each way")
            self._goodputs |= dict(zip(todo, asyncio.run(self._all(todo)), strict=True))
        return self._goodputs[baud, loss]

    async def _all(self, lines: Sequence[tuple[int, float]]) -> list[Goodput]:
        def command(baud: int, loss: float) -> list[str]:
            return programs.node_command(self.folder / _goodput_name(baud, loss), baud / BITS_A_BYTE)

        return await asyncio.gather(*(wire_lines.goodput(command(*line), *line) for line in lines))

    def bytes(self) -> WireBytes:
        if self._bytes is None:
            self._say("an update and a mask on the wire")
            model, masks = net()
            self._bytes = asyncio.run(wire_lines.wire_bytes(programs.node_command(self.folder / "bytes"), model, masks))
        return self._bytes

    def round(self) -> wire_mqtt.Round:
        if self._round is None:
            self._say(f"{NODES} nodes behind a broker")
            swarm = programs.swarm(self.folder)
            self._round = wire_mqtt.mqtt_round([str(swarm)], NODES, MODEL_BYTES, self.folder)
        return self._round


@dataclass(frozen=True)
class Entry:
    unit: str
    take: Callable[[WireBench], tuple[float, Config]]


@cache
def net() -> tuple[Model, dict[str, Bits]]:
    """The preset's net with every layer but the first at its density."""
    from fedtiny import models
    from fedtiny_export.torch_in import from_torch

    model = from_torch(models.build(NET, input_shape=(1, 28, 28), classes=10), (1, 28, 28))
    return model, cases.masks(model, DENSITY)


def _goodput_name(baud: int, loss: float) -> str:
    return f"serial.{baud}{'.loss5' if loss else ''}.goodput"


def _goodput(baud: int, loss: float) -> Entry:
    def take(bench: WireBench) -> tuple[float, Config]:
        found = bench.goodput(baud, loss)
        share = found.bytes_per_s / (baud / BITS_A_BYTE)
        config = {"baud": baud, "loss": loss, "profile": "psk", "link": "paced pty", **asdict(found)}
        return found.bytes_per_s / 1000, config | {"share_of_the_line": round(share, 3)}

    return Entry("kB/s", take)


def _update() -> Entry:
    def take(bench: WireBench) -> tuple[float, Config]:
        found = bench.bytes().update
        config = {"model": NET, "density": DENSITY, "encoding": "f16", "profile": "psk", **asdict(found)}
        # With all that goes down it is 1.07: beside its block of 1 KB a frame takes 36 bytes (header, tag, number,
        # COBS), and larger ones do not fit the 4 KB of node.wire.ram_bytes.
        what = "frames of REPLY and of its values over 2 bytes a value; moments and what goes down stand beside"
        return (found.value_bytes + found.reply_bytes) / (2 * found.values), config | {"what": what}

    return Entry("ratio", take)


def _mask() -> Entry:
    def take(bench: WireBench) -> tuple[float, Config]:
        found, (_, masks) = bench.bytes(), net()
        least = sum(entropy_bytes(mask.size, int(mask.sum())) for mask in masks.values())
        config: Config = {"model": NET, "density": DENSITY, "layers": len(masks), "entropy_bytes": round(least)}
        sizes = {"wire_bytes": found.mask_frames, "mask_bytes": found.mask_bytes}
        return found.mask_frames / least, config | sizes | {"what": "frames of the object that brings all masks"}

    return Entry("ratio", take)


def _encodings(density: float) -> Entry:
    """One layer's mask, drawn evenly, in each encoding."""

    def take(_: WireBench) -> tuple[float, Config]:
        live = round(density * ELEMENTS)
        mask = np.zeros(ELEMENTS, np.bool_)
        mask[np.random.default_rng(0).permutation(ELEMENTS)[:live]] = True
        least, smallest = entropy_bytes(ELEMENTS, live), encode_smallest(mask)
        deltas = int(((np.diff(np.flatnonzero(mask), prepend=-1) - 1) // 255).sum()) + live
        sizes = {"bitmap": -(-ELEMENTS // 8), "byte_deltas": deltas, "golomb_rice": len(encode_rice(mask).data)}
        config = {"elements": ELEMENTS, "density": density, "entropy_bytes": round(least), "bytes": sizes}
        return len(smallest.data) / least, config | {"smallest": smallest.encoding.name.lower()}

    return Entry("ratio", take)


def _mqtt(unit: str, figure: Callable[[wire_mqtt.Round], float]) -> Entry:
    def take(bench: WireBench) -> tuple[float, Config]:
        found = bench.round()
        config = {"nodes": NODES, "model_bytes": MODEL_BYTES, "profile": "psk", "broker": "mosquitto, this computer"}
        what = "each node gets a model of these bytes and sends as many back; the firmware's wire in one process"
        return figure(found), config | {"what": what} | asdict(found)

    return Entry(unit, take)


def _size(measure: Callable[[Path], tuple[int, Config]]) -> Entry:
    return Entry("bytes", lambda bench: measure(bench.folder))


def _host(measure: Callable[[], float], what: str) -> Entry:
    def take(bench: WireBench) -> tuple[float, Config]:
        return 1e6 * measure(), {"what": what, "payload": wire_host.PAYLOAD}

    return Entry("us", take)


def entries() -> dict[str, Entry]:
    """Every row by its name, in the order of the table."""
    found = {_goodput_name(baud, loss): _goodput(baud, loss) for loss in (0.0, LOSS) for baud in BAUDS}
    found["update.d0.05.f16.bytes_over_values"] = _update()
    found["mask.bytes_over_entropy"] = _mask()
    found["node.wire.flash_bytes"] = _size(wire_size.flash_bytes)
    found["node.wire.ram_bytes"] = _size(wire_size.ram_bytes)
    found["mqtt.1000.round_s"] = _mqtt("s", lambda r: r.round_s)
    found["mqtt.1000.host_s"] = _mqtt("s", lambda r: r.host_s)
    found["mqtt.1000.handshakes_s"] = _mqtt("s", lambda r: r.handshakes_s)
    for density in DENSITIES:
        found[f"mask.d{density:g}.bytes_over_entropy"] = _encodings(density)
    found["host.frame.seal_us"] = _host(wire_host.seal_s, "encrypted and stuffed")
    found["host.frame.unseal_us"] = _host(wire_host.unseal_s, "found in a stream, checked, decrypted")
    for profile in (Profile.PSK, Profile.PSK_FS):
        measure = partial(wire_host.handshake_s, profile)
        found[f"host.handshake.{profile.word}_us"] = _host(measure, "the host's part of a handshake")
    return found


def _prepare(names: Sequence[str], folder: Path, say: Say) -> Iterator[tuple[str, str, Take]]:
    every, bench = entries(), WireBench(folder, say, names)
    for name in names:
        yield name, every[name].unit, partial(every[name].take, bench)


WIRE = Suite(names=entries, prepare=_prepare, goals=GOALS, peers=PEERS, example="serial.921600")
