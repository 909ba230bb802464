"""Loaders: what they hand over, and what they say when files are missing, damaged or not what they claim to be."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from fedtiny.data import NAMES, load_dataset, spar
from fedtiny.data.bundled import FILE
from fedtiny.data.dataset import DATA_DIR_VARIABLE, Dataset
from fedtiny_export.errors import DataError


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setattr("fedtiny.data.idx.SYSTEM", ())


def check(dataset: Dataset) -> None:
    """What every set promises."""
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert x.dtype == np.float32
        assert x.ndim == 4
        assert x.flags["C_CONTIGUOUS"]
        assert np.isfinite(x).all()
        assert y.dtype == np.uint16
        assert y.shape == (len(x),)
        assert y.max() < dataset.classes
    assert dataset.x_train.shape[1:] == dataset.x_test.shape[1:] == dataset.input_shape
    assert abs(float(dataset.x_train.mean())) < 0.1
    assert float(dataset.x_train.std()) == pytest.approx(1, abs=0.1)


def write_idx(path: Path, array: np.ndarray, *, magic: int = 8) -> None:
    header = struct.pack(">HBB", 0, magic, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_fashion(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 28, 28)).astype(np.uint8)
    for part, count in (("train", 20), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images[:count])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    return images


def test_the_shipped_set_is_the_published_one_and_balanced() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == (
        "da091cad03bf6ee4282c8d62262c1f3ac3c3960342e622ad52734aa92d73d233"
    )
    assert "Permission is hereby granted" in FILE.with_name("fashion_mini.LICENSE.txt").read_text()
    mini = load_dataset("fashion-mini")
    check(mini)
    assert mini.x_train.shape == (2000, 1, 28, 28)
    assert mini.x_test.shape == (500, 1, 28, 28)
    assert np.bincount(mini.y_train).tolist() == [200] * 10
    assert np.bincount(mini.y_test).tolist() == [50] * 10


def test_no_shipped_test_image_is_in_the_training_part() -> None:
    mini = load_dataset("fashion-mini")
    assert not {x.tobytes() for x in mini.x_train} & {x.tobytes() for x in mini.x_test}


def test_normalised_samples_lead_back_to_the_raw_ones() -> None:
    mini = load_dataset("fashion-mini")
    with np.load(FILE) as file:
        raw = file["x_train"]
    back = mini.x_train[:, 0] * mini.normalisation.std[0] + mini.normalisation.mean[0]
    np.testing.assert_allclose(back, raw, atol=1e-4)  # float32 of values up to 255


def test_idx_files_are_found_in_a_given_folder_its_subfolder_and_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_fashion(tmp_path / "a" / "fashion-mnist")
    for folder in (tmp_path / "a", tmp_path / "a" / "fashion-mnist"):
        full = load_dataset("fashion", folder)
        raw = full.x_train[:, 0] * full.normalisation.std[0] + full.normalisation.mean[0]
        np.testing.assert_allclose(raw, images, atol=1e-4)
        assert full.y_test.tolist() == list(range(10))
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "a"))
    assert len(load_dataset("fashion").x_train) == 20


@pytest.mark.parametrize("name", ["fashion", "spar-watch", "cifar10", "digits"])
def test_a_missing_set_says_the_command_that_gets_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn.datasets", "seglearn.datasets"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist|pip install|curl -O"):
        load_dataset(name)


def test_an_unknown_set_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="Did you mean 'fashion-mini'") as caught:
        load_dataset("fashion-mimi")
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("damage", ["cut", "no gzip", "wrong type", "short", "labels of another part"])
def test_damaged_idx_files_are_data_errors(tmp_path: Path, damage: str) -> None:
    images = write_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "no gzip":
        path.write_bytes(b"<html>not found</html>")
    elif damage == "wrong type":
        write_idx(path, images, magic=13)
    elif damage == "short":
        path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    else:
        write_idx(path, images[:5])
    with pytest.raises(DataError, match="apt-get install"):
        load_dataset("fashion", tmp_path)


def write_spar(folder: Path, steps: int = 1000) -> dict[str, np.ndarray]:
    """Three people with two recordings each, cut as the loader cuts them."""
    rng = np.random.default_rng(1)
    recordings = [(rng.normal(size=(steps, 6)), exercise, user) for user in (1, 2, 7) for exercise in (0, 6)]
    cut = [spar.windows(recording) for recording, _, _ in recordings]
    arrays = {
        "x": np.concatenate(cut),
        "y": np.repeat([e for _, e, _ in recordings], [len(c) for c in cut]).astype(np.uint8),
        "user": np.repeat([u for _, _, u in recordings], [len(c) for c in cut]).astype(np.uint8),
    }
    np.savez(folder / spar.FILE, **arrays)  # type: ignore[arg-type]
    return arrays


def test_watch_windows_of_the_test_part_share_no_sample_with_training(tmp_path: Path) -> None:
    write_spar(tmp_path)
    watch = load_dataset("spar-watch", tmp_path)
    assert watch.input_shape == (6, 1, 128)
    seen = {step.tobytes() for window in watch.x_train[:, :, 0] for step in window.T}
    assert not any(step.tobytes() in seen for window in watch.x_test[:, :, 0] for step in window.T)


def test_every_person_and_exercise_is_in_both_parts_of_the_watch_set(tmp_path: Path) -> None:
    write_spar(tmp_path)
    watch = load_dataset("spar-watch", tmp_path)
    assert watch.user_train is not None
    assert watch.user_test is not None
    expected = {(user, exercise) for user in (1, 2, 7) for exercise in (0, 6)}
    assert set(zip(watch.user_train.tolist(), watch.y_train.tolist(), strict=True)) == expected
    assert set(zip(watch.user_test.tolist(), watch.y_test.tolist(), strict=True)) == expected
    per_recording = (1000 - 128) // 64 + 1
    assert len(watch.x_test) == 6 * round(0.2 * per_recording)
    assert len(watch.x_train) == 6 * (per_recording - 1) - len(watch.x_test)  # one of each recording left out


def test_seglearn_gives_the_windows_of_the_reference_file() -> None:
    pytest.importorskip("seglearn")
    watch = load_dataset("spar-watch")
    check(watch)
    assert len(watch.x_train) + len(watch.x_test) + 140 == 3605
    assert watch.user_train is not None
    assert sorted(set(watch.user_train.tolist())) == list(range(1, 11))


def test_a_watch_file_of_another_shape_is_a_data_error(tmp_path: Path) -> None:
    np.savez(tmp_path / spar.FILE, x=np.zeros((4, 3, 128)), y=np.zeros(4), user=np.zeros(4))
    with pytest.raises(DataError, match="no windows of shape"):
        load_dataset("spar-watch", tmp_path)


def test_digits_come_with_a_stratified_fifth_held_out() -> None:
    pytest.importorskip("sklearn")
    digits = load_dataset("digits")
    check(digits)
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert np.bincount(digits.y_test).min() >= 35


def write_cifar(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    data = rng.integers(0, 256, (10, 3072)).astype(np.uint8)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {b"data": data, b"labels": list(range(10)), b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return data


def test_cifar_batches_keep_their_channels_apart(tmp_path: Path) -> None:
    data = write_cifar(tmp_path / "cifar-10-batches-py")
    cifar = load_dataset("cifar10", tmp_path)
    assert cifar.x_train.shape == (50, 3, 32, 32)
    red = cifar.x_test[0, 0] * cifar.normalisation.std[0] + cifar.normalisation.mean[0]
    np.testing.assert_allclose(red.reshape(-1), data[0, :1024], atol=1e-4)


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    write_cifar(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({b"data": Harm()}))
    with pytest.raises(DataError, match="data_batch_3 is no batch"):
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


def npz(tmp_path: Path, **arrays: object) -> str:
    path = tmp_path / "mine.npz"
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items()})  # type: ignore[arg-type]
    return str(path)


RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (50, 9, 8)).astype(np.uint8)
LABELS = np.arange(50) % 5


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (IMAGES, (1, 9, 8)),
        (RNG.normal(3, 2, (50, 4, 9, 8)), (4, 9, 8)),
        (np.stack([IMAGES] * 3, axis=3), (3, 9, 8)),
        (RNG.normal(size=(50, 70)), (1, 1, 70)),
    ],
    ids=["images", "channels first", "channels last", "series"],
)
def test_own_arrays_become_maps_with_a_fifth_held_out(tmp_path: Path, x: np.ndarray, shape: tuple[int, ...]) -> None:
    mine = load_dataset(npz(tmp_path, x=x, y=LABELS))
    check(mine)
    assert mine.name == "mine"
    assert mine.input_shape == shape
    assert np.bincount(mine.y_test).tolist() == [2] * 5
    again = load_dataset(npz(tmp_path, x=x, y=LABELS))
    np.testing.assert_array_equal(mine.x_test, again.x_test)


def test_own_test_part_users_and_texts_are_taken(tmp_path: Path) -> None:
    words = np.asarray(["cat", "ant", "bee", "dog", "eel"])[LABELS]
    people = np.asarray(["zoe", "al"])[np.arange(50) % 2]
    mine = load_dataset(
        npz(tmp_path, x=IMAGES, y=words, user=people, x_test=IMAGES[:5], y_test=words[:5], user_test=people[:5])
    )
    assert mine.class_names == ("ant", "bee", "cat", "dog", "eel")
    assert [mine.class_names[label] for label in mine.y_test] == words[:5].tolist()
    assert mine.user_train is not None
    assert mine.user_train[:4].tolist() == [1, 0, 1, 0]
    assert len(mine.x_train) == 50


def test_the_test_part_does_not_move_the_normalisation(tmp_path: Path) -> None:
    one = load_dataset(npz(tmp_path, x=IMAGES, y=LABELS, x_test=IMAGES[:5], y_test=LABELS[:5]))
    other = load_dataset(npz(tmp_path, x=IMAGES, y=LABELS, x_test=255 - IMAGES[:9], y_test=LABELS[:9]))
    assert one.normalisation == other.normalisation


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "lacks y"),
        ({"x": IMAGES, "y": LABELS[:9]}, "one label per sample"),
        ({"x": IMAGES, "y": LABELS - 1}, "whole number from 0"),
        ({"x": IMAGES, "y": LABELS / 2}, "whole number"),
        ({"x": np.full((50, 4), np.nan), "y": LABELS}, "finite"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "at least one|whole number"),
        ({"x": IMAGES[:, :, :, None, None], "y": LABELS}, "shape"),
        ({"x": IMAGES, "y": LABELS, "user": LABELS[:3]}, "user"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES}, "lacks y_test"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS}, "Give both alike"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES[:1], "y_test": [9]}, "from 0 to 4"),
        ({"x": IMAGES, "y": LABELS, "classes": ["a", "b"]}, "Name them all"),
        ({"x": IMAGES[:5], "y": LABELS[:5]}, "no sample is left to test"),
        ({"x": np.asarray([{}] * 50), "y": LABELS}, "cannot be read"),
    ],
)
def test_own_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(npz(tmp_path, **arrays))


@pytest.mark.parametrize("content", [None, b"", b"no zip at all", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_npz_is_a_data_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"numpy\.savez"):
        load_dataset(str(path))
