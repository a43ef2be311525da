"""Blends as linear combinations of parents, which is how one operator's recipe is read in another's space."""

from evomerge.errors import SpecError
from evomerge.recipe import Blend, DareTies, Linear, Source, TaskArithmetic, Ties


def copy_of(parent: str, layer: int | None) -> Blend:
    """The blend that is one parent, unchanged."""
    return Blend(operator=Linear(), sources=(Source(parent=parent, layer=layer),))


def span_of(blend: Blend) -> dict[str, float]:
    """Coefficient of every parent that has one, for a blend that is a linear combination of its parents.

    Raises:
        SpecError: it is none, because values are gated one by one (TIES, DARE) or bent (slerp).
    """
    operator = blend.operator
    weights = {source.parent: source.weight for source in blend.sources}
    total = sum(weights.values())
    match operator:
        case Linear():
            span = {name: weight / total if operator.normalize else weight for name, weight in weights.items()}
        case TaskArithmetic() | Ties() | DareTies() if blend.base is not None and _adds_task_vectors(blend):
            divisor = total if operator.normalize and total else 1.0
            span = {name: operator.scale * weight / divisor for name, weight in weights.items()}
            span[blend.base.parent] = span.get(blend.base.parent, 0.0) + 1 - sum(span.values())
        case _:
            raise SpecError(f"{operator.kind} is not a linear combination of models")
    return {name: weight for name, weight in span.items() if abs(weight) > 1e-12}


def _adds_task_vectors(blend: Blend) -> bool:
    """TIES and DARE gate nothing when there is one expert at most, kept whole."""
    alone = len(blend.sources) <= 1 and all(source.density == 1.0 for source in blend.sources)
    return isinstance(blend.operator, TaskArithmetic) or alone
