"""Whose answers are imitated, where a fitness refers to experts."""

from evomerge.errors import SpecError
from evomerge.items import ItemTable
from evomerge.spec import RunSpec


def imitated(run: RunSpec, table: ItemTable | None = None) -> dict[str, tuple[str, ...]]:
    """Tasks whose items are learned from what experts answer, and the experts that own them.

    Raises:
        SpecError: nobody owns such an objective, or its items have no options, as far as items are known.
    """
    found: dict[str, tuple[str, ...]] = {}
    for label, objective in run.fitness.objectives.items():
        if objective.reference == "target":
            continue
        field = f"fitness.objectives.{label}.reference"
        for task in run.fitness.keys(label):
            if table is not None and not all(table.tasks[task].search.golds):
                raise SpecError(
                    f"{field}: items of task {task!r} have no options whose probabilities could be imitated; leave"
                    " reference out"
                )
            found[task] = _owners(run, task, field)
    _refuse_both(run, found)
    return found


def _owners(run: RunSpec, task: str, field: str) -> tuple[str, ...]:
    owners = tuple(name for name, owned in run.models.owners.items() if task in run.fitness.owned(owned))
    if not owners:
        raise SpecError(
            f"{field}: experts are to be imitated, and no expert owns task {task!r}; write models.experts as {{NAME:"
            f" {{path: ..., objective: {task}}}}}"
        )
    return owners


def _refuse_both(run: RunSpec, found: dict[str, tuple[str, ...]]) -> None:
    """See that no task is learned in two ways."""
    for label, objective in run.fitness.objectives.items():
        if objective.reference == "target" and (shared := set(found) & set(run.fitness.keys(label))):
            raise SpecError(
                f"fitness.objectives.{label}.reference: task {min(shared)!r} is learned from experts by another"
                " objective; give both the same"
            )


def refuse_imitation(run: RunSpec, kind: str) -> None:
    """See that no experts are to be imitated by an optimiser of this kind, which learns along no slopes.

    Raises:
        SpecError: some are.
    """
    for label, objective in run.fitness.objectives.items():
        if objective.reference != "target":
            raise SpecError(
                f"fitness.objectives.{label}.reference: experts are imitated along slopes, and {kind} has none; take"
                " optimizer: gradient, or leave reference out"
            )
