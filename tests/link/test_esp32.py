"""The ESP32 port on this computer: its own sources and examples over stand-ins (tests/firmware/stand_in/esp_idf), asked
as a host asks a node. No chip and no ESP-IDF was at hand; what a stand-in assumes of them is its own guess.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedtiny.boards import root
from fedtiny.emulation import DETERMINISTIC, capture_sources, core_sources, wire_flags, wire_sources
from fedtiny.link.connection import Connection
from fedtiny.link.links import open_link
from fedtiny.link.messages import Profile
from fedtiny.link.mqtt import Broker
from fedtiny.link.session import Identity
from fedtiny_export.errors import NodeRestarted

from .brokers import HAVE_MOSQUITTO, Mosquitto
from .lesson import KEY, Lesson, assert_same_bits, run, taught

FIRMWARE = root() / "firmware"
PORT = FIRMWARE / "port" / "esp32"
EXAMPLES = PORT / "examples"
STAND_IN = Path(__file__).parents[1] / "firmware" / "stand_in" / "esp_idf"
COMPONENT = [*(PORT / "fedtiny").glob("*.c"), FIRMWARE / "port" / "mqtt" / "topics.c"]
LESSON = Lesson()
HAVE_LIBMOSQUITTO = Path("/usr/include/mosquitto.h").exists()
HEAP = 300_000  # the largest free block of a chip


def flags(*more: str) -> list[str]:
    folders = [STAND_IN, FIRMWARE / "include", FIRMWARE / "src", PORT / "fedtiny" / "include", PORT / "fedtiny"]
    folders += [EXAMPLES / "mqtt" / "main"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    return [*DETERMINISTIC, "-O1", *warnings, *(f"-I{folder}" for folder in folders), *wire_flags(), *more]


def build(out: Path, sources: Sequence[Path], *more: str, libraries: Sequence[str] = ()) -> Path:
    def compiled(source: Path) -> str:
        made = out.parent / f"{source.parents[1].name}-{source.parent.name}-{source.name}.o"
        if not made.exists():
            subprocess.run(["gcc", *flags(*more), "-c", source, "-o", made], check=True)
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    subprocess.run(["gcc", *objects, *libraries, "-lpthread", "-lm", "-o", out], check=True)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("esp32")


@pytest.fixture(scope="module")
def uart_node(folder: Path) -> Path:
    """The example with the UART. The component without MQTT: the linker takes what is used, as ESP-IDF's does."""
    component = [path for path in COMPONENT if path.stem not in ("node_mqtt", "topics")]
    sources = [*core_sources(), *wire_sources(forward_secrecy=True), *component, STAND_IN / "esp_idf.c"]
    return build(folder / "uart", [*sources, EXAMPLES / "uart" / "main" / "main.c"])


def uart_link(program: Path, nvs: Path, heap: int = HEAP) -> str:
    return "process:" + shlex.join([str(program), str(nvs), str(heap)])


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_component_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    for source in [*COMPONENT, EXAMPLES / "uart" / "main" / "main.c"]:
        command = [compiler, *flags("-Wshadow", "-Wstrict-prototypes"), "-c", source, "-o", tmp_path / "made.o"]
        subprocess.run(command, check=True)


