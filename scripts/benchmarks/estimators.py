"""What estimators are worth to a search: closed loops and winner's curse on simulated models, accuracy, speed."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from appraising import cost_of
from contingency import estimate_published
from measure import table
from scipy import stats
from simulated import PAIRS, UNIFORM, Plan, World, make_world, simulate

from evomerge.estimate import Pair
from evomerge.fitness import EstimatorSpec
from evomerge.results import Results, Row
from evomerge.spec import Budget

KINDS: Mapping[str, EstimatorSpec] = {
    "default: aipw, active, rotating, refresh": EstimatorSpec(items=50),
    "fixed subset, mean": EstimatorSpec(kind="mean", items=50, rotate=False, refresh=0),
    "fixed subset, gmp-IRT": EstimatorSpec(kind="gmp_irt", items=50, rotate=False, refresh=0),
}
EVERY_ITEM = EstimatorSpec(kind="mean", items="all")
RUNGS = {"none": EstimatorSpec(items=50), "10, 20": EstimatorSpec(items=50, rungs=(10, 20))}


@dataclass(frozen=True)
class Outcome:
    """What a search found, as gains in true accuracy over the better parent, and how good its numbers were.

    `export` is the confirmed best, `centre` what the optimiser recommends. Optimism is an estimate minus the truth:
    `naive` and `shrunken` of the candidate that looks best by the search's numbers and by the shrunken ones, and
    `confirmed` of the latter on items that had no part in choosing it; `exported` of the best of the finalists.
    """

    export: float
    centre: float
    uniform: float
    naive: float
    shrunken: float
    confirmed: float
    exported: float
    candidates: int


def outcome(world: World, plan: Plan) -> Outcome:
    """One search in a folder of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        return _summed_up(world, simulate(world, plan, Path(temporary) / "run"))


def _summed_up(world: World, found: Results) -> Outcome:
    truths = {n: world.truth(c.genome) for n, c in found.state.candidates.items() if c.genome is not None}
    best = found.best
    assert best is not None, "something was found"
    rows = [row for row in found.rows.values() if row.number in truths]
    naive = max(rows, key=lambda row: _value(row.search))
    finalists = [row for row in rows if row.number in found.finalists]
    shrunken = max(finalists, key=lambda row: _value(row.shrunken))
    return Outcome(
        export=truths[best.number] - world.best_parent,
        centre=truths[_centre(found)] - world.best_parent,
        uniform=world.truth(UNIFORM) - world.best_parent,
        naive=_value(naive.search) - truths[naive.number],
        shrunken=_value(shrunken.shrunken) - truths[shrunken.number],
        confirmed=_value(shrunken.confirmed) - truths[shrunken.number],
        exported=_value(best.confirmed) - truths[best.number],
        candidates=len(found.state.counted()),
    )


def _centre(found: Results) -> int:
    """The number of the first genome that the optimiser recommended; of the best where it came to recommend none."""
    recommended = [n for n, asked in found.state.candidates.items() if asked.origin == "recommended"]
    best: Row | None = found.best
    assert best is not None, "something was found"
    return recommended[0] if recommended else best.number


def _value(pairs: Mapping[str, Pair] | None) -> float:
    return -np.inf if pairs is None else next(iter(pairs.values()))[0]


def closed_loop(estimator: EstimatorSpec, budget: Budget, seeds: Sequence[int]) -> list[Outcome]:
    """Searches, each in a world of its own: the same ones whatever the estimator."""
    return [outcome(make_world(PAIRS[seed % len(PAIRS)], seed), Plan(estimator, budget, seed)) for seed in seeds]


