"""Where the C of this package lies once it is compiled."""

from __future__ import annotations

import os
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from fedtiny_export.errors import CoreError


def compiled_part(name: str, variable: str) -> Path:
    """The shared library, or what the environment names in its place: another build, e.g. with sanitizers.

    Raises CoreError where it is missing.
    """
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen)
    spec = find_spec("fedtiny_export")
    places = [*(spec.submodule_search_locations or ())] if spec else []
    places += [str(Path(sysconfig.get_path("platlib")) / "fedtiny_export")]  # an editable install's compiled part
    for place in places:
        path = Path(place) / name
        if path.exists():
            return path
    raise CoreError(f"the compiled {name} is missing from this installation. Install the package: pip install .")
