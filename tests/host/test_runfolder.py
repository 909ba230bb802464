"""The run folder and its journal: whole files or none, and a state that reads back bit for bit."""

import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedtiny.federation.records import Adjustment, Failure, RoundRecord, Selection, ServerState
from fedtiny.federation.tasks import Update
from fedtiny.journal import SqliteJournal
from fedtiny.runfolder import CONFIG, JOURNAL, RunFolder
from fedtiny_export.errors import ConfigError


def a_record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        lr=0.1,
        participants=("a", "b"),
        failures=(Failure(node="c", phase="train", reason="it did not answer"),),
        rejections=(),
        train_loss=1.5,
        train_accuracy=0.4,
        loss=1.25,
        accuracy=0.5,
        density=0.25,
        densities={"conv.weight": 0.25},
        adjustment=Adjustment(round=number, block="7x7", pruned=3, grown=3),
        bytes_down=100 * number,
        bytes_up=10,
        flops=1e6,
    )


def a_state(number: int) -> ServerState:
    generator = np.random.default_rng(number)
    return ServerState(
        round=number,
        adjustments=number,
        arrays={
            "conv.weight": generator.normal(size=(2, 1, 2, 2)).astype(np.float32),
            "fc.bias": np.zeros(0, np.float32),
        },
        masks={0: generator.random((2, 1, 2, 2)) < 0.5},
        selection=Selection(
            losses=(2.0, 1.0),
            accuracies=(0.1, 0.2),
            densities=(0.25, 0.25),
            chosen=1,
            bytes=10,
            bytes_if_sent_apart=20,
            flops=1.0,
        ),
        tally={"down": {"values": 100 * number}, "up": {"values": 10 * number, "moments": number}, "dense_fedavg": 7},
    )


def an_update(value: float) -> Update:
    return Update(
        values=np.full(3, value, np.float32),
        moments=np.zeros(2, np.float32),
        samples=5,
        seen=4,
        loss_sum=2.0,
        correct=1,
    )


def test_a_state_reads_back_bit_for_bit_from_a_reopened_journal(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / JOURNAL) as journal:
        assert journal.state is None
        journal.finished(a_record(1), a_state(1))
        journal.finished(a_record(2), a_state(2))
    with SqliteJournal(tmp_path / JOURNAL) as journal:
        found, expected = journal.state, a_state(2)
        assert found is not None
        assert (found.round, found.adjustments, found.selection) == (2, 2, expected.selection)
        assert found.tally == expected.tally
        assert found.arrays.keys() == expected.arrays.keys()
        for name, array in expected.arrays.items():
            assert found.arrays[name].dtype == np.float32
            np.testing.assert_array_equal(found.arrays[name], array)
        np.testing.assert_array_equal(found.masks[0], expected.masks[0])


def test_rows_hold_seconds_and_bytes_by_kind_of_their_own_round(tmp_path: Path) -> None:
    ticks = iter([0.0, 1.0, 3.5, 4.0])
    with SqliteJournal(tmp_path / JOURNAL, clock=lambda: next(ticks)) as journal:
        journal.prepared(a_state(0))
        journal.finished(a_record(1), a_state(1))
        journal.finished(a_record(2), a_state(2))
        first, second = journal.rows
    assert (first["round"], first["seconds"], second["seconds"]) == (1, 2.5, 0.5)
    assert Counter(first["by_kind"]) == Counter(second["by_kind"]) == Counter(values=110, moments=1)
    assert first["failed"] == [{"node": "c", "phase": "train", "reason": "it did not answer"}]
    assert first["adjusted"] == {"round": 1, "block": "7x7", "pruned": 3, "grown": 3}


def test_an_accepted_update_is_on_disk_before_the_call_returns(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / JOURNAL) as journal:
        journal.accepted(1, "a", an_update(1.0))
        journal.accepted(1, "a", an_update(2.0))  # asked again after a stop
        with sqlite3.connect(tmp_path / JOURNAL) as other:
            rows = other.execute('SELECT node, samples, "values" FROM updates').fetchall()
        other.close()
    assert [(node, samples) for node, samples, _ in rows] == [("a", 5)]
    np.testing.assert_array_equal(np.frombuffer(rows[0][2], "<f4"), np.full(3, 2.0, np.float32))


def test_a_temporary_journal_can_be_copied_into_a_folder(tmp_path: Path) -> None:
    with SqliteJournal() as journal:
        journal.finished(a_record(1), a_state(1))
        journal.copy_to(tmp_path / JOURNAL)
    with SqliteJournal(tmp_path / JOURNAL) as copy:
        assert [row["round"] for row in copy.rows] == [1]


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match="no journal"):
        SqliteJournal(tmp_path / JOURNAL)


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"exists already.*--out"):
        RunFolder.create(tmp_path / "run")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot create.*--out"):
        RunFolder.create(tmp_path / "file" / "run")


def test_fresh_folders_count_on(tmp_path: Path) -> None:
    names = [RunFolder.fresh("quick-s0", under=tmp_path / "runs").run_id for _ in range(3)]
    assert names == ["quick-s0-1", "quick-s0-2", "quick-s0-3"]


def test_discarding_removes_the_folder_and_the_parents_made_for_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "b" / "run")
    folder.write(CONFIG, "seed = 0\n")
    folder.discard()
    assert list(tmp_path.iterdir()) == []


def test_discarding_keeps_parents_that_hold_something_else(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "run")
    other = RunFolder.create(tmp_path / "a" / "other")
    folder.discard()
    assert other.path.is_dir()
    assert not folder.path.exists()


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write("x", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        folder.write("x", "new")
    assert folder.read("x") == b"old"
    assert [path.name for path in folder.path.iterdir()] == ["x"]


def test_a_folder_of_something_else_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / CONFIG).write_text("seed = 0\n")
    with pytest.raises(ConfigError, match="has not finished"):
        RunFolder.open(tmp_path).result()
