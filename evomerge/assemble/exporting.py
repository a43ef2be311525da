"""A run's candidates written in other tools' words."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evomerge.assemble.means import QUIET, Listener
from evomerge.assemble.single import opened
from evomerge.errors import EvomergeError, SpecError
from evomerge.estimate import Grader
from evomerge.files import Target
from evomerge.results import Results, Row
from evomerge.results.between import WORD, between
from evomerge.space import unchanged
from evomerge.spec import Models
from evomerge.trial import Draw

if TYPE_CHECKING:
    from evomerge.checkpoint import ParentFiles
    from evomerge.export import Wanted

NAME = "adapter"
"""What an adapter is called while it is scored."""


def export(
    results: Results,
    pick: str,
    out: Path,
    *,
    formats: Sequence["Wanted"] = ("all",),
    force: bool = False,
    listener: Listener = QUIET,
) -> list[str]:
    """Write a candidate of a run in other tools' words; returns remarks to read.

    Raises:
        SpecError: there is no such candidate, its models have changed, or `out` exists.
        RunError: the disk is full, a weight is not finite, or something came to be at `out` meanwhile.
    """
    from evomerge.export import AsAdapter, export_run, export_target

    adapted = any(isinstance(format, AsAdapter) for format in formats)
    if adapted and not {"model", "all"}.isdisjoint(formats):
        raise SpecError("--format: a folder holds a model or an adapter, not both; export them to folders of their own")
    target = export_target(out, force=force, needed=[results.store.folder])
    if pick.startswith(WORD):
        return _export_between(results, pick, target, formats, listener)
    try:
        row = results.pick(pick)
    except SpecError as error:
        raise SpecError(f"--pick {error}") from None
    files = _opened_again(results, listener)
    listener.say(f"writing candidate {row.number}")
    remarks = [*_doubts(results, row), *export_run(results, row, files, target, formats)]
    if adapted and row.confirmed is not None and results.file.scorer is None:
        remarks += _effect(results, row, out, listener)
    return remarks


def _effect(results: Results, row: Row, out: Path, listener: Listener) -> list[str]:
    """What an adapter that was written scores on the confirm items, beside the candidate that it stands for."""
    from evomerge.evaluate import EvaluatorFactory

    run, draw = results.file.spec, Draw(pool="confirm")
    models = Models(
        base=run.models.base, experts={NAME: str(out.absolute())}, trust_remote_code=run.models.trust_remote_code
    )
    made = EvaluatorFactory(models, run.fitness, run.seed, run.device, guard=run.guard, progress=listener.say)
    try:
        evaluator = made.build()
        if (change := evaluator.table.changes_since(results.store.table)) is not None:
            return [f"the adapter was not scored: {change} than when the run was opened"]
        listener.say("scoring the adapter on the confirm items")
        found = evaluator.marks(unchanged(evaluator.parents, NAME), draw, "the adapter")
    except EvomergeError as error:
        return [f"the adapter was not scored: {error}"]
    wanted = results.marks(row.number, "confirm")
    assert wanted is not None, "it is confirmed"
    grader = Grader(run.fitness, evaluator.table)
    values, gaps = grader.values(found, draw), grader.differences(found, wanted, draw)
    return [
        f"{label}: the adapter has {values[label][0]:.3f} on the confirm items, the merge's {gap:+.3f} ±{error:.3f}"
        for label, (gap, error) in gaps.items()
    ]


def _export_between(
    results: Results, pick: str, target: Target, formats: Sequence["Wanted"], listener: Listener
) -> list[str]:
    """Write a model of a learned front that is none of its points."""
    from evomerge.export import export_recipe

    if not set(formats) <= {"all", "model"}:
        raise SpecError(f"--format: {pick} is written as a model, with its recipe; leave --format out")
    try:
        recipe, coefficients = between(results, pick)
    except SpecError as error:
        raise SpecError(f"--pick {error}") from None
    files = _opened_again(results, listener)
    listener.say(f"writing {pick}")
    with TemporaryDirectory() as folder:
        if coefficients is not None and recipe.arrays is not None:
            (Path(folder) / recipe.arrays.path).write_bytes(coefficients.content)
            recipe = recipe.model_copy(update={"arrays": recipe.arrays.at(Path(folder))})
        return [f"nobody has scored {pick}; its neighbours on the front were", *export_recipe(recipe, files, target)]


def _opened_again(results: Results, listener: Listener) -> "ParentFiles":
    """A run's models, if they are what they were."""
    run = results.file.spec
    files = opened(run.models, run.seed, listener)
    for name, parent in results.file.parents.models.items():
        if files.parents.models[name].content() != parent.content():
            raise SpecError(f"{name} at {parent.shown()} has changed since the search; restore it, or search again")
    listener.say("reading the models again")
    files.read_again()
    return files


def _doubts(results: Results, row: Row) -> list[str]:
    """What somebody who is about to use a candidate should know of it."""
    doubts = []
    if row.failure is not None:
        doubts.append(
            f"candidate {row.number} failed ({row.failure.stage}: {row.failure.reason}); nobody has scored it"
        )
    elif row.confirmed is None:
        doubts.append(f"candidate {row.number} is not confirmed on held-out items; its values are optimistic")
    if row.name in results.parent_names:
        other = "; --pick knee takes a merge from the middle of the front" if len(results.objectives) > 1 else ""
        doubts.append(f"candidate {row.number} is {row.name}, unchanged{other}")
    return doubts
