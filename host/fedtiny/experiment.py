"""One experiment from settings to result: data, split, model, pre-training, fleet and server put together.

with Experiment(load_config("fashion-mini")) as experiment:
    for record in experiment:
        print(record.round, record.accuracy)
    experiment.save("runs/mine")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fedtiny.boards import Board, board_files, load_board, node_banks, refuse_training
from fedtiny.config import Config, keys, load_config, method_of, to_toml, value_of
from fedtiny.federation.nodes import quorum_of
from fedtiny.federation.records import Event, RoundRecord, Selection
from fedtiny.federation.server import Server, ServerSettings, first_load, ignore
from fedtiny.federation.tasks import Fleet, Load, NodeFailure, NodeReport, Norm, PutData, Report
from fedtiny.journal import SqliteJournal
from fedtiny.pruning import Method, Public
from fedtiny.runfolder import (
    BLOB,
    CARD,
    CONFIG,
    JOURNAL,
    METRICS,
    ONNX,
    REPORT,
    RESULT,
    TFLITE,
    TFLITE_INT8,
    RunFolder,
)
from fedtiny_export.errors import ConfigError, FleetError
from fedtiny_export.graph import Bits
from fedtiny_export.model import Model

if TYPE_CHECKING:
    import torch

    from fedtiny.data import Dataset, Shard
    from fedtiny.data.dataset import I64
    from fedtiny_export.model import Model


_FREE = (
    "name",
    "title",
    "data.data_dir",
    "fleet.kind",
    "fleet.file",
    "fleet.workers",
    "fleet.device",
    "fleet.board",
    "fleet.force_training",
    "train.",
    "run.",
)
"""What may change when a run goes on."""


FORCE = "-s fleet.force_training=true"


def silent(phase: str) -> None:
    """A watcher that does not watch."""


class Experiment:
    """A run that its user drives: iterating yields a RoundRecord for each round as it is done.

    `module` and `dataset` take the place of the model and the data set that the settings name; `fleet` is an open one
    that does the run and stays open. `journal`: where the run is kept; one that already holds rounds is gone on with.
    `watch` hears of phases before the first round ("data", "model", "pre-training", "fleet", "selection"), `listen` of
    every node's answer.

    The constructor checks data, split and model and raises FedtinyError; the fleet is opened by `prepare`, which the
    first round calls if nobody did.
    """

    def __init__(
        self,
        config: Config,
        *,
        module: torch.nn.Module | None = None,
        dataset: Dataset | None = None,
        fleet: Fleet | None = None,
        journal: SqliteJournal | None = None,
        watch: Callable[[str], None] = silent,
        listen: Callable[[Event], None] = ignore,
    ) -> None:
        from fedtiny.data import load_dataset, make_shards, public_split
        from fedtiny.fleet import node_names

        self.config = config
        board = load_board(config.fleet.board) if config.fleet.board else None
        self._banks = node_banks(board) if board else {}
        if board:
            self._refuse_training(board)
        self._watch, self._listen = watch, listen
        self._own_journal = journal is None
        self._journal = journal or SqliteJournal()
        self._given = fleet
        self._fleet: Fleet | None = None
        self._ended = False
        self._server: Server | None = None
        self.method = self._checked()
        self._names = fleet.nodes if fleet else node_names(config.fleet.kind, config.fleet.nodes, config.fleet.file)
        if len(self._names) != config.fleet.nodes:
            raise ConfigError(
                f"the fleet has {len(self._names)} nodes, and the settings ask for {config.fleet.nodes}. "
                f"Set fleet.nodes={len(self._names)}."
            )
        watch("data")
        self.dataset = dataset or load_dataset(config.data.name, config.data.data_dir)
        data = self.dataset
        self._public, rest = public_split(data.y_train, per_class=config.pretrain.per_class, seed=config.seed)
        shards = make_shards(data, self._dealt(rest))
        self.shards = dict(zip(self._names, shards, strict=True))
        watch("model")
        if module is not None and type(self.method).width is not Method.width:
            raise ConfigError(f"{self.method.name} chooses the width of a model by name: set model.name instead.")
        self._module = module if module is not None else self._built()
        self.model_name = config.model.name if module is None else type(module).__name__

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the fleet and, where it is the experiment's own, the journal."""
        self._end_fleet()
        if self._own_journal:
            self._journal.close()

    def stop(self) -> None:
        """Ends the fleet and goes back to the state after the last finished round, which can then be saved."""
        kept = self._journal.state
        if self._server is None or kept is None:
            raise ValueError("the run has not begun: there is nothing to stop")
        self._end_fleet()
        self._server.restore(kept)

    def _end_fleet(self) -> None:
        if self._fleet is not None and not self._ended:
            if self._given is None:
                self._fleet.close()
            self._ended = True

    @property
    def began(self) -> bool:
        """Whether a round was finished."""
        return self._server is not None and bool(self.rows)

    def __iter__(self) -> Iterator[RoundRecord]:
        return self.server.rounds()

    @property
    def server(self) -> Server:
        """The server, prepared."""
        if self._server is None:
            self.prepare()
        assert self._server is not None
        return self._server

    @property
    def selection(self) -> Selection | None:
        """The candidates' losses and the chosen one; None where the method has no pool."""
        return self.server.selection

    @property
    def model(self) -> Model:
        """The model as it stands: dense arrays, 0 where masked."""
        return self.server.model

    @property
    def masks(self) -> Mapping[str, Bits]:
        """Live weights by layer name; dense layers have no entry."""
        return self.server.masks

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            self.prepare()
        assert self._fleet is not None
        return self._fleet

    def prepare(self) -> Selection | None:
        """Pre-trains, opens the fleet, deals the data and has the nodes select; or goes on with the journal's run."""
        began = time.perf_counter()
        kept = self._journal.state
        model, settings, public = self._start(fresh=kept is None), self._settings(), self._public_samples()
        start = None
        if kept is None:
            self._watch(self.method.begins)
            start = self.method.start(model, seed=settings.seed, public=public)
            if self.config.fleet.kind == "wire" and self._given is None:
                self._refuse_unfit(first_load(model, start, self.method, settings))
        fleet = self._opened()
        server = Server(
            model=model,
            method=self.method,
            public=public,
            fleet=fleet,
            settings=settings,
            evaluate=self._evaluate,
            journal=self._journal,
            listen=self._listen,
        )
        if kept is not None:
            server.restore(kept)
        else:
            self._watch("selection" if start is not None and start.pool is not None else "loading")
            server.prepare(start)
            self._journal.prepared(server.state())
            self._journal.note("preparation_s", time.perf_counter() - began)
        self._server = server
        return server.selection

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The finished rounds as plain data: the lines of metrics.jsonl (docs/result.md)."""
        return self._journal.rows

    @property
    def preparation_s(self) -> float:
        return float(self._journal.noted("preparation_s") or 0.0)

    def result(self, run_id: str = "") -> dict[str, Any]:
        """result.json as plain data (docs/result.md). Runs the model in ONNX Runtime and on a native node as well."""
        from fedtiny.result import build_result

        return build_result(self, run_id=run_id)

    def reports(self) -> dict[str, NodeReport]:
        """What each node says about itself; nodes that do not answer are left out: all, once the fleet has ended."""
        if self._ended:
            return {}
        answers = self.fleet.ask({node: [Report()] for node in self.fleet.nodes})
        found = {node: reply for node, replies in answers if not isinstance(replies, NodeFailure) for reply in replies}
        return {node: found[node] for node in self.fleet.nodes if isinstance(found.get(node), NodeReport)}  # type: ignore[misc]

    def save(self, folder: str | Path | RunFolder) -> dict[str, Any]:
        """Writes the run folder, a new one where a path is given, and returns result.json's content."""
        from fedtiny.report import model_card, write_report
        from fedtiny_export import to_onnx, write_blob

        target = folder if isinstance(folder, RunFolder) else RunFolder.create(folder)
        model = self.model
        if not target.has(JOURNAL):
            self._journal.copy_to(target.file(JOURNAL))
        target.write(CONFIG, to_toml(self.config))
        target.write_lines(METRICS, self.rows)
        target.write(ONNX, to_onnx(model).SerializeToString())
        target.write(BLOB, write_blob(model.graph, model.arrays, self.masks))
        others = self._as_tflite(model, target.run_id)
        for name, data in others.items():
            target.write(name, data)
        result = self.result(target.run_id) | {
            "files": [CONFIG, JOURNAL, METRICS, RESULT, ONNX, BLOB, *others, REPORT, CARD],
        }
        target.write_json(RESULT, result)
        target.write(CARD, model_card(result))
        write_report(target.path)
        return result

    def _as_tflite(self, model: Model, name: str) -> dict[str, bytes]:
        """TFLite files, float and int8, by name; the scales come from the public samples. None of a group norm."""
        from fedtiny_export.errors import UnsupportedModel
        from fedtiny_export.infer.from_graph import from_model
        from fedtiny_export.infer.load import as_inputs
        from fedtiny_export.infer.quantize import quantize
        from fedtiny_export.infer.tflite_out import to_tflite

        try:
            network = from_model(model, name)
        except UnsupportedModel:
            return {}
        files = {TFLITE: to_tflite(network)}
        public = self.dataset.x_train[self._public]
        if len(public):
            files[TFLITE_INT8] = to_tflite(quantize(network, as_inputs(network, public, first=True)))
        return files

    def _dealt(self, rest: I64) -> list[I64]:
        """Each node's positions in the training part: those of `rest` dealt out."""
        from fedtiny.data import split

        data, settings = self.dataset, self.config.data
        parts = split(
            data.y_train[rest],
            None if data.user_train is None else data.user_train[rest],
            nodes=self.config.fleet.nodes,
            how=settings.split,
            alpha=settings.alpha,
            seed=self.config.seed,
            class_names=data.class_names,
        )
        return [rest[part][: settings.per_node or None] for part in parts]  # parts come shuffled

    def _built(self) -> torch.nn.Module:
        from fedtiny import models

        settings = self.config.model

        def built(width: int | None) -> torch.nn.Module:
            return models.build(
                settings.name,
                input_shape=self.dataset.input_shape,
                classes=self.dataset.classes,
                width=width,
                norm="batch" if settings.norm == "frozen" else settings.norm,
                seed=self.config.seed,
            )

        def weights(width: int) -> int:
            return models.count_weights(built(width))

        own = settings.width or models.width_of(settings.name)
        return built(self.method.width(own, weights))

    def _start(self, *, fresh: bool) -> Model:
        """The model that the server starts from; its numbers are about to be replaced where the run is no fresh one."""
        from fedtiny.pretrain import pretrain
        from fedtiny_export.torch_in import from_torch

        settings = self.config.pretrain
        if fresh and settings.epochs:
            self._watch("pre-training")
            pretrain(
                self._module,
                self.dataset.x_train[self._public],
                self.dataset.y_train[self._public],
                epochs=settings.epochs,
                lr=settings.lr,
                batch=settings.batch,
                loss=self.config.train.loss,
                seed=self.config.seed,
            )
        return from_torch(self._module, self.dataset.input_shape)

    def _opened(self) -> Fleet:
        from fedtiny.fleet import open_fleet

        if self._fleet is not None:
            return self._fleet
        self._watch("fleet")
        settings = self.config.fleet
        options: dict[str, Any] = {"workers": settings.workers or None}
        if settings.ram_bytes:
            options["ram_bytes"] = settings.ram_bytes
        if self._banks:
            options["banks"] = self._banks
        if settings.kind == "simulated":
            options |= {"device": settings.device, "stacked": settings.stacked}
        if settings.kind == "wire":
            options |= {"file": settings.file, "tell": self._watch}
        self._fleet = fleet = self._given or open_fleet(settings.kind, tuple(self.shards), **options)
        self._deal(fleet)
        files = board_files()
        for name in sorted({link.board for link in fleet.links().values()} & files.keys()):
            self._refuse_training(load_board(name))
        return fleet

    def _refuse_unfit(self, load: Load) -> None:
        """Before anything is built for a fleet's boards or sent to them."""
        from fedtiny.fleet import refuse_unfit_boards

        shards = {node: _put(shard) for node, shard in self.shards.items()}
        force = self.config.fleet.force_training
        refuse_unfit_boards(self.config.fleet.file, shards, load, force=force, how=FORCE)

    def _refuse_training(self, board: Board) -> None:
        refuse_training(board, force=self.config.fleet.force_training, how=FORCE)

    def _deal(self, fleet: Fleet) -> None:
        """Raises FleetError where fewer nodes than the quorum take their data; the others may come later."""
        orders = {node: [_put(shard)] for node, shard in self.shards.items()}
        lost: dict[str, NodeFailure] = {}
        for done, (node, answer) in enumerate(fleet.ask(orders), start=1):
            problem = None
            if isinstance(answer, NodeFailure):
                lost[node], problem = answer, answer.reason
            self._listen(Event(round=0, phase="data", node=node, done=done, asked=len(orders), problem=problem))
        if len(orders) - len(lost) < quorum_of(self.config.run.quorum, len(orders)):
            problems = "\n".join(f"  {node}: {failure.reason}" for node, failure in lost.items())
            raise FleetError(f"{len(lost)} of {len(orders)} nodes took no data:\n{problems}")

    def _public_samples(self) -> Public:
        data = self.dataset
        return Public(x=data.x_train[self._public], y=data.y_train[self._public], loss=self.config.train.loss)

    def _checked(self) -> Method:
        """The method. Raises ConfigError where this fleet, or this training, cannot do what it asks."""
        config = self.config
        method = method_of(config)
        kind = self._given.name if self._given is not None else config.fleet.kind
        why = method.why_not(kind)
        if why is not None:
            raise ConfigError(f"{method.name} cannot run on a fleet of kind {kind}, because {why}.")
        if config.train.rounds < method.rounds_min:
            raise ConfigError(
                f"{method.name} changes masks until round {method.rounds_min - 1} and has to train once more, and "
                f"train.rounds is {config.train.rounds}. Set pruning.stop_round below it."
            )
        if config.train.augment != "none" and kind != "simulated":
            raise ConfigError(
                f"train.augment = {config.train.augment!r}: only simulated nodes vary their samples. Set "
                "fleet.kind = simulated, or leave augmentation out."
            )
        if config.train.augment != "none" and config.run.bn_refresh == "train":
            raise ConfigError(
                "batch norms must not be measured on augmented samples: with train.augment, set "
                "run.bn_refresh = measure."
            )
        if config.model.norm == "frozen" and config.run.bn_refresh == "train":
            raise ConfigError(
                "frozen norms measure nothing while they train: with model.norm = frozen, set run.bn_refresh = measure."
            )
        return method

    def _settings(self) -> ServerSettings:
        train, run = self.config.train, self.config.run
        return ServerSettings(
            rounds=train.rounds,
            epochs=train.local_epochs,
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            lr_decay=train.lr_decay,
            lr_final=train.lr_final,
            micro_batch=train.micro_batch,
            norm=Norm.FROZEN if self.config.model.norm == "frozen" else Norm.BATCH,
            loss=train.loss,
            keep=train.keep,
            upload=train.upload,
            lean=train.lean,
            last_layers=train.last_layers,
            augment=train.augment,
            seed=self.config.seed,
            quorum=run.quorum,
            bn_refresh=run.bn_refresh,
        )

    def _evaluate(self, model: Model) -> tuple[float, float]:
        """Test loss, the mean per sample, and accuracy."""
        from fedtiny.result import loss_and_accuracy
        from fedtiny_export.runtimes import torch_logits

        return loss_and_accuracy(torch_logits(model, self.dataset.x_test), self.dataset.y_test, self.config.train.loss)


