"""The commands on a fleet, as a user types them: give keys, look, run, take a key away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtiny.fleet.manage import record
from fedtiny.link import endpoint

from ..fleet.fleets import Lab, environment
from .conftest import Fedtiny, Outcome

SHORT = ("quick", "--rounds", "2", "-s", "pruning.delta_rounds=1", "-s", "train.upload=f16", "--json")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Four devices that have no key yet."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return Lab(tmp_path / "lab").write()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "REFUSED_S", 0.5)


def parsed(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def rows(fedtiny: Fedtiny, lab: Lab, *more: str) -> dict[str, dict[str, Any]]:
    return {row["node"]: row for row in parsed(fedtiny("fleet", "list", str(lab.file), "--json", *more))["nodes"]}


def test_from_no_key_to_a_run_and_back(fedtiny: Fedtiny, lab: Lab) -> None:
    file = str(lab.file)
    refused = fedtiny("run", "quick", "--fleet", file)
    assert refused.code == 2
    assert f"n1: it has no key on file. Give it one: fedtiny fleet enrol {lab.file} n1" in refused.err
    assert {row["state"] for row in rows(fedtiny, lab).values()} == {"unknown"}

    assert parsed(fedtiny("fleet", "enrol", file, "--json")) == {"enrolled": list(lab.names), "keys": str(lab.keys)}
    assert "Every node that a cable reaches has a key" in fedtiny("fleet", "enrol", file).out
    listed = rows(fedtiny, lab)
    assert {(row["state"], row["reached"], row["profile"]) for row in listed.values()} == {("enrolled", True, "psk")}
    assert listed["n1"]["board"] == "posix"
    assert listed["n1"]["link"] == f"process:{lab.command('n1')}"
    assert listed["n1"]["last_seen"] > 1.7e9
    keys = {lab.key_of(name) for name in lab.names}
    assert len(keys - {None}) == 4

    over_links = parsed(fedtiny("run", *SHORT, "--fleet", file))
    in_process = parsed(fedtiny("run", *SHORT))
    assert over_links["model_sha256"] == in_process["model_sha256"]
    assert (over_links["fleet"], in_process["fleet"]) == ("wire", "native")
    assert over_links["bytes"]["up"] == in_process["bytes"]["up"]
    assert in_process["bytes"]["link"] is None
    assert over_links["bytes"]["link"]["by_node"].keys() == set(lab.names)
    folder = Path("runs") / over_links["run_id"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    in_rounds = sum(sum(way.values()) for line in lines for node in line["link"].values() for way in node.values())
    assert 0 < in_rounds < over_links["bytes"]["link"]["down"] + over_links["bytes"]["link"]["up"]
    assert "On the links" in (folder / "report.html").read_text()
    for path in folder.iterdir():
        data = path.read_bytes()
        assert not any(key and (key in data or key.hex().encode() in data) for key in keys)

    told = parsed(fedtiny("fleet", "revoke", file, "n2", "--json"))
    assert told == {"revoked": [{"node": "n2", "erased": True, "problem": None}]}
    assert lab.key_of("n2") is None
    assert rows(fedtiny, lab, "--stored")["n2"]["state"] == "revoked"
    assert "n2: its key was revoked" in fedtiny("run", "quick", "--fleet", file).err
    assert parsed(fedtiny("fleet", "enrol", file, "n2", "--json"))["enrolled"] == ["n2"]


def test_halves_take_half_of_the_values_bytes_and_another_model(fedtiny: Fedtiny) -> None:
    full = parsed(fedtiny("run", *SHORT, "-s", "train.upload=f32"))
    half = parsed(fedtiny("run", *SHORT))
    assert half["model_sha256"] != full["model_sha256"]
    assert abs(half["accuracy"] - full["accuracy"]) < 0.05
    saved = full["bytes"]["by_kind"]["values"] - half["bytes"]["by_kind"]["values"]
    assert saved == full["bytes"]["up"] - half["bytes"]["up"]
    assert 0.3 < saved / full["bytes"]["up"] < 0.5


def test_a_device_with_a_key_of_its_own_is_not_given_another(fedtiny: Fedtiny, lab: Lab) -> None:
    lab.record("n1").write_bytes(record("n1", b"\xab" * 32))
    refused = fedtiny("fleet", "enrol", str(lab.file), "n1")
    assert refused.code == 2
    assert "n1: it has a key already. If it is yours, send it the task forget, or erase its storage" in refused.err
    assert rows(fedtiny, lab, "--stored")["n1"]["state"] == "unknown"


def test_an_enrolment_that_broke_off_is_finished_with_the_same_key(fedtiny: Fedtiny, lab: Lab) -> None:
    """The device took its key and the host never heard: without the key on file it would be lost."""
    fedtiny("fleet", "enrol", str(lab.file), "n1")
    table = json.loads(lab.keys.read_text())
    table["devices"]["n1"]["state"] = "pending"
    lab.keys.write_text(json.dumps(table))
    assert "its enrolment was broken off. Finish it" in fedtiny("run", "quick", "--fleet", str(lab.file)).err
    assert parsed(fedtiny("fleet", "enrol", str(lab.file), "n1", "--json"))["enrolled"] == ["n1"]
    assert json.loads(lab.keys.read_text())["devices"]["n1"]["key"] == table["devices"]["n1"]["key"]


def test_a_record_for_flashing_holds_the_key_on_file(fedtiny: Fedtiny, lab: Lab) -> None:
    done = fedtiny("fleet", "enrol", str(lab.file), "n3", "--offline", "n3.record")
    assert done.code == 0
    assert Path("n3.record").stat().st_mode & 0o777 == 0o600
    lab.record("n3").write_bytes(Path("n3.record").read_bytes())
    row = rows(fedtiny, lab)["n3"]
    assert (row["reached"], row["boot_counter"]) == (True, 1)
    assert fedtiny("fleet", "enrol", str(lab.file), "--offline", "x").code == 2


def test_a_key_never_goes_through_a_broker(fedtiny: Fedtiny, lab: Lab) -> None:
    lab.links = {"n1": "mqtt:n1"}
    lab.head = '[broker]\nhost = "localhost"\n'
    lab.write()
    refused = fedtiny("fleet", "enrol", str(lab.file), "n1")
    assert refused.code == 2
    assert "n1: a key never goes through a broker" in refused.err
    assert f"fedtiny fleet enrol {lab.file} n1 --offline RECORD" in refused.err


def test_an_unprotected_line_is_shown_in_red_and_only_where_it_was_asked_for(
    fedtiny: Fedtiny, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.names, lab.options = ("n1",), "--device n1"
    lab.head = 'profile = "plain"\n'
    lab.write()
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = fedtiny("fleet", "list", str(lab.file)).out
    assert "\x1b[1;31mplain" in shown
    assert "here" in shown
    refused = fedtiny("fleet", "enrol", str(lab.file), "n1")
    assert "its profile is plain, which has no key" in refused.err
    done = fedtiny("run", "board-mini", "--rounds", "1", "--fleet", str(lab.file), "--out", "plain-run")
    assert done.code == 0, done.err
    assert "nothing protects the line of n1" in done.out
    assert "nothing protects the line of n1" in Path("plain-run/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda lab: ("fleet", "list", "no.toml"), "cannot read the fleet file no.toml"),
        (lambda lab: ("fleet", "revoke", str(lab.file), "n9"), "has no node n9. It has: n1, n2, n3, n4"),
        (lambda lab: ("run", "quick", "--fleet", str(lab.file), "--nodes", "5"), "5 nodes are to train, and"),
        (lambda lab: ("run", "quick", "-s", "fleet.kind=wire"), "no fleet file is named: fedtiny run PRESET --fleet"),
    ],
)
def test_mistakes_are_named(
    fedtiny: Fedtiny, lab: Lab, arguments: Callable[[Lab], tuple[str, ...]], message: str
) -> None:
    outcome = fedtiny(*arguments(lab))
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_a_silent_node_is_listed_with_its_reason(fedtiny: Fedtiny, lab: Lab) -> None:
    fedtiny("fleet", "enrol", str(lab.file), "n1")
    lab.links = {"n1": "tcp:127.0.0.1:1"}
    lab.write()
    row = rows(fedtiny, lab)["n1"]
    assert (row["reached"], row["state"], row["board"]) == (False, "enrolled", "posix")
    assert "Is the node or emulator running" in row["problem"]
