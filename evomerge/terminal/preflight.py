"""A plan, to read."""

from evomerge.plan import Plan
from evomerge.terminal.units import duration, size


def plan_text(plan: Plan) -> list[str]:
    """A plan as lines to read."""
    lines = [
        f"parents    {parent.name}: {parent.path} ({parent.parameters:,} weights, {parent.dtype})"
        for parent in plan.parents
    ]
    lines += [f"space      {len(plan.genes)} genes over {plan.layers} layers, {plan.optimizer}"]
    lines += [f"           {text}" for text in _gene_lines(plan)]
    lines += [
        f"start      {plan.seeds} points of the prior design; outside the space: {', '.join(plan.outside) or 'none'}"
    ]
    for task in plan.tasks:
        lines.append(f"task       {task.name}: {task.counted}; {', '.join(task.metrics)}")
    compiled = ", merging compiled" if plan.compiled else ""
    lines += [
        f"device     {plan.device}{compiled}; parents {plan.placement}",
        f"cost       {duration(plan.merge_seconds)} to merge a candidate, {duration(plan.score_seconds)} to score it,"
        f" {sum(task.tokens for task in plan.tasks):,} tokens",
        f"duration   {duration(plan.search_seconds)} to search, at most {duration(plan.confirm_seconds)} to confirm",
        f"memory     {size(plan.memory)} at most so far",
        f"disk       {size(plan.run_bytes)} for the run, {size(plan.export_bytes)} for an export;"
        f" {size(plan.free_bytes)} free",
    ]
    return lines + [f"note       {note}" for note in plan.notes]


def _gene_lines(plan: Plan) -> list[str]:
    """Gene names with their ranges, runs of equal ranges in one line."""
    ranges: dict[tuple[float, float], list[str]] = {}
    for gene in plan.genes:
        ranges.setdefault((gene.low, gene.high), []).append(gene.name)
    return [f"[{low:g}, {high:g}]: {', '.join(names)}" for (low, high), names in ranges.items()]
