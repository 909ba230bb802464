"""A graph together with its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from fedtiny_export.graph import F32, Graph


@dataclass(frozen=True, eq=False)
class Model:
    """What a node computes and with which parameters; `arrays` are dense, by `Param.name`, shaped as `Param.shape`."""

    graph: Graph
    arrays: dict[str, F32]

    def __post_init__(self) -> None:
        for param in self.graph.params:
            array = self.arrays.get(param.name)
            if array is None:
                raise ValueError(f"no array for parameter {param.name}")
            if array.shape != param.shape:
                raise ValueError(f"{param.name} has the shape {array.shape}, its graph says {param.shape}")