def resume(folder: RunFolder, config: Config) -> SqliteJournal:
    """The journal of a stopped run, to go on with under these settings.

    Raises ConfigError where there is nothing to go on with, and for settings that its rounds so far depend on.
    """
    before = load_config(folder.file(CONFIG))
    changed = [key for key in keys() if value_of(config, key) != value_of(before, key) and not key.startswith(_FREE)]
    if changed:
        raise ConfigError(
            f"{folder.path} cannot go on with another {', '.join(changed)}: its rounds so far depend on it. "
            f"Start a new run."
        )
    if not folder.has(JOURNAL):
        raise ConfigError(f"{folder.path} has no {JOURNAL}: nothing to go on with. Start a new run.")
    journal = SqliteJournal(folder.file(JOURNAL))
    state = journal.state
    if state is not None and state.round < config.train.rounds:
        return journal
    journal.close()
    if state is None:
        raise ConfigError(f"{folder.path} stopped before its first round. Start a new run.")
    raise ConfigError(
        f"{folder.path} has all its {config.train.rounds} rounds. Look at it: fedtiny report {folder.path}; "
        f"or give it more: -s train.rounds={2 * config.train.rounds}"
    )


def _put(shard: Shard) -> PutData:
    return PutData(x=shard.x, y=shard.y, dev_count=shard.dev_count)
