"""Emulated boards of a fleet file, made ready: images and keys; and what a run on them sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedtiny import emulation, images
from fedtiny.boards import load_board
from fedtiny.fleet import emulated, file_settings
from fedtiny.fleet.keys import Device
from fedtiny.fleet.roster import Roster, read_roster
from fedtiny.images import firmware_of, kept_node
from fedtiny_export.errors import ConfigError

from ..firmware.boards import need

BOARD = "qemu-netduinoplus2"
FILE = f"""
[nodes]
a.link = "qemu:{BOARD}"
b.link = "qemu:{BOARD}"
c = {{ link = "qemu:{BOARD}", profile = "plain" }}
d.link = "process:fedtiny-node serve d.record"
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.build_node(need(load_board(BOARD)), tmp_path_factory.mktemp("image") / "node.elf")


@pytest.fixture
def roster(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roster:
    """Whose image is built once for all tests here, and copied."""
    monkeypatch.setattr(images, "build_node", lambda board, out: Path(shutil.copy(image, out)))
    (tmp_path / "lab.toml").write_text(FILE)
    return read_roster(tmp_path / "lab.toml")


def made(roster: Roster) -> list[str]:
    told: list[str] = []
    emulated.prepare(roster, roster.nodes, told.append)
    return told


def key_in(record: Path) -> bytes:
    return record.read_bytes()[20:52]


def test_the_first_run_builds_and_gives_keys_and_the_second_finds_all_there(roster: Roster) -> None:
    keys = roster.path.with_name("lab.keys")
    assert made(roster) == [f"building the node of {BOARD}", f"a, b: a new key each, in {keys}"]
    assert made(read_roster(roster.path)) == []
    assert {node: roster.keys[node].state for node in roster.nodes} == {
        "a": "enrolled", "b": "enrolled", "c": "unknown", "d": "unknown",
    }  # fmt: skip
    for node in "ab":
        assert key_in(roster.record(node)) == roster.keys[node].key
        assert roster.record(node).stat().st_mode & 0o077 == 0
    assert roster.keys["a"].key != roster.keys["b"].key
    image = kept_node(load_board(BOARD), roster.boards)
    assert firmware_of(image) != bytes(8)
    assert sorted(path.name for path in roster.boards.iterdir()) == sorted(["a.record", "b.record", image.name])


def test_a_folder_of_boards_that_was_deleted_is_made_anew_with_other_keys(roster: Roster) -> None:
    made(roster)
    before = roster.keys["a"].key
    shutil.rmtree(roster.boards)
    assert len(made(roster)) == 2
    assert roster.keys["a"].key not in (before, None)
    assert key_in(roster.record("a")) == roster.keys["a"].key


def test_a_new_key_takes_what_the_node_kept_in_storage_with_the_old_one(roster: Roster) -> None:
    made(roster)
    record = roster.record("a")
    kept = [record.with_name(f"a.record.{area}") for area in ("model-0", "model-1", "samples")]
    for path in kept:
        path.write_bytes(b"of the old key")
    assert made(roster) == []
    assert all(path.exists() for path in kept), "the key is the old one"
    record.unlink()
    assert len(made(roster)) == 1
    assert not any(path.exists() for path in kept)


def test_a_key_that_was_revoked_stays_revoked(roster: Roster) -> None:
    with roster.keys.alone():
        roster.keys["a"] = Device(state="revoked")
        roster.keys.save()
    assert made(roster)[1:] == [f"b: a new key each, in {roster.keys.path}"]
    assert not roster.record("a").exists()
    with pytest.raises(ConfigError, match="a: its key was revoked"):
        roster.identity("a")


def test_an_image_of_other_sources_is_built_and_the_old_one_goes(roster: Roster) -> None:
    made(roster)
    old = roster.boards / f"{BOARD}-{'0' * 12}.elf"
    kept_node(load_board(BOARD), roster.boards).rename(old)
    assert made(roster) == [f"building the node of {BOARD}"]
    assert not old.exists()


def test_a_compiler_that_is_not_here_is_named_with_what_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "missing_packages", lambda board: ["gcc-arm-none-eabi"])
    (tmp_path / "lab.toml").write_text(FILE)
    with pytest.raises(
        ConfigError, match=r"nodes.a.link: board .* needs gcc-arm-none-eabi\. Install with: sudo apt-get"
    ):
        read_roster(tmp_path / "lab.toml")


SERIAL = '[nodes.a]\nlink = "pty:/dev/pts/99"\n'


def test_the_settings_of_a_fleet_file_are_dotted_keys(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(SERIAL + '[settings]\nseed = 3\ntrain.lr = 0.5\n[settings.model]\nname = "lenet-mini"\n')
    assert file_settings(str(file)) == {"seed": 3, "train.lr": 0.5, "model.name": "lenet-mini"}
    file.write_text(SERIAL)
    assert file_settings(str(file)) == {}


@pytest.mark.parametrize("key", ["fleet.kind", "fleet.file", "fleet.nodes"])
def test_a_fleet_file_does_not_set_another_fleet(tmp_path: Path, key: str) -> None:
    (tmp_path / "lab.toml").write_text(f"{SERIAL}[settings]\n{key} = 3\n")
    with pytest.raises(ConfigError, match=rf"\[settings\] has {key}, and the fleet is this file's. Take it out"):
        file_settings(str(tmp_path / "lab.toml"))
