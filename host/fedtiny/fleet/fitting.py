"""Whether a model fits the boards of its nodes, and may train there: asked before anything is built or sent."""

from __future__ import annotations

from collections.abc import Mapping

from fedtiny.boards import Board, node_banks, refuse_training
from fedtiny.federation.tasks import Load, PutData
from fedtiny.fleet.encoding import Packer
from fedtiny.fleet.planning import refuse_what_does_not_fit
from fedtiny.fleet.roster import Roster
from fedtiny_export.errors import PlanError

STORED = 1088  # FT_SERVICE_STORED of fedtiny_storage.h: what samples in storage take of memory
PART = 8  # bytes that each part of samples in memory takes besides


def room_on(board: Board, blob_bytes: int, samples_bytes: int) -> tuple[str, int]:
    """The bank of a board that a node's arena lies in, and what is left of it beside image, model and samples.

    Raises PlanError where nothing is, ConfigError for a board without a [memory].
    """
    banks = node_banks(board)
    name, most = next(iter(banks.items()))
    if board.built_by == "PlatformIO" and board.platformio and board.platformio.memory_bytes:
        most = board.platformio.memory_bytes
        name = next(bank for bank, size in banks.items() if size >= most)
    room = most - blob_bytes - samples_bytes
    if room <= 0:
        raise PlanError(
            f"{board.name} has {most:,} bytes for it in its bank {name}, and the model's own {blob_bytes:,} with "
            f"{samples_bytes:,} of samples leave no room to work in. Take a smaller model, a lower density, fewer "
            "samples (data.per_node) or a board with more memory."
        )
    return name, room


def refuse_unfit_boards(roster: Roster, shards: Mapping[str, PutData], load: Load, *, force: bool, how: str) -> None:
    """For the nodes of a fleet file whose board is known: those of `shards`, by name, with the samples each gets.

    Raises ConfigError for a board that does not train unless `force` (`how`: what forces it), PlanError where `load`
    does not fit beside the node's samples.
    """
    nodes: dict[str, list[str]] = {}
    boards: dict[str, Board] = {}
    for node in shards:
        board = roster.board(node)
        if board is not None:
            boards[board.name] = board
            nodes.setdefault(board.name, []).append(node)
    for name, board in boards.items():
        refuse_training(board, force=force, how=how)
        if board.memory:
            _refuse_unfit(board, {node: shards[node] for node in nodes[name]}, load)


def _refuse_unfit(board: Board, shards: Mapping[str, PutData], load: Load) -> None:
    taken = {node: _samples_bytes(board, node, put) for node, put in shards.items()}
    node = max(taken, key=lambda name: taken[name])
    bank, room = room_on(board, len(load.blob), taken[node])
    limit = f"node {node} on {board.name}, beside its samples and the model's own bytes,"
    refuse_what_does_not_fit({node: [load]}, 0, {bank: room}, setting=limit)


def _samples_bytes(board: Board, node: str, put: PutData) -> int:
    """What a node's samples take of its memory."""
    most = next(iter(node_banks(board).values()))
    sizes = [len(job.objects[0].data) for job in Packer(run=bytes(8), round_number=0, limit_s=0).jobs(put, most)]
    stored = board.node.samples_bytes if board.node else 0
    if not stored:
        return sum(-(-size // 8) * 8 + PART for size in sizes)
    if sum(sizes) + 16 * len(sizes) > stored:
        raise PlanError(
            f"{node} gets {len(put.y):,} samples of {sum(sizes):,} bytes, and {board.name} has storage for {stored:,}. "
            f"Deal out fewer: -s data.per_node={len(put.y) * stored // (sum(sizes) + 2048)}"
        )
    return STORED
