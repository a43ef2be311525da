"""The run file as a value, parsed once, with errors that say where and what to do."""

from evomerge.runs import SPEC, STAGES, is_run
from evomerge.spec.document import read_json, read_yaml
from evomerge.spec.executors import ExecutorKind, ExecutorSpec, InlineSpec, RaySpec
from evomerge.spec.guard import GuardSpec
from evomerge.spec.optimizers import (
    AutoSpec,
    CmaSpec,
    GradientSpec,
    Mode,
    Nsga2Spec,
    OptimizerSpec,
    RandomSpec,
    SurrogateSpec,
    TpeSpec,
    Yardstick,
    gradient_of,
)
from evomerge.spec.parsing import parse
from evomerge.spec.paths import YAML, anchored_recipe, parent_source, split_pick
from evomerge.spec.reading import AnySpec, anchored, load_fitness, load_run, load_spec, spec_of
from evomerge.spec.rewritten import Rewritten
from evomerge.spec.run import Budget, Models, RunSpec
from evomerge.spec.stages import StagedSpec, StageSpec

__all__ = [
    "SPEC", "STAGES", "YAML", "AnySpec", "AutoSpec", "Budget", "CmaSpec", "ExecutorKind", "ExecutorSpec",
    "GradientSpec", "GuardSpec", "InlineSpec", "Mode", "Models", "Nsga2Spec", "OptimizerSpec", "RandomSpec", "RaySpec",
    "Rewritten", "RunSpec", "StageSpec", "StagedSpec", "SurrogateSpec", "TpeSpec", "Yardstick", "anchored",
    "anchored_recipe", "gradient_of", "is_run", "load_fitness", "load_run", "load_spec", "parent_source", "parse",
    "read_json", "read_yaml", "spec_of", "split_pick",
]  # fmt: skip
