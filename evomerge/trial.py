"""One candidate's life: proposed, evaluated, observed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, PlainSerializer

from evomerge.arrays import packed, spelt, unpacked, unspelt
from evomerge.errors import EvomergeError, RunError, SpecError
from evomerge.items import PoolName
from evomerge.recipe import Carried, Grain, Recipe
from evomerge.values import Genome, Value

Origin: TypeAlias = Literal["baseline", "prior", "search", "recommended"]
Purpose: TypeAlias = Literal["search", "refresh", "confirm", "baseline", "reference", "gradient"]
"""What a work is for. A `reference` is what an expert answers, to be imitated: its marks say nothing of the expert."""
Marks: TypeAlias = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Task, then metric, then one mark per drawn item in the draw's order."""
Scores: TypeAlias = Mapping[str, tuple[tuple[float, ...], ...]]
"""Task, then for each drawn item its scores, which are learned from: float32 log-likelihoods in nats, of all options of
a multiple choice, or of each token of the reference answer."""


def of_optimizer(origin: Origin) -> bool:
    """Whether the optimiser asked for such a candidate in its search, and waits to be told of it."""
    match origin:
        case "prior" | "search":
            return True
        case "baseline" | "recommended":
            return False
        case _:
            assert_never(origin)


class Candidate(Value):
    """A proposed model. `genome` is None for a recipe outside the search space: a fixed one has a `name`.

    `tradeoff` are the weights of the objectives that a learned one was learned for.
    """

    number: int
    genome: Genome | None
    recipe: Recipe
    origin: Origin
    generation: int = 0
    name: str | None = None
    tradeoff: dict[str, float] | None = None


class Draw(Value):
    """Which items are put to a model: all of a pool, or places in it by task.

    `probabilities` are those with which the places were drawn, None means certainty; `masses` are the weights of
    anchors, which no chance chose. `generation` counts a run's draws: candidates of one draw get the same items. Where
    a piece of a draw is put to a model, `of` says how many items the whole of it has. Items drawn by chance are
    in random order, so that a piece is a random part.
    """

    pool: PoolName
    places: dict[str, tuple[int, ...]] | None = None
    probabilities: dict[str, tuple[float, ...]] | None = None
    masses: dict[str, tuple[float, ...]] | None = None
    generation: int | None = None
    of: dict[str, int] | None = None

    def piece(self, start: int, stop: int) -> "Draw":
        """Some of the drawn items, by their order in the draw; tasks with fewer give what they have."""
        assert self.places is not None, "a whole pool has no pieces"
        if start == 0 and all(stop >= len(places) for places in self.places.values()):
            return self
        of = {task: len(places) for task, places in self.places.items()}
        cut = {"places": self.places, "probabilities": self.probabilities, "masses": self.masses}
        parts = {
            name: None if rows is None else {task: row[start:stop] for task, row in rows.items() if row[start:stop]}
            for name, rows in cut.items()
        }
        return self.model_copy(update={**parts, "of": of})


