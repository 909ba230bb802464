"""Samples of a host in a node's storage: the same answers as from memory, of which they take none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fedtiny.boards import root
from fedtiny.federation.tasks import Load, PutData
from fedtiny.fleet.encoding import Packer
from fedtiny.fleet.fitting import STORED
from fedtiny_export.blob import write_blob

from ..host import runs
from ..link.c_node import CNode
from ..link.storage import Flash
from ..link.wires import ask, wire
from .test_c_service import NOMEM, Pair, masks
from .test_encoding import TASKS, same

DATA = 8


class StoredPair(Pair):
    def __init__(self, memory: int, storage: int = 200_000) -> None:
        super().__init__(memory)
        self.flash = Flash(storage)
        self.line = wire(CNode(work=None, memory=memory, storage=self.flash))


def load() -> Load:
    model = runs.model()
    return Load(blob=write_blob(model.graph, model.arrays, masks(model.graph, 0)), micro_batch=8, topk_max=64)


def shard(colours: int, count: int, seed: int = 0) -> PutData:
    """Samples that have so many different numbers; more than 256 go as they are."""
    rng = np.random.default_rng(seed)
    palette = rng.normal(size=colours).astype(np.float32)
    picks = np.concatenate([np.arange(colours), rng.integers(0, colours, 144 * count - colours)])
    y = rng.integers(0, 4, count).astype(np.uint16)
    return PutData(x=palette[picks].reshape(count, 1, 12, 12), y=y, dev_count=count // 5)


@pytest.mark.parametrize("colours", [2, 256, 257])
@pytest.mark.parametrize("most", [1 << 20, 3000])
def test_samples_in_storage_give_the_answers_of_samples_in_memory(colours: int, most: int) -> None:
    """Whole and in parts; training reads them in an order of its own, and new samples take the place of old ones."""
    pair = StoredPair(1 << 20)
    for seed in range(2):
        same(*pair.ask(shard(colours, 30, seed), most))
        same(*pair.ask(TASKS["describe"]))
        same(*pair.ask(load()))
        for name in ("train", "score", "train"):
            same(*pair.ask(TASKS[name]))
    assert (pair.flash.erased, pair.flash.misused) == (2, [])


def test_samples_that_are_longer_than_the_memory_train_a_model_there() -> None:
    """300 of 578 bytes, more than all that the node has beside its storage."""
    put, task = shard(257, 300), load()
    direct = Pair().direct
    direct.do(put)
    direct.do(task)
    memory = -(-(len(task.blob) + direct.core.memory.peak + STORED + 8_000) // 8) * 8
    assert memory < put.x.nbytes
    pair = StoredPair(memory)
    same(*pair.ask(put, 8_000))
    same(*pair.ask(task))
    same(*pair.ask(TASKS["train"]))


def test_parts_however_small_keep_their_colours_once() -> None:
    """A node whose model is up takes three samples at a time: with 256 colours each that would be 20 KB, not 7."""
    pair = StoredPair(1 << 20, storage=8192)
    same(*pair.ask(shard(256, 40), 1500))
    same(*pair.ask(load()))
    same(*pair.ask(TASKS["train"]))
    assert pair.flash.misused == []


def refused(pair: Pair, put: PutData) -> tuple[int, str]:
    answer = None
    for job in Packer(run=bytes(8), round_number=0, limit_s=9).jobs(put, 3000):
        answer = ask(pair.line, job)
        if answer.status:
            break
    assert answer is not None
    return answer.status, answer.problem


def test_a_storage_that_is_full_or_fails_is_said_and_the_next_samples_are_taken() -> None:
    pair = StoredPair(1 << 20, storage=8192)
    status, problem = refused(pair, shard(257, 30))
    assert status == NOMEM
    assert "bytes wanted" in problem
    for call in ("erase", "write"):
        pair.flash.fails = {call}
        assert refused(pair, shard(2, 8)) == (DATA, f"the storage of the samples cannot be {wording(call)}")
    pair.flash.fails = set()
    same(*pair.ask(shard(2, 8), 3000))
    same(*pair.ask(load()))
    same(*pair.ask(TASKS["train"]))
    pair.flash.fails = {"read"}
    assert pair.refusal(TASKS["train"]).status == DATA
    assert pair.flash.misused == []


def wording(call: str) -> str:
    return {"erase": "erased", "write": "written at 0"}[call]


def test_the_host_counts_what_the_header_says_that_samples_in_storage_take() -> None:
    header = (root() / "firmware/include/fedtiny_storage.h").read_text("utf-8")
    assert re.findall(r"FT_SERVICE_STORED = (\d+)", header) == [str(STORED)]


def test_without_the_memory_that_it_takes_samples_stay_in_memory() -> None:
    node: Any = CNode(work=None, memory=512, storage=Flash(8192))
    assert not node._service.stored
