"""A plan, to read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from evomerge.fitness import Design
from evomerge.results import amount
from evomerge.space import Gene
from evomerge.terminal.units import duration, size

if TYPE_CHECKING:
    from evomerge.learning import LearningPlan
    from evomerge.plan import ParentPlan, Plan

MOST_NAMES = 40
"""Genes of one range that are named."""


def _how(design: Design) -> str:
    """How the items of a draw come about."""
    match design:
        case "random":
            return "drawn at random"
        case "stratified":
            return "drawn at random, of each sub-task its share"
        case "active":
            return "drawn at random, more often where more is to be learnt"
        case "anchors":
            return "chosen to stand for all, by what the parents answered"
        case "anchors_irt":
            return "chosen to stand for all, by the calibration"
        case "information":
            return "chosen because they tell most of a model's ability"
        case _:
            assert_never(design)


def plan_text(plan: "Plan") -> list[str]:
    """A plan as lines to read."""
    lines = [f"parents    {parent.name}: {parent.path} ({_size(parent)})" for parent in plan.parents]
    lines += [f"space      {len(plan.genes)} genes over {plan.layers} layers, {plan.optimizer}"]
    lines += [f"           {text}" for text in _gene_lines(plan)]
    lines += [f"optimiser  {plan.optimizer}: {plan.why}"] if plan.why else []
    lines += [
        f"start      {plan.seeds} points of the prior design; {plan.fixed} parents and fixed recipes, all confirmed at"
        f" the end; outside the space: {_first(plan.outside) or 'none'}"
    ]
    for task in plan.tasks:
        lines.append(f"task       {task.name}: {task.counted}; {', '.join(task.metrics)}")
    if code := dict.fromkeys(what for task in plan.tasks for what in task.code):
        lines.append(f"code       tasks run {', '.join(code)}")
    for label, (cost, parent) in plan.costs.items():
        lines.append(f"size       {label}: {amount(parent, exact=True)} {cost} in an unchanged parent; lower is better")
    lines += _estimator_lines(plan)
    lines += _learning_lines(plan.learning) if plan.learning is not None else []
    compiled = ", merging compiled" if plan.compiled else ""
    tokens = sum(task.drawn_tokens for task in plan.tasks)
    all_tokens = len(plan.parents) * sum(task.tokens for task in plan.tasks)
    lines += [
        f"device     {plan.device}{compiled}; parents {plan.placement}",
        f"cost       {duration(plan.merge_seconds)} to merge a candidate, {duration(plan.score_seconds)} to score it"
        + (f", {tokens:,} tokens" if tokens else ""),
        f"           {duration(plan.parents_seconds)} for {len(plan.parents)} parents on all search items"
        + (f", {all_tokens:,} tokens" if tokens else ""),
        f"duration   {duration(plan.search_seconds)} to search, at most {duration(plan.confirm_seconds)} to confirm",
        f"memory     {size(plan.memory)} at most so far",
        f"disk       {size(plan.run_bytes)} for the run, {size(plan.export_bytes)} for an export;"
        f" {size(plan.free_bytes)} free",
    ]
    return lines + [f"note       {note}" for note in plan.notes]


def _size(parent: "ParentPlan") -> str:
    """How large a parent is, or what kind of adapter it is."""
    ranks = [str(rank) for rank in parent.ranks]
    if not ranks:
        return f"{parent.parameters:,} weights, {parent.dtype}"
    return f"an adapter of rank {' and '.join(ranks)}, {parent.parameters:,} weights of its own"


def _estimator_lines(plan: "Plan") -> list[str]:
    """How many items candidates are put to, and which."""
    spec = plan.estimator
    counts = [f"{task.drawn} of {task.items['search']} search items of {task.name}" for task in plan.tasks]
    lines = [f"estimator  {spec.kind}: a candidate is put to {', '.join(counts)}"]
    if all(task.drawn == task.items["search"] for task in plan.tasks):
        return lines
    turn = "others for every generation" if spec.rotates else "always the same"
    lines.append(f"           {_how(spec.chosen_design)}, {turn}")
    if spec.rungs:
        rungs = ", ".join(map(str, spec.rungs))
        lines.append(f"           after {rungs} of them only the best {spec.keep * 100:g} % get more")
    if spec.refresh and spec.rotates:
        lines.append(f"           {spec.refresh * 100:g} % as many again for scoring elites on other items")
    return lines


def _learning_lines(plan: "LearningPlan") -> list[str]:
    """What is learned, from which items, in how many steps, and what they take."""
    what = "genes" if plan.grain is None else f"coefficients, one a source and {plan.grain}"
    lines = [f"learning   {plan.coefficients:,} {what}, from {plan.items} items; {plan.held} others judge"]
    if plan.trouble:
        return [*lines, f"           no step could be made: {plan.trouble}"]
    if not plan.steps:
        return [*lines, "           the budget is too small for it: only fixed recipes will be scored"]
    each, whole = duration(plan.seconds), duration(plan.steps * plan.seconds)
    way = "" if plan.method == "adam" else ", by Gauss-Newton; the first on fewer"
    return [
        *lines,
        f"           {plan.steps} steps of {plan.batch} items{way}, {each} each, {whole} in all",
    ]


def _gene_lines(plan: "Plan") -> list[str]:
    """Gene names with their ranges, those of equal ranges in one line, the first of many."""
    ranges: dict[str, list[str]] = {}
    for gene in plan.genes:
        ranges.setdefault(_range_of(gene), []).append(gene.name)
    return [f"{label}: {_first(names)}" for label, names in ranges.items()]


def _range_of(gene: Gene) -> str:
    match gene.kind:
        case "binary":
            return "yes or no"
        case "integer":
            return f"{gene.low:g} to {gene.high:g}"
        case "categorical":
            return f"one of {gene.high - gene.low + 1:g}"
        case "real":
            return f"[{gene.low:g}, {gene.high:g}]"
        case _:
            assert_never(gene.kind)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
