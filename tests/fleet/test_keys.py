"""Fleet files and key files: what is wrong is named with what to do."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from fedtiny.fleet.keys import Device, KeyStore
from fedtiny.fleet.manage import record
from fedtiny.fleet.roster import Roster, read_roster
from fedtiny_export.errors import ConfigError, FleetError

BROKER = '[broker]\nhost = "localhost"\nuser = "host"\n'
NODE = '[nodes.n1]\nlink = "pty:/dev/pts/9"\n'
KEY = bytes(range(32))


def roster(folder: Path, text: str) -> Roster:
    (folder / "lab.toml").write_text(text)
    return read_roster(folder / "lab.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"nodes is missing: tables \[nodes.NAME\]"),
        ("[nodes]\n", r"nodes = \{\} is not allowed"),
        (NODE + 'lnik = "x"\n', r"unknown key nodes.n1.lnik. Did you mean nodes.n1.link\? Keys there: link, profile"),
        ('kyes = "a"\n' + NODE, r"unknown key kyes. Did you mean keys\?"),
        ("[nodes.n1]\n", r"nodes.n1.link is missing"),
        (NODE + 'profile = "psk_fs"\n', r"nodes.n1.profile = 'psk_fs' is not allowed: input should be 'psk', 'psk-fs'"),
        ('[nodes.n1]\nlink = "usb:1"\n', r"nodes.n1.link: 'usb:1' is no link. Links are: serial:"),
        ('[nodes.n1]\nlink = "mqtt:n1"\n', r"mqtt: links and no broker. Add \[broker\] with host and user"),
        ('[nodes.n1]\nlink = "mqtt:n2"\n' + BROKER, r"a device's topics have its id. Write mqtt:n1"),
        ('[nodes.n1]\nlink = "qemu:"\n', "nodes.n1.link: write qemu:BOARD"),
        ('[nodes.n1]\nlink = "qemu:qemu-rv33"\n', r"nodes.n1.link: there is no board .* Did you mean qemu-rv32\?"),
        ('[nodes.n1]\nlink = "qemu:netduinoplus2"\n', "nodes.n1.link: board netduinoplus2 has no emulator"),
        ('[nodes.n1]\nlink = "qemu:qemu-rv32:no.elf"\n', r"nodes.n1.link: there is no image .*/no.elf"),
        (f'[nodes."{"n" * 32}"]\nlink = "pty:/x"\n', "no device id: 1 to 31 bytes"),
        ('[nodes."a/b"]\nlink = "pty:/x"\n', "no device id"),
        ("patience_s = 0\n" + NODE, r"patience_s = 0 is not allowed: input should be greater than 0"),
        ("nodes = [", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_fleet_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        roster(tmp_path, text)


def test_a_fleet_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the fleet file .*no.toml: No such file"):
        read_roster(tmp_path / "no.toml")


def test_the_brokers_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    monkeypatch.setenv("LAB_PASSWORD", "fr0m env")
    ca = 'ca_file = "ca.crt"\n'
    from_file = roster(tmp_path, NODE + BROKER + 'password_file = "pw"\n' + ca).account()
    assert (from_file.password, from_file.ca_file, from_file.fleet) == ("s3cret", str(tmp_path / "ca.crt"), "lab")
    assert "s3cret" not in repr(from_file)
    assert roster(tmp_path, NODE + BROKER + 'password_env = "LAB_PASSWORD"\n').account().password == "fr0m env"
    for more, message in (
        ('password_env = "NOT_SET"\n', "the environment has no NOT_SET"),
        ('password_file = "none"\n', "none: the password cannot be read"),
        ('password_file = "pw"\npassword_env = "LAB_PASSWORD"\n', "Keep one of them"),
    ):
        with pytest.raises(ConfigError, match=message):
            roster(tmp_path, NODE + BROKER + more).account()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device(), "n1: it has no key on file. Give it one: fedtiny fleet enrol .*lab.toml n1"),
        (Device(key=KEY, state="pending"), "n1: its enrolment was broken off. Finish it: fedtiny fleet enrol"),
        (Device(state="revoked"), "n1: its key was revoked. If it may join again, enrol it anew"),
    ],
)
def test_a_node_without_a_key_is_named_with_the_command_that_gives_it_one(
    tmp_path: Path, device: Device, message: str
) -> None:
    lab = roster(tmp_path, NODE)
    lab.keys["n1"] = device
    with pytest.raises(ConfigError, match=message):
        lab.identity("n1")


def test_keys_survive_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keys = KeyStore(tmp_path / "deep" / "lab.keys")
        keys["n1"] = Device(key=KEY, state="enrolled", boot_counter=7, board="b", last_seen=3.5)
        keys.save()
    finally:
        os.umask(old)
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert KeyStore(keys.path)["n1"] == keys["n1"]
    assert KEY.hex() not in repr(keys["n1"])
    assert [path.name for path in keys.path.parent.iterdir()] == ["lab.keys"]


def test_keys_that_others_may_read_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "lab.keys"
    path.write_text("{}")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"others may read it. Close it: chmod 600 {path}"):
        KeyStore(path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 1, "devices": {"n1": {}}}', '{"version": 1, "devices": {"n1": {"key": "xy"}}}'],
)
def test_a_damaged_key_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab.keys"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="is damaged: it holds no keys"):
        KeyStore(path)


def test_a_key_file_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lab.keys"
    path.write_text(json.dumps({"version": 2, "devices": {}}))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="version 2, this fedtiny reads 1"):
        KeyStore(path)


def test_two_programs_do_not_talk_to_one_fleet_at_once(tmp_path: Path) -> None:
    one, other = KeyStore(tmp_path / "lab.keys"), KeyStore(tmp_path / "lab.keys")
    with one.alone(), pytest.raises(FleetError, match="another fedtiny is talking to the devices"), other.alone():
        pass
    with other.alone():
        pass


def test_a_record_for_flashing_is_a_slot_as_the_firmware_reads_it() -> None:
    """firmware/port/record.h and the record of fedtiny_wire.h, by their offsets."""
    import zlib

    slot = record("n1", KEY)
    assert len(slot) == 128
    assert (slot[:4], slot[4:8], slot[8:12]) == (b"FTRC", b"\1\0\0\0", b"\x48\0\0\0")
    body = slot[12:84]
    assert body[:8] == bytes((1, 1, 2, 0, 0, 0, 0, 0))
    assert (body[8:40], body[40:72]) == (KEY, b"n1".ljust(32, b"\0"))
    assert slot[84:124] == bytes(40)
    assert slot[124:] == zlib.crc32(slot[:124]).to_bytes(4, "little")
