"""Who gets which sample: held-out part, the server's public samples, the nodes' shards. Deterministic by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedtiny.data.dataset import I64, Dataset, Shard
from fedtiny_export.errors import DataError

How = Literal["dirichlet", "user", "even"]
HOWS: tuple[How, ...] = ("dirichlet", "user", "even")

DIRICHLET_MINIMUM = 10  # samples per node, or half of an even share where that is less
DIRICHLET_DRAWS = 1000


def split(
    y: NDArray[Any],
    users: NDArray[Any] | None,
    *,
    nodes: int,
    how: How,
    alpha: float = 0.5,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> list[I64]:
    """Disjoint index arrays into y (n,), one per node, together all of y, each already shuffled.

    dirichlet: per class, shares over the nodes ~ Dir(alpha); drawn again until every node has min(10, n / (2 nodes))
    samples, at least 1. user: whole people; with fewer nodes than people the largest go first, each to the node that
    has least. even: a random deal. `class_names`: of all classes that must be present.

    Raises DataError: more nodes than samples, or than users; no users; alpha <= 0; a class that no node would have.
    """
    n = len(y)
    if nodes < 1:
        raise DataError(f"cannot split over {nodes} nodes. Give at least 1.")
    if nodes > n:
        raise DataError(f"{nodes} nodes but only {n} training samples. Ask for at most {n} nodes.")
    _every_class_present(y, class_names)
    rng = np.random.default_rng(seed)
    if how == "dirichlet":
        shards = _dirichlet(y, nodes, alpha, rng)
    elif how == "user":
        shards = _by_user(users, nodes)
    elif how == "even":
        shards = np.array_split(rng.permutation(n), nodes)
    else:
        raise DataError(f"unknown split {how!r}. Choose one of: {', '.join(HOWS)}.")
    return [rng.permutation(shard).astype(np.int64) for shard in shards]


def public_split(y: NDArray[Any], *, per_class: int, seed: int) -> tuple[I64, I64]:
    """The server's few-shot set: `per_class` indices of each class in y, shuffled; and the rest, ascending.

    y must be training labels: public samples out of the test part would spoil the result. Raises DataError where a
    class has no sample left for the nodes.
    """
    if per_class < 0:
        raise DataError(f"{per_class} public samples per class. Give 0 or more.")
    rng = np.random.default_rng(seed)
    public: list[I64] = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        if per_class >= len(members):
            raise DataError(
                f"class {label} has {len(members)} training samples: {per_class} public ones leave none for the nodes. "
                f"Take at most {len(members) - 1} per class."
            )
        public.append(rng.choice(members, per_class, replace=False))
    chosen = rng.permutation(np.concatenate(public)).astype(np.int64)
    rest = np.setdiff1d(np.arange(len(y), dtype=np.int64), chosen)
    return chosen, rest


def hold_out(y: NDArray[Any], *, fraction: float, seed: int) -> tuple[I64, I64]:
    """(training indices, held-out indices), ascending; `fraction` of each class, rounded up, but one sample stays."""
    rng = np.random.default_rng(seed)
    held: list[I64] = []
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        held.append(rng.permutation(members)[: min(int(np.ceil(fraction * len(members))), len(members) - 1)])
    test = np.sort(np.concatenate(held)).astype(np.int64)
    return np.setdiff1d(np.arange(len(y), dtype=np.int64), test), test


def make_shards(dataset: Dataset, indices: Sequence[I64]) -> list[Shard]:
    """The nodes' data; `indices` into the training part, as `split` gives them (shuffled: the dev set is its head)."""
    return [Shard.of(dataset.x_train[i], dataset.y_train[i]) for i in indices]


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """Samples per node and class: counts (nodes, classes); dev: development samples per node."""

    class_names: tuple[str, ...]
    counts: I64
    dev: tuple[int, ...]


def describe(dataset: Dataset, shards: Sequence[Shard]) -> ShardCounts:
    """What a table of the split shows."""
    width = dataset.classes
    counts = [np.bincount(s.y, minlength=width) for s in shards]
    return ShardCounts(
        class_names=dataset.class_names,
        counts=np.asarray(counts, dtype=np.int64).reshape(len(shards), width),
        dev=tuple(s.dev_count for s in shards),
    )


def _every_class_present(y: NDArray[Any], class_names: Sequence[str] | None) -> None:
    names = [str(i) for i in range(int(y.max()) + 1)] if class_names is None else list(class_names)
    absent = [name for label, name in enumerate(names) if not (y == label).any()]
    if absent:
        raise DataError(
            f"no node would have a sample of class {', '.join(absent)}. Add training samples of it, or number the "
            "classes without gaps."
        )


def _dirichlet(y: NDArray[Any], nodes: int, alpha: float, rng: np.random.Generator) -> list[I64]:
    if not alpha > 0 or not np.isfinite(alpha):
        raise DataError(f"alpha is {alpha}. Give a number above 0: 0.5 is usual, more is more even.")
    minimum = max(1, min(DIRICHLET_MINIMUM, len(y) // (2 * nodes)))
    members = [np.flatnonzero(y == label) for label in np.unique(y)]
    for _ in range(DIRICHLET_DRAWS):
        node_of = np.empty(len(y), dtype=np.int64)
        for group in members:
            shares = rng.dirichlet(np.full(nodes, alpha))
            cuts = (np.cumsum(shares)[:-1] * len(group)).astype(np.int64)
            node_of[rng.permutation(group)] = np.searchsorted(cuts, np.arange(len(group)), side="right")
        if np.bincount(node_of, minlength=nodes).min() >= minimum:
            return [np.flatnonzero(node_of == k) for k in range(nodes)]
    raise DataError(
        f"{DIRICHLET_DRAWS} draws with alpha {alpha} left some of {nodes} nodes with fewer than {minimum} samples. "
        "Raise alpha or ask for fewer nodes."
    )


def _by_user(users: NDArray[Any] | None, nodes: int) -> list[I64]:
    if users is None:
        raise DataError("this data set does not know its users. Split it by dirichlet or even.")
    people, sizes = np.unique(users, return_counts=True)
    if nodes > len(people):
        raise DataError(f"{nodes} nodes but only {len(people)} users. Ask for at most {len(people)} nodes.")
    if nodes == len(people):
        return [np.flatnonzero(users == person) for person in people]
    load = np.zeros(nodes, dtype=np.int64)
    owner: dict[Any, int] = {}
    for i in np.argsort(-sizes, kind="stable"):
        node = int(np.argmin(load))
        owner[people[i]] = node
        load[node] += sizes[i]
    node_of = np.asarray([owner[u] for u in users])
    return [np.flatnonzero(node_of == k) for k in range(nodes)]
