"""Runs the cells of a study that have not finished, several at a time, each in a process of its own kind."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtiny.config import make_config
from fedtiny.study.plan import Cell, Study
from fedtiny.study.store import Store
from fedtiny_export.errors import FedtinyError


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total` cells have finished, `ran` of them now; `cell` was the last, with its `outcome`."""

    done: int
    total: int
    ran: int
    seconds: float
    cell: Cell
    outcome: dict[str, Any]

    @property
    def left_s(self) -> float:
        """What the others will take, if they take as long as those that ran now."""
        return self.seconds / max(1, self.ran) * (self.total - self.done)


def run_study(
    study: Study,
    folder: Path,
    *,
    workers: int = 0,
    heard: Callable[[Progress], None] = lambda progress: None,
    limit: int | None = None,
) -> tuple[int, int]:
    """Runs every cell without a result and keeps each as it ends; returns how many have finished, and failed.

    `workers`: cells at a time; 0: one per core. `limit`: stop after so many. A stop (Ctrl-C, a crash) loses only the
    cells that were running. Raises FedtinyError where a worker dies.
    """
    store = Store(folder)
    store.keep_study(study)
    open_ = [cell for cell in study.cells if store.finished(cell) is None]
    done, failed, began = len(study.cells) - len(open_), 0, time.perf_counter()
    if limit is not None:
        open_ = open_[:limit]
    cores = len(os.sched_getaffinity(0))
    count = max(1, min(workers or cores, len(open_)))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(max(1, cores // count),))
    try:
        waiting = {pool.submit(run_cell, _settings(cell)): cell for cell in open_}
        ran = 0
        while waiting:
            ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ended:
                cell, outcome = waiting.pop(future), _outcome(future)
                store.keep(cell, outcome)
                ran += 1
                failed += "failed" in outcome
                done += "failed" not in outcome
                passed = time.perf_counter() - began
                heard(Progress(done=done, total=len(study.cells), ran=ran, seconds=passed, cell=cell, outcome=outcome))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return done, failed


def _begin(threads: int) -> None:
    """A worker takes its share of the cores, and no more: torch reads the variable when it is first imported.

    It ends with its parent: one whose parent was killed would wait for work for ever.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_cell(settings: dict[str, Any]) -> dict[str, Any]:
    """One run, in this process: what a study keeps of it, or `failed` with the reason."""
    from fedtiny.experiment import Experiment
    from fedtiny.result import costs_of

    began = time.perf_counter()
    try:
        with Experiment(make_config(settings)) as experiment:
            records = list(experiment)
            server = experiment.server
            return {
                "accuracy": records[-1].accuracy,
                "loss": records[-1].loss,
                "accuracy_by_round": [record.accuracy for record in records],
                "density_actual": server.density,
                "down": server.traffic.down,
                "up": server.traffic.up,
                "plan_bytes": max((plan.plan_bytes for plan in server.plans.values()), default=None),
                **costs_of(experiment, experiment.reports()),
                "flops_per_round_max": server.flops_per_round_max,
                "chosen": None if experiment.selection is None else experiment.selection.chosen,
                "wall_s": round(time.perf_counter() - began, 2),
            }
    except FedtinyError as error:
        return {"failed": str(error)}
    except Exception as error:  # a method of the user's own, or no memory: one cell's trouble, not the study's
        return {"failed": f"{type(error).__name__}: {error}"}


def _settings(cell: Cell) -> dict[str, Any]:
    """A cell's settings; its nodes share one thread, for the cells fill the cores."""
    settings = cell.config.model_dump(exclude_none=True)
    settings["fleet"]["workers"] = settings["fleet"]["workers"] or 1
    return settings


def _outcome(future: Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise FedtinyError(
            "a worker ended before its cell had; the finished cells are kept. If memory ran out, go on with fewer: "
            "fedtiny study FILE.toml --workers 1"
        ) from None


def open_cells(study: Study, folder: Path) -> Sequence[Cell]:
    """The cells that have not finished."""
    store = Store(folder)
    return [cell for cell in study.cells if store.finished(cell) is None]