class Lesson(Value):
    """What is to be learned from a work's items: the loss of each and, with a `grain`, the slopes of their sum.

    The sum weighs each item of a task by `weights`. The loss of an item is minus the log-probability of the right
    option or answer (`nll`), or the smooth error: one minus that probability, at a `temperature` (`error`). `targets`
    are probabilities of the options to be imitated instead of the right one, by task and drawn item.

    With `ties` it is the items' own scores that are wanted, and how each changes with a few numbers: for every tensor,
    which of them the weights of its sources are.
    """

    grain: Grain | None = None
    weights: dict[str, float]
    loss: Literal["nll", "error"] = "nll"
    temperature: float = 1.0
    targets: dict[str, tuple[tuple[float, ...], ...]] | None = None
    ties: dict[str, tuple[int, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a lesson gave: each drawn item's loss by task; slopes by tensor, float32 (sources, n) as `Coefficients` are.

    Slopes are those of the weighted sum of losses over the drawn items, not of a mean: sums of parts of a draw add up.
    A lesson with ties gives instead each drawn item's `scores`, of a reference answer the sum over its tokens, and by
    task all their derivatives, float32 (scores, numbers), item after item.
    """

    losses: dict[str, tuple[float, ...]]
    slopes: dict[str, NDArray[np.float32]]
    scores: Scores = field(default_factory=dict)
    jacobians: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def spelt(self) -> dict[str, Any]:
        """The same as JSON types."""
        arrays = {"slopes": self.slopes, "jacobians": self.jacobians}
        return {"losses": self.losses, "scores": self.scores} | {
            name: spelt(packed(each, {})) for name, each in arrays.items()
        }

    @classmethod
    def read(cls, value: object) -> object:
        """What was spelt so, read again; anything else as it is."""
        if not isinstance(value, dict):
            return value
        losses = {task: tuple(row) for task, row in value["losses"].items()}
        scores = {task: tuple(map(tuple, rows)) for task, rows in value["scores"].items()}
        slopes, jacobians = (unpacked(unspelt(value[name]), "a message")[0] for name in ("slopes", "jacobians"))
        return cls(losses, slopes, scores, jacobians)


class Work(Value):
    """One errand of a worker: merge a recipe, score it on a draw, or give the lesson that its items hold.

    `coefficients` are what the recipe's side file holds, for a worker that cannot read it. With `scored` the items'
    scores are wanted beside their marks, of tasks that give any.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    id: int
    number: int
    recipe: Recipe
    draw: Draw
    purpose: Purpose
    coefficients: Carried | None = None
    lesson: Lesson | None = None
    scored: bool = False


class Failure(Value):
    """Why a candidate has no marks: the step it failed in, and what was said.

    To `grade` is a task's own code. `passing` is what need not happen again: there was too little memory, say.
    """

    stage: Literal["merge", "score", "grade", "worker"]
    reason: str
    passing: bool = False

    def error(self, who: str) -> EvomergeError:
        """The same of a model that is no candidate, without whose marks nothing can go on."""
        kind = SpecError if self.stage == "grade" else RunError
        return kind(f"{who} cannot be {'merged' if self.stage == 'merge' else 'scored'}: {self.reason}")


class Seconds(Value):
    """Where an evaluation's time went, in wall-clock seconds."""

    merge: float = 0.0
    score: float = 0.0


class LayerEvaluations(Value):
    """Layers of candidates put to batches of items: those that were run, and those whose result was still known."""

    run: int = 0
    reused: int = 0


class Evaluation(Value):
    """What came back for one `Work`. `layer_evaluations` are those of log-likelihoods; None where there were none.

    Of a lesson there are no marks, but what was `learnt`; `scores` are there where they were asked for.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    work: int
    number: int
    outcome: dict[str, dict[str, tuple[float, ...]]] | Failure
    scores: dict[str, tuple[tuple[float, ...], ...]] | None = None
    learnt: Annotated[Learnt, BeforeValidator(Learnt.read), PlainSerializer(Learnt.spelt, when_used="json")] | None = (
        None
    )
    seconds: Seconds = Seconds()
    layer_evaluations: LayerEvaluations | None = None
    worker: str = ""


class Observation(Value):
    """What an optimiser is told of a point: utilities, higher is better, with standard errors.

    `utilities` is None for a failed candidate; `number` is None for a point that nobody asked for, and a number
    told before is a revision. `genome` may be left out where the number says it. `scores` are those of the search items
    that it was put to, by task, and `rows` their places in the task's pool, each once; told where they are asked for.
    The journal keeps neither: it says where they lie.
    """

    number: int | None
    genome: Genome | None = None
    utilities: tuple[float, ...] | None
    errors: tuple[float, ...] = ()
    rows: dict[str, tuple[int, ...]] | None = None
    scores: dict[str, tuple[tuple[float, ...], ...]] | None = None
