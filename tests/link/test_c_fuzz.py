"""Every decoder of the C node under fuzzing with sanitizers, each by itself, then a whole node; see scripts/fuzz.sh."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..conftest import Outcome
from .c_build import SANITIZERS, build, needs_gcc
from .fuzz.seeds import DECODERS, WHOLE, write_seeds
from .fuzz.sources import sources

OWN = sorted((Path(__file__).parent / "fuzz").glob("*.c"))
EACH, OF_A_NODE = 100_000, 30_000
pytestmark = needs_gcc


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Each source compiled for fuzzing."""
    folder = tmp_path_factory.mktemp("objects")
    files = [*OWN, *sources()]
    made = {path: folder / f"{number}-{path.stem}.o" for number, path in enumerate(files)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: compiled(path, made[path]), files))
    return made


def compiled(source: Path, out: Path, *flags: str) -> Path:
    return build(out, [source], "-O1", "-c", *flags, *SANITIZERS)


@pytest.fixture(scope="module")
def driver(objects: dict[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver") / "driver", list(objects.values()), *SANITIZERS)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    write_seeds(folder)
    return folder


def fuzz(driver: Path, seeds: Path, target: str, count: int) -> subprocess.CompletedProcess[str]:
    options = {"ASAN_OPTIONS": "quarantine_size_mb=8:handle_abort=1", "FUZZ_MODEL": str(seeds / "model.ftm")}
    command = [driver, str(count), "1", *sorted((seeds / target).glob("*.bin"))]
    environment = {**os.environ, **options, "FUZZ_TARGET": target}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", [*DECODERS, *WHOLE])
def test_bad_inputs_break_no_decoder_and_no_node(driver: Path, seeds: Path, target: str, outcome: Outcome) -> None:
    count = OF_A_NODE if target in WHOLE else EACH
    done = fuzz(driver, seeds, target, count)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{count} inputs\n"
    outcome("fuzzed decoders", end="node", tried=count, what="inputs under ASan and UBSan", result="0 reports")


@pytest.mark.parametrize(
    ("target", "file", "check", "without"),
    [
        ("session", "wire/service.c", "if (ref->length <= room && ft_align8(ref->length) <= room)", "if (1)"),
        ("message", "wire/message.c", "|| in->end - in->at < FT_WIRE_HASH", ""),
        ("numbers", "wire/cbor.c", "info > EIGHT_BYTES || in->end - in->at < 1 << (info - ONE_BYTE)", "info > 27"),
        ("cobs", "wire/cobs.c", "|| code - 1u > count - i", ""),
        ("frame", "wire/frame.c", "|| *seen & bit", ""),
        (
            "handshake",
            "wire/handshake.c",
            "&& !is_genuine(&b, wire, payload, body)",
            "&& is_genuine(&b, wire, payload, body)",
        ),
        ("transfer", "wire/transfer.c", "|| block >= block_count(d)", ""),
        ("mask", "mask.c", "if (*at + k >= end || *gap", "if (*gap"),
        ("samples", "wire/samples.c", "if (colours > 256 || ft_load_u16(bytes + HEAD + 2) || length < head)", "if (0)"),
        ("values", "wire/work.c", "|| ft_load_u32(bytes + 4) > length - MASK_HEAD", ""),
        ("record", "wire/record.c", "&& r[ID + r[ID_BYTES]] == 0", ""),
        (
            "saver",
            "wire/saver.c",
            "if (bytes > most || length > most - bytes || ft_align8(length) > most - bytes)",
            "if (!most)",
        ),
        ("topic", "port/mqtt/topics.c", "if (at + length >= TOPIC_BYTES)", "if (0)"),
    ],
)
def test_the_fuzzer_finds_a_check_that_is_taken_away(
    objects: dict[Path, Path], seeds: Path, target: str, file: str, check: str, without: str, tmp_path: Path
) -> None:
    original = next(path for path in sources() if path.as_posix().endswith(f"/{file}"))
    text = original.read_text("utf-8")
    assert check in text
    weaker = tmp_path / original.name
    weaker.write_text(text.replace(check, without))
    includes = [f"-I{folder}" for folder in (original.parent, original.parent.parent / "op", original.parent.parent)]
    changed = {**objects, original: compiled(weaker, tmp_path / "weaker.o", *includes)}
    weak = build(tmp_path / "driver", list(changed.values()), *SANITIZERS)
    assert fuzz(weak, seeds, target, 400_000).returncode != 0
