"""The commands on a fleet, as a user types them: give keys, look, run, take a key away."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtiny import Experiment, load_config
from fedtiny.federation.records import Event
from fedtiny.fleet.manage import record
from fedtiny.link import endpoint

from ..conftest import Outcome
from ..fleet.fleets import NODE, ROOT, Lab, environment
from ..link.brokers import free_port
from .conftest import Fedtiny
from .conftest import Outcome as Done

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


def parsed(outcome: Done) -> dict[str, Any]:
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
    assert [listed["n1"][key] for key in ("peak_bytes", "dropped", "asked_again")] == [0, 0, 0]
    keys = {lab.key_of(name) for name in lab.names}
    assert len(keys - {None}) == 4

    over_links = parsed(fedtiny("run", *SHORT, "--fleet", file))
    in_process = parsed(fedtiny("run", *SHORT))
    assert over_links["model_sha256"] == in_process["model_sha256"]
    assert (over_links["fleet"], in_process["fleet"]) == ("wire", "native")
    assert over_links["bytes"]["up"] == in_process["bytes"]["up"]
    assert in_process["bytes"]["link"] is None
    assert over_links["bytes"]["link"]["by_node"].keys() == set(lab.names)
    for board in over_links["boards"]:
        assert (board["board"], board["resets"], board["refused"], board["failures"]) == ("posix", 0, 0, 0)
        assert board["bytes"] == over_links["bytes"]["link"]["by_node"][board["node"]]
        assert board["peak_bytes"] == board["plan_bytes"] == over_links["memory"]["plan_bytes"]
    for board in in_process["boards"]:
        assert board["tasks"]["train"] == {"count": 2, "seconds": board["tasks"]["train"]["seconds"]}
        assert (board["bytes"], board["link"], board["resets"]) == (None, None, None)
    sparse = [layer for layer in over_links["layers"] if not layer["dense"]]
    least, taken = (sum(layer[key] for layer in sparse) for key in ("mask_entropy", "mask_bytes"))
    assert 0 < least < taken <= 1.25 * least
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


def test_the_fleet_file_of_the_documentation_runs(
    fedtiny: Fedtiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/fleet.md's first file, in a folder whose .venv is this one."""
    page = (ROOT / "docs" / "fleet.md").read_text()
    (tmp_path / "lab.toml").write_text(page.split("```toml\n", 1)[1].split("```", 1)[0])
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "fedtiny-node").symlink_to(NODE)
    assert parsed(fedtiny("fleet", "enrol", "lab.toml", "--json"))["enrolled"] == ["n1", "n2", "n3", "n4"]
    done = parsed(fedtiny("run", "board-mini", "--rounds", "1", "--fleet", "lab.toml", "--json"))
    assert (done["fleet"], done["nodes"], done["failures"]) == ("wire", 4, [])
    assert fedtiny("fleet", "revoke", "lab.toml", "n2").out == "n2 is revoked and has erased its key\n"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong key", "n2: it does not have the key that is on file for it. Another device may use its name"),
        ("no key", "n2: it has no key yet. Give it one: fedtiny fleet enrol."),
        (
            "old firmware",
            "n2: it speaks versions 2 to 2 of the protocol, this fedtiny version 1. Flash firmware of this",
        ),
        ("unknown feature", "n2: its firmware asks for features 0x80 that this fedtiny does not have. Update fedtiny"),
        ("downgrade", "n2: it refuses the profile plain. Ask for the one it was enrolled with, psk by default."),
    ],
)
def test_a_device_that_may_not_join_ends_a_run_that_needs_it(
    fedtiny: Fedtiny, lab: Lab, fault: str, words: str
) -> None:
    lab.names = ("n1", "n2")
    if fault == "wrong key":
        lab.write().record("n2").write_bytes(record("n2", bytes(32)))
    elif fault == "no key":
        lab.options = "--device n2"
        lab.write().record("n2").write_bytes(b"")
    elif fault == "downgrade":
        lab.write()
        lab.file.write_text(lab.file.read_text() + 'profile = "plain"\n')
    else:
        lab.python_node("n2", **({"version": 2} if fault == "old firmware" else {"incompat": 0x80}))
    lab.enrolled()
    refused = fedtiny("run", "board-mini", "--fleet", str(lab.file), "-s", "run.quorum=1", "--out", "never")
    assert refused.code == 2
    assert words in " ".join(refused.err.split())
    assert not Path("never").exists()


