"""Boards that a test needs."""

from __future__ import annotations

import os

import pytest

from fedtiny.boards import Board
from fedtiny.emulation import missing_packages


def need(board: Board) -> Board:
    """The board, if its tools are here; else the test is skipped, or fails where FEDTINY_ALL_BOARDS is set."""
    missing = missing_packages(board)
    if missing:
        end = pytest.fail if os.environ.get("FEDTINY_ALL_BOARDS") else pytest.skip
        end(f"{board.name} needs {' '.join(missing)} (make tools gets them)")
    return board
