"""Whether a model fits a board, asked before anything is built for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedtiny.boards import Board, refuse_training
from fedtiny.config import Config, load_config, method_of
from fedtiny.federation.tasks import Load
from fedtiny.fleet.fitting import room_on
from fedtiny.fleet.planning import refuse_what_does_not_fit
from fedtiny.runfolder import BLOB, CONFIG, RunFolder
from fedtiny_export.blob import read_blob
from fedtiny_export.core import NodeConfig, plan
from fedtiny_export.errors import ConfigError, PlanError

PRESET = "fashion-mini"  # whose settings count for a blob without a run


def refuse_unfit(
    board: Board, model: Path, *, work: str, samples_bytes: int, force: bool, settings: Sequence[str] = ()
) -> None:
    """Raises PlanError with what takes what, and what would make it fit, where a run's model or a blob does not.

    On a board the model's own bytes and the node's samples lie in one piece with the arena: what the image leaves of
    the first bank, or what PlatformIO's environment sets aside.
    """
    if work == "train":
        refuse_training(board, force=force, how=f"fedtiny build {board.name} --model {model} --force")
    blob, config = _read(model, settings)
    name, room = room_on(board, len(blob), samples_bytes)
    limit = f"{board.name}, beside its samples and the model's own bytes,"
    if work == "infer":
        _refuse_inference(blob, limit, room)
        return
    refuse_what_does_not_fit({board.name: [_load(blob, config)]}, 0, {name: room}, setting=limit)


def training_load(model: Path, settings: Sequence[str] = ()) -> Load:
    """What a server would have a node load to train a run's model, or a blob with a preset's settings."""
    return _load(*_read(model, settings))


def _refuse_inference(blob: bytes, limit: str, room: int) -> None:
    memory = plan(blob, NodeConfig(modes=("infer",)))
    if memory.peak > room:
        kinds = sorted(((size, kind) for kind, size in memory.by_kind().items() if size), reverse=True)
        table = "\n".join(f"  {kind:<12} {size:>11,}" for size, kind in kinds)
        raise PlanError(
            f"inference takes {memory.peak:,} bytes of a node, and {limit} allows {room:,}. What takes what:\n{table}\n"
            "Take a smaller model or a board with more memory."
        )


def _read(model: Path, settings: Sequence[str]) -> tuple[bytes, Config]:
    """The blob, and the settings that it is trained with: its run's, or those of a preset."""
    if model.is_dir():
        folder = RunFolder.open(model)
        return folder.read(BLOB), load_config(folder.file(CONFIG), list(settings))
    try:
        return model.read_bytes(), load_config(PRESET, list(settings))
    except OSError as problem:
        raise ConfigError(
            f"cannot read the model {model}: {problem.strerror}. Name a run's folder or a .ftm file."
        ) from None


def _load(blob: bytes, config: Config) -> Load:
    """What the run's server would have a node load."""
    train, saved = config.train, read_blob(blob)
    masks = {saved.graph.layer_names.index(name): mask for name, mask in saved.masks.items()}
    topk = method_of(config).topk_max(saved.graph, masks)
    return Load(
        blob=blob,
        micro_batch=train.micro_batch,
        topk_max=topk,
        keep=train.keep,
        lean=train.lean,
        loss=train.loss,
        plain_sgd=train.momentum == 0,
        last_layers=train.last_layers,
    )
