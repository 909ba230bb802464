"""What went over a connection, counted where it enters or leaves the carrier: exact bytes, framing included."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """`down` is towards the node. Labels: frame types in lower case; for DATA `data.` and the object's kind,
    `data.unknown` if it came unasked.

    `up` holds the frames that were taken; `noise_bytes` what came between frames; `dropped` frames by cause;
    `up_bytes` everything that came in. `resent_blocks` were sent more than once, `asked_again` asked for more than
    once, `repeated_blocks` came again.
    """

    down: Counter[str] = field(default_factory=Counter)
    down_frames: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    up_frames: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    up_bytes: int = 0
    noise_bytes: int = 0
    resent_blocks: int = 0
    asked_again: int = 0
    repeated_blocks: int = 0
    repeated_messages: int = 0
    sessions: int = 0

    @property
    def down_bytes(self) -> int:
        return self.down.total()

    def sent(self, label: str, count: int) -> None:
        self.down[label] += count
        self.down_frames[label] += 1

    def took(self, label: str, count: int) -> None:
        self.up[label] += count
        self.up_frames[label] += 1
