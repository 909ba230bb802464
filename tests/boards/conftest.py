"""The command, as the system tests call it."""

from tests.system.conftest import fedtiny

__all__ = ["fedtiny"]
