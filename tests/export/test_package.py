from __future__ import annotations

import subprocess
import sys

import pytest

import fedtiny_export


def test_importing_loads_neither_torch_nor_onnx():
    code = "import sys, fedtiny_export as e; e.read_blob; e.macs; print({'torch', 'onnx'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", fedtiny_export.__all__)
def test_every_public_name_exists(name):
    assert getattr(fedtiny_export, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        fedtiny_export.nonsense  # noqa: B018
