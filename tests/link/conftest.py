from __future__ import annotations

import pytest

from . import wires
from .c_node import CNode
from .node import Node


@pytest.fixture(params=[Node, CNode], ids=["python", "c"])
def each_node(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with the node in Python and with the one in C."""
    monkeypatch.setattr(wires, "KIND", [request.param])
