"""Who gets which sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedtiny.data import describe, load_dataset, make_shards, public_split, split
from fedtiny_export.errors import DataError

Y = np.repeat(np.arange(10), 200).astype(np.uint16)
USERS = np.repeat([3, 1, 4, 9, 2], [700, 100, 600, 400, 200])
WAYS: list[dict[str, Any]] = [{"how": "dirichlet", "alpha": 0.5}, {"how": "user"}, {"how": "even"}]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way["how"])
def test_each_sample_goes_to_exactly_one_node(way: dict[str, Any]) -> None:
    parts = split(Y, USERS, nodes=5, seed=0, **way)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(Y)))
    assert all(len(part) > 0 for part in parts)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way["how"])
def test_the_same_seed_gives_the_same_split_and_another_another(way: dict[str, Any]) -> None:
    first, again, other = (split(Y, USERS, nodes=5, seed=seed, **way) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way["how"])
def test_shards_are_shuffled_so_that_their_head_is_a_random_tenth(way: dict[str, Any]) -> None:
    for part in split(Y, USERS, nodes=3, seed=0, **way):
        head = part[: len(part) // 10]
        assert abs(head.mean() - part.mean()) < 6 * part.std() / np.sqrt(len(head))
        assert (np.diff(part) < 0).any()


def skew(alpha: float) -> float:
    """Mean share of a node's commonest class."""
    counts = [
        np.bincount(Y[part], minlength=10) for part in split(Y, None, nodes=10, how="dirichlet", alpha=alpha, seed=0)
    ]
    return float(np.mean([c.max() / c.sum() for c in counts]))


def test_a_smaller_alpha_makes_nodes_more_one_sided() -> None:
    assert skew(0.1) > skew(1) > skew(100)
    assert skew(100) < 0.2


def test_dirichlet_shares_have_the_variance_of_the_distribution() -> None:
    alpha, nodes = 0.5, 4
    splits = [split(Y, None, nodes=nodes, how="dirichlet", alpha=alpha, seed=seed) for seed in range(150)]
    shares = np.asarray([np.mean(Y[part] == 0) * len(part) / 200 for parts in splits for part in parts])
    expected = (1 / nodes) * (1 - 1 / nodes) / (nodes * alpha + 1)
    assert shares.var() == pytest.approx(expected, rel=0.15)  # 600 draws; the minimum per node cuts little


def test_every_node_gets_the_documented_minimum() -> None:
    for seed in range(20):
        assert min(len(p) for p in split(Y, None, nodes=10, how="dirichlet", alpha=0.1, seed=seed)) >= 10
    assert min(len(p) for p in split(Y[:10], None, nodes=10, how="dirichlet", alpha=100, seed=0)) >= 1


def test_by_user_keeps_people_whole_and_nodes_level() -> None:
    for nodes in (5, 3, 1):
        parts = split(Y, USERS, nodes=nodes, how="user", seed=0)
        owners = [set(USERS[part].tolist()) for part in parts]
        assert sum(len(o) for o in owners) == 5
    assert sorted(len(p) for p in split(Y, USERS, nodes=3, how="user", seed=0)) == [600, 700, 700]


def test_an_even_split_is_even() -> None:
    assert {len(p) for p in split(Y, None, nodes=7, how="even", seed=0)} == {285, 286}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 2001, "how": "even"}, "at most 2000"),
        ({"nodes": 0, "how": "even"}, "at least 1"),
        ({"nodes": 2, "how": "dirichlet", "alpha": 0.0}, "alpha is 0"),
        ({"nodes": 2, "how": "dirichlet", "alpha": -1.0}, "above 0"),
        ({"nodes": 2, "how": "dirichlet", "alpha": float("nan")}, "above 0"),
        ({"nodes": 150, "how": "dirichlet", "alpha": 1e-6}, "Raise alpha"),
        ({"nodes": 2, "how": "user"}, "dirichlet or even"),
        ({"nodes": 2, "how": "odd"}, "dirichlet, user, even"),
    ],
)
def test_a_split_that_cannot_be_says_what_to_do(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(Y, None, seed=0, **arguments)


def test_more_nodes_than_users_is_refused() -> None:
    with pytest.raises(DataError, match="only 5 users"):
        split(Y, USERS, nodes=6, how="user", seed=0)


def test_a_class_that_no_node_would_have_is_named() -> None:
    with pytest.raises(DataError, match="class 1, 3"):
        split(np.asarray([0, 2, 4, 4]), None, nodes=2, how="even", seed=0)
    with pytest.raises(DataError, match="class bee"):
        split(np.asarray([0, 0]), None, nodes=2, how="even", seed=0, class_names=("ant", "bee"))


def test_public_samples_are_few_per_class_and_never_on_a_node() -> None:
    public, rest = public_split(Y, per_class=5, seed=0)
    assert np.bincount(Y[public]).tolist() == [5] * 10
    assert sorted([*public.tolist(), *rest.tolist()]) == list(range(len(Y)))
    assert np.array_equal(public, public_split(Y, per_class=5, seed=0)[0])
    assert len(public_split(Y, per_class=0, seed=0)[1]) == len(Y)


def test_public_samples_that_leave_a_class_empty_are_refused() -> None:
    with pytest.raises(DataError, match="at most 199"):
        public_split(Y, per_class=200, seed=0)


def test_shards_hold_their_samples_and_a_tenth_for_development() -> None:
    mini = load_dataset("fashion-mini")
    parts = split(mini.y_train, None, nodes=3, how="even", seed=0)
    shards = make_shards(mini, parts)
    assert [s.dev_count for s in shards] == [67, 67, 67]
    np.testing.assert_array_equal(shards[1].x, mini.x_train[parts[1]])
    table = describe(mini, shards)
    assert table.class_names == mini.class_names
    assert table.counts.shape == (3, 10)
    assert table.counts.sum(axis=0).tolist() == [200] * 10
    assert table.counts.sum(axis=1).tolist() == [len(p) for p in parts]
    assert table.dev == (67, 67, 67)
