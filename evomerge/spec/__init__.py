"""The run file as a value, parsed once, with errors that say where and what to do."""

from evomerge.spec.parsing import parse, read_yaml
from evomerge.spec.run import (
    Budget,
    CmaSpec,
    ExecutorSpec,
    Models,
    Nsga2Spec,
    OptimizerSpec,
    RandomSpec,
    RunSpec,
    TpeSpec,
    anchored,
    load_fitness,
    load_run,
    parent_source,
)

__all__ = [
    "Budget",
    "CmaSpec",
    "ExecutorSpec",
    "Models",
    "Nsga2Spec",
    "OptimizerSpec",
    "RandomSpec",
    "RunSpec",
    "TpeSpec",
    "anchored",
    "load_fitness",
    "load_run",
    "parent_source",
    "parse",
    "read_yaml",
]
