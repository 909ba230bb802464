"""Objects: named by their hash, cut into blocks, fetched by whoever wants them (firmware/PROTOCOL.md)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from fedtiny.link.messages import ObjectKind, ObjectRef, Request

HASH_BYTES = 16
BLOCK_HEADER = 8  # u8[4] first bytes of the hash, u32 block
REQUEST_SPAN = 64
FIRST_TIMEOUT_S, LAST_TIMEOUT_S = 0.25, 2.0
TIMEOUTS_BEFORE_PAUSE = 10
PARTIAL_BYTES = 64 << 20  # of unfinished objects that are kept for a later session


def object_hash(kind: ObjectKind, data: bytes) -> bytes:
    return blake2b(bytes((kind,)) + data, digest_size=HASH_BYTES).digest()


@dataclass(frozen=True)
class Payload:
    """An object's kind and bytes; share one between nodes and it is hashed once."""

    kind: ObjectKind
    data: bytes

    @cached_property
    def ref(self) -> ObjectRef:
        return ObjectRef(self.kind, object_hash(self.kind, self.data), len(self.data))


def block_count(length: int, block_bytes: int) -> int:
    return -(-length // block_bytes)


def data_payload(hash_: bytes, block: int, data: bytes) -> bytes:
    return hash_[:4] + block.to_bytes(4, "little") + data


class Outbox:
    """Objects that the other end may ask for, and the blocks that it asked for. Keeps no other state about it."""

    def __init__(self) -> None:
        self._objects: dict[bytes, Payload] = {}
        self._queue: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._sent: set[tuple[bytes, int]] = set()
        self.resent_blocks = 0

    def offer(self, payloads: Iterable[Payload]) -> None:
        """These in place of those of before."""
        self._objects = {payload.ref.hash: payload for payload in payloads}
        self._sent.clear()
        self._queue.clear()

    def forget_queue(self) -> None:
        """A new session: the other end asks anew."""
        self._queue.clear()

    def on_request(self, request: Request, block_bytes: int) -> bool:
        """Queues the blocks asked for; False if the object is not, or no longer, offered."""
        payload = self._objects.get(request.hash)
        if payload is None:
            return False
        blocks = block_count(len(payload.data), block_bytes)
        for bit in range(REQUEST_SPAN):
            if request.wanted >> bit & 1 and request.first + bit < blocks:
                self._queue.setdefault((request.hash, request.first + bit), None)
        return True

    @property
    def empty(self) -> bool:
        return not self._queue

    def next_block(self, block_bytes: int) -> tuple[ObjectKind, bytes] | None:
        """Kind and DATA payload of the next block asked for."""
        if not self._queue:
            return None
        key, _ = self._queue.popitem(last=False)
        if key in self._sent:
            self.resent_blocks += 1
        self._sent.add(key)
        hash_, block = key
        payload = self._objects[hash_]
        start = block * block_bytes
        return payload.kind, data_payload(hash_, block, payload.data[start : start + block_bytes])


class Download:
    """One object on its way in. The caller sends `requests`, feeds blocks, and asks again at `deadline`."""

    def __init__(self, ref: ObjectRef, block_bytes: int) -> None:
        self.ref = ref
        self.block_bytes = block_bytes
        self.asked_again = 0  # blocks asked for more than once
        self._data = bytearray(ref.length)
        self._blocks = block_count(ref.length, block_bytes)
        self._have = bytearray(self._blocks)
        self._missing = self._blocks
        self._unasked = 0  # blocks from here on were never asked for in this session
        self._lost: set[int] = set()
        self._flight: dict[
            int, tuple[int, int]
        ] = {}  # block: number of the first and of the last time it was asked for
        self._asks = 0

    @property
    def complete(self) -> bool:
        return self._missing == 0

    @property
    def missing_bytes(self) -> int:
        return self._missing * self.block_bytes

    @property
    def in_flight(self) -> int:
        return len(self._flight)

    def data(self) -> bytes | None:
        """The object, if all of it is here and its hash is right."""
        data = bytes(self._data)
        return data if self.complete and object_hash(self.ref.kind, data) == self.ref.hash else None

    def start_again(self) -> None:
        """All of it was wrong."""
        self._have = bytearray(self._blocks)
        self._missing = self._blocks
        self.nothing_asked()

    def nothing_asked(self) -> None:
        """What is in flight will not come: a timeout, or a new session."""
        self._unasked = 0
        self._lost.clear()
        self._flight.clear()

    def on_block(self, block: int, data: bytes) -> bool:
        """Takes a block; False if it is no block of this object or is here already."""
        if block >= self._blocks or len(data) != self._length_of(block):
            return False
        asked = self._flight.pop(block, None)
        self._lost.discard(block)
        if asked is not None:
            # What was asked for before this block has been overtaken. A block that was asked for twice may be the
            # answer to the first.
            self._lost |= {other for other, (_, last) in self._flight.items() if last < asked[0]}
        if self._have[block]:
            return False
        self._data[block * self.block_bytes : block * self.block_bytes + len(data)] = data
        self._have[block] = 1
        self._missing -= 1
        return True

    def _length_of(self, block: int) -> int:
        return min(self.block_bytes, self.ref.length - block * self.block_bytes)

    def requests(self, window: int) -> list[Request]:
        """What to ask for now: overtaken blocks at once, new ones when half of the window is free."""
        wanted = sorted(self._lost)
        self._lost.clear()
        self.asked_again += len(wanted)
        flight = len(self._flight)
        if flight <= window // 2:
            wanted += self._new_blocks(window - flight)
        for block in wanted:
            first, _ = self._flight.get(block, (self._asks, 0))
            self._flight[block] = (first, self._asks)
            self._asks += 1
        return list(self._as_requests(wanted))

    def _new_blocks(self, most: int) -> list[int]:
        found: list[int] = []
        while self._unasked < self._blocks and len(found) < most:
            if not self._have[self._unasked] and self._unasked not in self._flight:
                found.append(self._unasked)
            self._unasked += 1
        return found

    def _as_requests(self, blocks: list[int]) -> Iterable[Request]:
        """Ascending, since lost blocks lie before new ones: the other end queues them in the order of their numbers."""
        while blocks:
            first = blocks[0]
            inside = [block for block in blocks if block - first < REQUEST_SPAN]
            blocks = blocks[len(inside) :]
            yield Request(self.ref.hash, first, sum(1 << (block - first) for block in inside))


class Inbox:
    """Downloads of a task's objects, and unfinished ones of earlier sessions under their hashes."""

    def __init__(self) -> None:
        self._wanted: dict[bytes, Download] = {}
        self._done: dict[bytes, Payload] = {}
        self._kept: OrderedDict[bytes, Download] = OrderedDict()

    def want(self, refs: Iterable[ObjectRef], block_bytes: int) -> None:
        """These objects are wanted, others no longer; what is there of them counts."""
        for ref_hash, download in self._wanted.items():
            self._keep(ref_hash, download)
        self._wanted.clear()
        done, self._done = self._done, {}
        for ref in refs:
            finished = done.get(ref.hash)
            if finished is not None and finished.ref == ref:
                self._done[ref.hash] = finished
                continue
            kept = self._kept.pop(ref.hash, None)
            usable = kept is not None and kept.ref == ref and kept.block_bytes == block_bytes
            download = kept if usable and kept is not None else Download(ref, block_bytes)
            download.nothing_asked()
            self._wanted[ref.hash] = download

    def _keep(self, ref_hash: bytes, download: Download) -> None:
        self._kept[ref_hash] = download
        while sum(kept.ref.length for kept in self._kept.values()) > PARTIAL_BYTES:
            self._kept.popitem(last=False)

    @property
    def current(self) -> Download | None:
        """Objects come one after the other, in the order of the list."""
        return next(iter(self._wanted.values()), None)

    @property
    def missing_bytes(self) -> int:
        return sum(download.missing_bytes for download in self._wanted.values())

    def on_data(self, payload: bytes) -> tuple[Download, bool] | None:
        """The download that a DATA frame belongs to and whether it brought something new."""
        if len(payload) <= BLOCK_HEADER:
            return None
        for download in self._wanted.values():
            if download.ref.hash[:4] == payload[:4]:
                block = int.from_bytes(payload[4:8], "little")
                return download, download.on_block(block, payload[BLOCK_HEADER:])
        return None

    def finish(self, download: Download) -> bool:
        """Stores a complete object; False if its hash is wrong, and then all of it is missing again."""
        data = download.data()
        if data is None:
            download.start_again()
            return False
        del self._wanted[download.ref.hash]
        self._done[download.ref.hash] = Payload(download.ref.kind, data)
        return True

    def take(self, refs: Iterable[ObjectRef]) -> tuple[Payload, ...]:
        """Finished objects in this order; they are forgotten here."""
        found = tuple(self._done[ref.hash] for ref in refs)
        self._done.clear()
        return found


class Budget:
    """Bytes that may be under way to and from all endpoints of one carrier; who finds no room waits in line.

    A broker drops what it cannot hand over, and a thousand nodes that wait for one host ask again and again. What takes
    longer than `patience_s` comes slowly, so that it crowds nobody: it counts no longer.
    """

    def __init__(self, most: int, patience_s: float = 0.25) -> None:
        self._most, self._patience = most, patience_s
        self._held: OrderedDict[Hashable, tuple[int, float | None]] = OrderedDict()  # None: not told yet
        self._line: OrderedDict[Hashable, tuple[int, Callable[[], None]]] = OrderedDict()
        self._first: Hashable = None  # of the line, and it knows

    def take(self, who: Hashable, count: int, now: float, wake: Callable[[], None]) -> bool:
        """Whether so many bytes may go now; if not, `who` is in line, and asks again when woken or at `deadline`."""
        late = [held for held, (_, since) in self._held.items() if since is not None and now >= since + self._patience]
        for slow in late:
            del self._held[slow]
        if who not in self._held and who not in self._line:
            self._line[who] = (count, wake)
        self._admit(but=who)
        if who not in self._held:
            return False
        count, since = self._held[who]
        self._held[who] = count, now if since is None else since
        return True

    def give_back(self, who: Hashable) -> None:
        """`who` has its bytes, or wants them no longer."""
        if self._line.pop(who, None) or self._held.pop(who, None):
            self._admit()

    def deadline(self, who: Hashable) -> float | None:
        """When the first in line should ask again though nobody woke it."""
        times = [since for _, since in self._held.values() if since is not None]
        return min(times) + self._patience if times and next(iter(self._line), None) == who else None

    def _admit(self, but: Hashable = None) -> None:
        """Wakes who has room now, and who is first in line now, so that it knows its deadline; not the caller."""
        used = sum(count for count, _ in self._held.values())
        while self._line:
            who, (count, wake) = next(iter(self._line.items()))
            full = bool(self._held) and used + count > self._most
            if full and who == self._first:
                return
            if full:
                self._first = who
            else:
                del self._line[who]
                self._held[who] = count, None
                used += count
            if who != but:
                wake()