def compare(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """The mean paired difference, and p-values by the t-test and by Wilcoxon's."""
    gaps = np.subtract(one, other)
    if not gaps.any():
        return 0.0, 1.0, 1.0
    return float(gaps.mean()), float(stats.ttest_rel(one, other).pvalue), float(stats.wilcoxon(gaps).pvalue)


def bench_closed_loop(seeds: int = 16, evaluations: int = 160) -> None:
    """The default against what is in use, at 50 items a candidate."""
    budget = Budget(evaluations=evaluations)
    found = {name: closed_loop(spec, budget, range(seeds)) for name, spec in KINDS.items()}
    found["every item of the pool"] = closed_loop(EVERY_ITEM, budget, range(seeds))
    ours = next(iter(found.values()))
    head = ("", "export", "se", "centre", "se", "ours minus it", "p (t)", "p (Wilcoxon)", "by centres", "p (t)")
    rows: list[Sequence[object]] = [head]
    for name, theirs in found.items():
        exports, centres = ([getattr(o, what) for o in theirs] for what in ("export", "centre"))
        rows.append((name, *_mean_and_error(exports), *_mean_and_error(centres), *_against(ours, exports, centres)))
    uniform = [o.uniform for o in ours]
    rows.append(("uniform merge", *_mean_and_error(uniform) * 2, *_against(ours, uniform, uniform)))
    table(f"closed loop: gain in true accuracy, {seeds} seeds, {evaluations} candidates x 50 items", rows)


def _against(ours: Sequence[Outcome], exports: Sequence[float], centres: Sequence[float]) -> tuple[float, ...]:
    by_centre = compare([o.centre for o in ours], centres)
    return (*compare([o.export for o in ours], exports), *by_centre[:2])


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def winners_curse(searches: int, evaluations: int = 60, items: int = 30) -> list[Outcome]:
    """Many small searches."""
    return closed_loop(EstimatorSpec(items=items), Budget(evaluations=evaluations), range(searches))


def bench_winners_curse(searches: int = 200) -> None:
    """How far the numbers of what a search picked are above its truth."""
    found = winners_curse(searches)
    kinds = {
        "naive: the search's estimate of what looks best by it": "naive",
        "shrunken: of what looks best by that": "shrunken",
        "confirmed: the same candidate on other items": "confirmed",
        "confirmed: the best of the finalists by that": "exported",
    }
    rows: list[Sequence[object]] = [("estimate minus truth", "mean", "se")]
    rows += [(name, *_mean_and_error([getattr(o, what) for o in found])) for name, what in kinds.items()]
    table(f"winner's curse: {searches} searches of 60 candidates x 30 items", rows)


def bench_accuracy(draws: int = 40) -> None:
    """Estimates of the 59 published merges."""
    rows: list[Sequence[object]] = [
        ("items", "RMSE random mean", "RMSE aipw", "ratio", "coverage mean", "coverage aipw")
    ]
    for count in (10, 20, 30, 50):
        plain, ours = estimate_published(count, draws).values()
        rows.append((count, plain.rmse, ours.rmse, ours.rmse / plain.rmse, plain.coverage, ours.coverage))
    table(f"accuracy: 59 published merges, {draws} draws each, nothing known but the parents' answers", rows)


def bench_halving(seeds: int = 16, items: int = 9000) -> None:
    """Successive halving against none for the same number of item evaluations, those of the parents included."""
    found = {name: closed_loop(spec, Budget(item_evaluations=items), range(seeds)) for name, spec in RUNGS.items()}
    rows: list[Sequence[object]] = [
        ("rungs of 50", "candidates", "export", "se", "centre", "se", "minus none", "p (t)")
    ]
    plain = [o.export for o in found["none"]]
    for name, ours in found.items():
        exports, centres = ([getattr(o, what) for o in ours] for what in ("export", "centre"))
        count = float(np.mean([o.candidates for o in ours]))
        rows.append((name, count, *_mean_and_error(exports), *_mean_and_error(centres), *compare(exports, plain)[:2]))
    table(f"successive halving: gain in true accuracy, {seeds} seeds, {items} item evaluations", rows)


def bench_speed() -> None:
    """Estimates and refits at the size of the Open LLM Leaderboard, after 500 candidates x 50 items."""
    rows: list[Sequence[object]] = [("items, tasks", "ms an estimate", "s a refit", "s all 63 refits")]
    for items, tasks in ((28_659, 5), (28_659, 1)):
        found = cost_of(items, tasks, 500)
        rows.append((f"{items}, {tasks}", found.estimate * 1e3, found.refit, found.all_refits))
    table("speed: CPU time, 500 candidates x 50 items of each task", rows)


def bench_estimators() -> None:
    """All of these; about fifteen minutes."""
    bench_accuracy()
    bench_speed()
    bench_closed_loop()
    bench_halving()
    bench_winners_curse()
