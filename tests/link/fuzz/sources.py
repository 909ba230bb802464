"""What the fuzzed programs are made of besides tests/link/fuzz/*.c."""

from __future__ import annotations

from pathlib import Path

from ..c_build import ROOT, TARGET
from ..c_build import sources as node_sources


def sources() -> list[Path]:
    """The core, the wire, what ports keep over a loss of power, MQTT's topics, a codec that writes what it read."""
    port = ROOT / "firmware/port"
    return [*node_sources(), port / "record.c", port / "mqtt/topics.c", TARGET / "codec.c"]
