"""Nodes as tests see them: each task of federation.tasks is a method, and a refusal is an exception that says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedtiny.federation.tasks import (
    F32,
    Describe,
    Description,
    Done,
    Evaluate,
    Evaluation,
    Fleet,
    Infer,
    Install,
    Load,
    Loaded,
    Logits,
    MeasureBn,
    Moments,
    NodeFailure,
    NodeReport,
    PutData,
    Reply,
    Report,
    Score,
    Subset,
    Task,
    TopK,
    Train,
    Update,
    Upload,
)
from fedtiny_export.errors import FleetError
from fedtiny_export.graph import Bits
from fedtiny_export.masks import EncodedMask
from fedtiny_export.model import Model

R = TypeVar("R", bound=Reply)


class Node:
    """One node of an open fleet. Every method raises FleetError, naming the node, where it fails or does not answer.

    What a node holds (samples, model, values) stays from one test to the next: load what a test needs.
    """

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.name = name

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def ask(self, *tasks: Task) -> tuple[Reply, ...]:
        """Tasks of fedtiny.federation.tasks, done in order; a reply for each."""
        for _, answer in self.fleet.ask({self.name: tasks}):
            if isinstance(answer, NodeFailure):
                raise FleetError(f"{self.name}: {answer.reason}")
            return answer
        raise FleetError(f"{self.name}: it did not answer. Ask it again; fedtiny fleet list shows which nodes do.")

    def describe(self) -> Description:
        return self._one(Describe(), Description)

    @property
    def board(self) -> str:
        """The board that it says it is; "native" in this process."""
        return self.describe().board

    def put_data(self, x: F32, y: NDArray[Any], *, dev_count: int | None = None) -> None:
        """x (n, C, H, W), y (n,) labels; the first `dev_count` (a tenth of them) are the development set."""
        dev = max(1, len(y) // 10) if dev_count is None else dev_count
        self._one(PutData(x=np.asarray(x, np.float32), y=np.asarray(y, np.uint16), dev_count=dev), Done)

    def load(
        self, model: Model | bytes, *, masks: Mapping[str, Bits] | None = None, micro_batch: int = 8, **knobs: Any
    ) -> Loaded:
        """A model with the weights that live (a layer without a mask is dense), or a blob of one.

        `knobs`: the fields of fedtiny.federation.tasks.Load, such as keep="int8", lean=True, topk_max=100.
        """
        from fedtiny_export import write_blob

        blob = model if isinstance(model, bytes) else write_blob(model.graph, model.arrays, masks or {})
        return self._one(Load(blob=blob, micro_batch=micro_batch, **knobs), Loaded)

    def install(self, values: F32, *, masks: Mapping[int, EncodedMask] | None = None, stats: F32 | None = None) -> None:
        """New masks by layer number, then values and statistics in the order of firmware/BLOB.md."""
        self._one(Install(values=values, masks=masks or {}, stats=stats), Done)

    def measure_bn(self, subset: Subset = Subset.ALL, *, candidates: F32 | None = None) -> Moments:
        return self._one(MeasureBn(subset=subset, candidates=candidates), Moments)

    def evaluate(
        self, subset: Subset = Subset.ALL, *, candidates: F32 | None = None, stats: F32 | None = None
    ) -> Evaluation:
        """`loss` and `accuracy` have an element for each candidate: one, where none is given."""
        return self._one(Evaluate(subset=subset, candidates=candidates, stats=stats), Evaluation)

    def train(
        self,
        *,
        lr: float,
        epochs: int = 1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        seed: int = 0,
        upload: Upload = "f32",
    ) -> Update:
        return self._one(
            Train(epochs=epochs, lr=lr, momentum=momentum, weight_decay=weight_decay, seed=seed, upload=upload), Update
        )

    def score(self, k: Mapping[int, int], *, batches: int = 1, seed: int = 0) -> TopK:
        """The k largest gradients of pruned weights by layer number; the model was loaded with topk_max."""
        return self._one(Score(k=k, batches=batches, seed=seed), TopK)

    def infer(self, x: F32) -> F32:
        """x (n, C, H, W) -> logits (n, classes)."""
        return self._one(Infer(x=np.asarray(x, np.float32)), Logits).logits

    def report(self) -> NodeReport:
        return self._one(Report(), NodeReport)

    def _one(self, task: Task, kind: type[R]) -> R:
        [reply] = self.ask(task)
        assert isinstance(reply, kind), reply
        return reply


class Nodes(Sequence[Node]):
    """All nodes of an open fleet, in its order. `settings`: what a run on them sets differently, by dotted key."""

    def __init__(self, fleet: Fleet, settings: Mapping[str, object] | None = None) -> None:
        self.fleet = fleet
        self._settings = dict(settings or {})
        self._nodes = tuple(Node(fleet, name) for name in fleet.nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, at: Any) -> Any:
        return self._nodes[at]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def run(self, source: str = "board-mini", *settings: str) -> dict[str, Any]:
        """All rounds of a preset or settings file on these nodes: what result.json holds of it (docs/result.md).

        `settings`: KEY=VALUE, as for `fedtiny run -s`; those of the fleet file count where they say nothing. Nothing is
        written. Raises FedtinyError as the command does.
        """
        from fedtiny.config import load_config, parse_override
        from fedtiny.experiment import Experiment

        own = self._settings | dict(map(parse_override, settings)) | {"fleet.nodes": len(self)}
        config = load_config(source, own)
        with Experiment(config, fleet=self.fleet) as experiment:
            for _ in experiment:
                pass
            return experiment.result()


def native_node(name: str = "reference") -> Node:
    """The C core in this process."""
    from fedtiny.fleet.native import NativeFleet

    return Node(NativeFleet([name], workers=1), name)