@pytest.mark.parametrize("profile", [Profile.PSK, Profile.PSK_FS])
def test_a_node_without_a_key_gets_one_over_its_uart_and_learns_with_the_cores_bits(
    profile: Profile, uart_node: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        log: list[str] = []
        link = uart_link(uart_node, tmp_path / "nvs")
        async with Connection(open_link(link), Identity("kitchen", key=KEY), on_log=log.append) as host:
            await host.enrol(KEY)
        async with Connection(open_link(link), Identity("kitchen", profile, KEY), on_log=log.append) as host:
            assert_same_bits(await taught(host, LESSON), LESSON)
            assert host.hello is not None
            assert (host.hello.device, host.hello.boot_counter, host.hello.reset_reason) == ("kitchen", 2, 1)
            assert host.hello.firmware == bytes(range(1, 9))
            assert host.hello.free_ram == HEAP - 16384
        assert "ESP-ROM:stand-in" in log[0]  # the boot loader's greeting is no frame, and no harm

    run(work())


def test_a_bank_of_internal_ram_takes_the_arena(uart_node: Path, folder: Path, tmp_path: Path) -> None:
    """Without it the same memory is too small."""
    bank = "fedtiny_bank((fedtiny_piece){heap_caps_aligned_alloc(8, 73728, MALLOC_CAP_INTERNAL), 73728});"
    example = (EXAMPLES / "uart" / "main" / "main.c").read_text()
    source = folder / "banked" / "main" / "main.c"
    source.parent.mkdir(parents=True)
    call = "    ESP_ERROR_CHECK(fedtiny_run"
    source.write_text('#include "esp_heap_caps.h"\n' + example.replace(call, f"    {bank}\n{call}"))
    component = [path for path in COMPONENT if path.stem not in ("node_mqtt", "topics")]
    shared = [*core_sources(), *wire_sources(forward_secrecy=True), *component, STAND_IN / "esp_idf.c"]
    banked = build(folder / "with-bank", [*shared, source])
    heap = 16384 + 50_000  # samples, model and what goes over the wire; the arena takes 77,356 bytes

    async def work(program: Path, nvs: Path) -> None:
        async with Connection(open_link(uart_link(program, nvs, heap)), Identity("n1", key=KEY)) as host:
            await host.enrol(KEY)
            assert (await host.ask(LESSON.jobs()[0])).status == 0
            loaded = await host.ask(LESSON.jobs()[1])
            assert (loaded.status == 0) == (program == banked), loaded.problem
            if program == banked:
                assert_same_bits(await taught(host, LESSON), LESSON)

    run(work(uart_node, tmp_path / "without"))
    run(work(banked, tmp_path / "with"))


def test_a_chip_that_is_reset_in_the_middle_comes_back_from_its_nvs(uart_node: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with Connection(open_link(uart_link(uart_node, tmp_path / "nvs")), Identity("n1", key=KEY)) as host:
            await host.enrol(KEY)
            await host.reach()
            asked = asyncio.create_task(host.ask(LESSON.jobs()[0]))
            while host.traffic.down_frames["data.samples"] < 5:
                await asyncio.sleep(0)
            os.kill(host._line._process.pid, 9)  # type: ignore[union-attr]
            with pytest.raises(NodeRestarted, match="n1"):
                await asked
            assert_same_bits(await taught(host, LESSON), LESSON)
            assert host.hello is not None
            assert host.hello.boot_counter == 2

    run(work())


def test_a_partition_keeps_the_model_over_a_reset(uart_node: Path, tmp_path: Path) -> None:
    nvs, sent = tmp_path / "nvs", []
    (tmp_path / "nvs.partition").write_bytes(bytes(1 << 18))

    async def work() -> None:
        for start in range(3):
            async with Connection(open_link(uart_link(uart_node, nvs)), Identity("n1", key=KEY)) as host:
                if start == 0:
                    await host.enrol(KEY)
                assert_same_bits(await taught(host, LESSON), LESSON)
                sent.append(host.traffic.down["data.model"])

    run(work())
    assert sent[0] > len(LESSON.blob)
    assert sent[1:] == [0, 0]


@pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto: apt-get install mosquitto")
@pytest.mark.skipif(not HAVE_LIBMOSQUITTO, reason="no libmosquitto: apt-get install libmosquitto-dev")
def test_a_node_behind_a_broker_learns_from_messages_in_pieces_and_survives_the_brokers_death(
    uart_node: Path, folder: Path, tmp_path: Path
) -> None:
    """Enrolled over the UART by one example, then run by the other on the same NVS."""
    mosquitto = Mosquitto(tmp_path / "broker")
    embedded = tmp_path / "authority.S"
    embedded.write_text(
        '.section .rodata\n.globl _binary_authority_pem_start\n_binary_authority_pem_start:\n.incbin "'
        f'{mosquitto.folder}/authority.crt"\n.byte 0\n.section .note.GNU-stack,"",%progbits\n'
    )
    words = {
        "BROKER_URI": f"mqtts://localhost:{mosquitto.port}",
        "BROKER_PASSWORD": "n0de",
        "BROKER_FLEET": "lab",
        "WIFI_NETWORK": "none",
        "WIFI_PASSWORD": "none",
    }
    component = [path for path in COMPONENT if path.stem != "node_uart"]
    stand_ins = [STAND_IN / name for name in ("esp_idf.c", "esp_mqtt.c", "wifi.c")]
    sources = [*core_sources(), *wire_sources(forward_secrecy=True), *component, *stand_ins, embedded]
    program = build(
        folder / "mqtt",
        [*sources, EXAMPLES / "mqtt" / "main" / "main.c"],
        *(f'-D{name}="{value}"' for name, value in words.items()),
        libraries=["-lmosquitto"],
    )

    async def work() -> None:
        nvs = tmp_path / "nvs"
        async with Connection(open_link(uart_link(uart_node, nvs)), Identity("n1", key=KEY)) as host:
            await host.enrol(KEY)
        mosquitto.start()
        node = await asyncio.create_subprocess_exec(program, nvs, str(HEAP))
        try:
            async with (
                Broker(mosquitto.account()) as broker,
                Connection(broker.link("n1"), Identity("n1", key=KEY)) as behind,
            ):
                assert_same_bits(await taught(behind, LESSON), LESSON)
                assert broker.states["n1"] == "online"
                assert behind.hello is not None
                assert behind.hello.boot_counter == 2
                mosquitto.kill()
                await asyncio.sleep(0.3)
                mosquitto.start()
                assert_same_bits(await taught(behind, LESSON), LESSON)
                assert behind.hello.boot_counter == 2
        finally:
            node.kill()
            await node.wait()
            mosquitto.kill()

    run(work())


def test_the_component_names_the_sources_that_are_built_here() -> None:
    """CMake is not run here: what its lists name is looked at."""
    text = (PORT / "fedtiny" / "CMakeLists.txt").read_text()
    folders = [FIRMWARE / found for found in re.findall(r"\$\{firmware\}/([a-z/]+)/\*\.c", text)]
    left_out = re.search(r'EXCLUDE REGEX "(.*)"', text)
    assert left_out is not None
    globbed = {path for folder in folders for path in folder.glob("*.c")}
    globbed = {path for path in globbed if not re.search(left_out[1].replace("\\\\", "\\"), path.name)}
    assert globbed == {*core_sources(), *wire_sources(forward_secrecy=True), *capture_sources()}

    text = text.replace("${CMAKE_CURRENT_LIST_DIR}/", "").replace("${firmware}", "../../..")
    words = [word for word in text.replace("(", " ").replace(")", " ").split() if "/" in word and "*" not in word]
    missing = [word for word in words if not (PORT / "fedtiny" / word).exists()]
    assert (len(words) > 3, missing) == (True, [])
    assert [path.name for path in (PORT / "fedtiny").glob("*.c") if path.name not in text] == []
