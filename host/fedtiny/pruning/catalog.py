"""Methods by name: those that are built in, those that a package registers, and a user's own file.

A package registers one as an entry point of the group `fedtiny.methods`; a file is named as `path/file.py:Name`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fedtiny.pruning.method import Method
from fedtiny_export.errors import ConfigError

GROUP = "fedtiny.methods"

BUILT_IN = {
    "fedtiny": "fedtiny.pruning.fedtiny:FedTiny",
    "fedavg": "fedtiny.pruning.fedavg:FedAvg",
    "small-dense": "fedtiny.pruning.small_dense:SmallDense",
    "magnitude": "fedtiny.pruning.magnitude:Magnitude",
    "snip": "fedtiny.pruning.snip:Snip",
    "synflow": "fedtiny.pruning.synflow:SynFlow",
    "grasp": "fedtiny.pruning.grasp:Grasp",
    "ssfl": "fedtiny.pruning.ssfl:Ssfl",
    "lotteryfl": "fedtiny.pruning.lotteryfl:LotteryFl",
    "prunefl": "fedtiny.pruning.prunefl:PruneFl",
    "feddst": "fedtiny.pruning.feddst:FedDst",
    "fedmef": "fedtiny.pruning.fedmef:FedMef",
    "fedrts": "fedtiny.pruning.fedrts:FedRts",
}


def check_name(name: str) -> None:
    """Raises ConfigError for a method that nobody has, with the nearest name that somebody has."""
    if ".py:" in name:
        path = Path(name.rpartition(":")[0]).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"pruning.method = {name!r}: there is no file {path}. Write it as path/file.py:ClassName."
            )
        return
    if name in BUILT_IN or name in _registered():
        return
    known = [*BUILT_IN, *_registered()]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"unknown pruning.method {name!r}.{hint} Methods: {', '.join(known)}; or your own, as path/file.py:ClassName."
    )


def make_method(name: str, settings: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Method:
    """A method by name. It takes those of the `settings` that it has, and all `options`.

    Raises ConfigError for an unknown name or option, or a value that the method refuses.
    """
    check_name(name)
    found = _class(name)
    known = [f.name for f in fields(found) if f.init and f.name != "name"] if is_dataclass(found) else []
    for option in options or {}:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1, 0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{name} has no option {option!r}.{hint} Its settings: {', '.join(known) or 'none'}.")
    given = {key: value for key, value in settings.items() if key in known} | dict(options or {})
    try:
        method = found(**given)
    except TypeError as error:
        raise ConfigError(f"pruning.method = {name!r} cannot be made: {error}.") from None
    if not isinstance(method, Method):
        raise ConfigError(f"{name} is no method: let its class derive from fedtiny.pruning.Method.")
    return method


def _registered() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}


def _class(name: str) -> type[Any]:
    place = name if ".py:" in name else BUILT_IN.get(name) or _registered()[name]
    module_name, _, attribute = place.rpartition(":")
    try:
        module = _from_file(Path(module_name).expanduser()) if ".py:" in name else importlib.import_module(module_name)
    except Exception as error:  # whatever a user's file does when it is imported
        raise ConfigError(f"{module_name} cannot be imported: {type(error).__name__}: {error}.") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Method)]
        raise ConfigError(
            f"{module_name} has no class {attribute!r}. Its methods: {', '.join(c for c in classes if c != 'Method')}."
        )
    return found


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"fedtiny_method_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
