"""Evolutionary search for the best way to merge fine-tuned language models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.fitness import EstimatorKind
    from evomerge.optimize.black_box import Surrogate
    from evomerge.recipe import Recipe
    from evomerge.results import Results
    from evomerge.score import ScorerFunction
    from evomerge.spec import Budget, RunSpec, StagedSpec

__all__ = ["Surrogate", "__version__", "load", "merge", "resume", "search"]


def search(
    spec: "str | Path | Mapping[str, Any] | RunSpec | StagedSpec",
    out: str | Path,
    scorer: "ScorerFunction | None" = None,
) -> "Results":
    """Run a search from a run file, its content or a `RunSpec`, to its confirmed results in the folder `out`.

    Of a run in stages (a `StagedSpec`) the results are those of the last.

    `scorer` stands in for lm-eval tasks: a callable from the live model and item ids to marks.

    Raises:
        evomerge.errors.SpecError: the run file, the models or the tasks cannot be used, or `out` exists.
        evomerge.errors.Interrupted: Ctrl-C or SIGTERM; `resume` goes on.
        evomerge.errors.RunError: the run cannot go on, the disk is full, say; `resume` goes on.
    """
    from evomerge import assemble

    found = Path(spec) if isinstance(spec, str) else spec
    if isinstance(found, Mapping):
        from evomerge.spec import spec_of

        found = spec_of(found)
    return assemble.search(found, Path(out), scorer=scorer)


def resume(
    out: str | Path,
    budget: "Budget | int | None" = None,
    scorer: "ScorerFunction | None" = None,
    *,
    device: str | None = None,
) -> "Results":
    """Go on with the run in `out` where it was stopped or killed, perhaps with another budget or on another device.

    A number as `budget` is evaluations; of a run in stages it is the last one's.

    Raises:
        evomerge.errors.SpecError: there is no run, or its models or tasks have changed since.
        evomerge.errors.Interrupted: Ctrl-C or SIGTERM.
        evomerge.errors.RunError: the run cannot go on.
    """
    from evomerge import assemble

    if isinstance(budget, int):
        from evomerge.spec import Budget

        budget = Budget(evaluations=budget)
    return assemble.resume(Path(out), budget=budget, elsewhere=assemble.Elsewhere(device=device), scorer=scorer)


def load(out: str | Path, estimator: "EstimatorKind | None" = None) -> "Results":
    """Read the run in `out`; needs no model and executes nothing. `estimator` is another one than the run's.

    Raises:
        evomerge.errors.SpecError: there is no run, or a damaged one.
    """
    from evomerge import assemble

    return assemble.load(Path(out), estimator)


def merge(
    recipe: "str | Path | Recipe", out: str | Path, *, force: bool = False, trust_remote_code: bool = False
) -> "Recipe":
    """Merge a recipe, ours or mergekit's, to a model folder; returns it as it was understood.

    Raises:
        evomerge.errors.SpecError: the recipe or its models cannot be used, or `out` exists.
        evomerge.errors.RunError: the disk is full.
    """
    from evomerge import assemble

    found = Path(recipe) if isinstance(recipe, str) else recipe
    return assemble.merge(found, Path(out), force=force, trusted=trust_remote_code)


def __getattr__(name: str) -> Any:
    """What is loaded when it is first asked for."""
    if name == "Surrogate":
        from evomerge.optimize.black_box import Surrogate

        return Surrogate
    raise AttributeError(f"module 'evomerge' has no attribute {name!r}")
