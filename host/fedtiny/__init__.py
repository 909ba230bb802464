"""fedtiny: a fleet of microcontrollers trains one tiny, sparse model together.

The names below are the library's surface; each is loaded when it is first used, so that importing fedtiny is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedtiny.config import Config, load_config, make_config, presets
    from fedtiny.experiment import Experiment
    from fedtiny_export.errors import FedtinyError

__version__ = "0.1.0"

__all__ = ["Config", "Experiment", "FedtinyError", "__version__", "load_config", "make_config", "presets"]

_HOMES = {
    "Config": "fedtiny.config",
    "Experiment": "fedtiny.experiment",
    "FedtinyError": "fedtiny_export.errors",
    "load_config": "fedtiny.config",
    "make_config": "fedtiny.config",
    "presets": "fedtiny.config",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fedtiny' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