def test_forward_secrecy_carries_the_same_run(fedtiny: Fedtiny, lab: Lab) -> None:
    lab.names, lab.head = ("n1", "n2"), 'profile = "psk-fs"\n'
    lab.write().enrolled()
    over = parsed(fedtiny("run", "board-mini", "--rounds", "1", "--fleet", str(lab.file), "--json"))
    assert {node["profile"] for node in over["nodes_report"]} == {"psk-fs"}
    alone = parsed(fedtiny("run", "board-mini", "--rounds", "1", "--json"))
    assert over["model_sha256"] == alone["model_sha256"]


def test_a_device_that_was_away_at_first_joins_a_later_round(lab: Lab) -> None:
    """It missed its data and the selection: all of it comes with the first task that it answers."""
    lab.names, lab.head = ("n1", "n2", "n3"), "patience_s = 1\n"
    lab.write().enrolled()
    port = free_port()
    lab.links = {"n3": f"tcp:127.0.0.1:{port}"}
    lab.write()
    settings = {"fleet.kind": "wire", "fleet.file": str(lab.file), "fleet.nodes": 3}
    heard: list[Event] = []
    late: subprocess.Popen[str] | None = None
    try:
        with Experiment(load_config("board-mini", settings), listen=heard.append) as experiment:
            participants = []
            for found in experiment:
                participants.append(found.participants)
                if late is None:
                    command = ["fedtiny-node", "serve", str(lab.record("n3")), "--tcp", str(port)]
                    late = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                    assert late.stdout is not None
                    assert late.stdout.readline()  # it listens
    finally:
        if late is not None:
            late.kill()
            late.wait()
    assert participants == [("n1", "n2"), ("n1", "n2", "n3"), ("n1", "n2", "n3")]
    missing = next(event for event in heard if event.problem)
    assert (missing.phase, missing.node) == ("data", "n3")
    assert "Is the node or emulator running and listening there?" in str(missing.problem)


def test_a_host_that_is_killed_and_goes_on_ends_with_the_same_model(
    fedtiny: Fedtiny, lab: Lab, outcome: Outcome
) -> None:
    """kill -9 of the command; the nodes live on with what they had, and meet a host that knows nothing of it."""
    lab.names = ("n1", "n2")
    lab.write().enrolled()
    nodes = []
    for name in lab.names:
        port = free_port()
        command = ["fedtiny-node", "serve", str(lab.record(name)), "--tcp", str(port)]
        nodes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        lab.links = {**lab.links, name: f"tcp:127.0.0.1:{port}"}
    lab.write()
    run = ("board-mini", "--rounds", "8", "--json")
    try:
        command = [sys.executable, "-m", "fedtiny", "run", *run, "--fleet", str(lab.file), "--out", "killed"]
        host = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal, end = Path("killed/run.db"), time.monotonic() + 30
        while time.monotonic() < end and rounds_in(journal) < 2:
            time.sleep(0.005)
        host.kill()
        host.wait()
        assert 2 <= rounds_in(journal) < 8
        over = parsed(fedtiny("run", "--resume", "killed", "--json"))
    finally:
        for node in nodes:
            node.kill()
            node.wait()
    assert (over["state"], over["fleet"], over["rounds"]) == ("finished", "wire", 8)
    assert over["model_sha256"] == parsed(fedtiny("run", *run))["model_sha256"]
    outcome("host killed in a run", end="host", tried=1, what="kill -9", result="the same model, bit for bit")


def rounds_in(journal: Path) -> int:
    """Rounds that are safe in a run's journal; -1 before there is one."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM rounds").fetchone()[0])
    except sqlite3.Error:
        return -1
