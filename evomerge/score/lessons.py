"""What a live model has to learn from items: how far its answers are from right ones, and the way back from there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.errors import SpecError
from evomerge.items import TEXT, ItemTable
from evomerge.score.budget import TokenBudget
from evomerge.score.failure import refuse_nonfinite
from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.prose import Prose
from evomerge.score.responses import Responder
from evomerge.score.rows import Request
from evomerge.trial import Draw, Lesson, Scores

ByItem: TypeAlias = tuple[Scores, dict[str, Tensor]]
"""Items' scores by task, and how they change with a few numbers (scores, numbers), item after item."""
LOGIT_BYTES = 12
"""Memory that a logit takes until gradients have come back, in fp32: its own gradient, and what is made of it."""

PADDED = 2
"""How many times a batch's tokens its pass may take when rows are padded to one length."""

WORTH_SHARING = 1.25
"""Times as many tokens that a batch takes if no beginnings are shared, from which on they are shared in any case."""


@dataclass(frozen=True)
class Exercise:
    """What is to be learned from an item, the `place`-th drawn one of its task.

    `wanted` are probabilities of its options (options,); None where it has no options, but requests that make up the
    right answer.
    """

    task: str
    place: int
    requests: tuple[Request, ...]
    wanted: Tensor | None
    summed: bool
    """Whether several right options count together; else each of the wanted ones is aimed at by itself."""

    @property
    def tokens(self) -> int:
        """Tokens that are put to a model, where equal contexts are put to it once."""
        contexts = {request.context for request in self.requests}
        return sum(map(len, contexts)) + sum(len(request.continuation) for request in self.requests)

    @property
    def reads(self) -> int:
        """Predictions that are looked at."""
        return sum(len(request.continuation) for request in self.requests)

    def unanswered(self) -> Request:
        """One of the options, in turn from item to item; or a reference answer's context, of which all is read."""
        if self.wanted is None:
            context = self.requests[0].context
            return Request(context, context[-1:])
        return self.requests[self.place % len(self.requests)]

    def loss(self, scores: Tensor, lesson: Lesson) -> Tensor:
        """The loss, from the log-likelihoods of the requests (requests,); of text it is always per token, in nats."""
        if self.task == TEXT:
            return -scores.sum() / self.reads
        match lesson.loss:
            case "nll":
                return -self._log_probability(scores)
            case "error":
                return 1.0 - self._probability(scores / lesson.temperature)
            case _:
                assert_never(lesson.loss)

    def _log_probability(self, scores: Tensor) -> Tensor:
        """Of what is wanted: that the right one is chosen, or on average over the targets."""
        if self.wanted is None:
            return scores.sum()
        logs = scores.log_softmax(-1)
        return torch.logsumexp(logs[self.wanted > 0], -1) if self.summed else (self.wanted * logs).sum()

    def _probability(self, scores: Tensor) -> Tensor:
        return scores.sum().exp() if self.wanted is None else (self.wanted * scores.softmax(-1)).sum()


class Lessons:
    """Losses of items, of whatever the live model is at the moment.

    `requests` says what the scores of an item, by task and id, are log-likelihoods of. Pieces of `prose` are
    items, too.
    """

    def __init__(
        self,
        table: ItemTable,
        requests: Callable[[str, str], tuple[Request, ...]],
        responder: Responder,
        prose: Prose | None = None,
    ) -> None:
        self._table = table
        self._prose = prose
        self._requests = requests
        self._responder = responder
        self._budget = TokenBudget(responder.model, back=True)

    def losses(self, draw: Draw, lesson: Lesson) -> dict[str, tuple[float, ...]]:
        """Each drawn item's loss, by task.

        Where the lesson has a grain, gradients of the weighted sum of losses go back to all weights that ask for them,
        batch by batch.

        Raises:
            SpecError: a task gives no scores, or this model class no log-likelihoods by passes of ours.
            ScoreFailure: a loss is not finite.
        """
        exercises = self._exercises(draw, lesson)
        found = {task: [0.0] * len(ids) for task, ids in self._table.drawn(draw.pool, draw.places).items()}
        for batch in self._batches(exercises):
            with torch.set_grad_enabled(lesson.grain is not None):
                losses = self._losses(batch, lesson)
                refuse_nonfinite(losses.detach(), "losses")
                weights = torch.tensor([lesson.weights.get(exercise.task, 0.0) for exercise in batch])
                if losses.requires_grad and bool(weights.any()):
                    torch.autograd.backward((losses * weights).sum())
            for exercise, loss in zip(batch, losses.tolist(), strict=True):
                found[exercise.task][exercise.place] = loss
        return {task: tuple(row) for task, row in found.items()}

    def scored(self, draw: Draw, way: Callable[[Sequence[Request]], tuple[Tensor, Tensor]]) -> ByItem:
        """The drawn items' scores, and how they change, by task.

        `way` gives log-likelihoods of requests (requests,), and their derivatives (requests, numbers).

        Raises:
            SpecError: a task gives no scores.
            ScoreFailure: some are not finite.
        """
        exercises = self._exercises(draw, Lesson(weights={}))
        scores, slopes = way([request for exercise in exercises for request in exercise.requests])
        refuse_nonfinite(scores, "log-likelihoods")
        refuse_nonfinite(slopes, "slopes")
        sizes = [len(exercise.requests) for exercise in exercises]
        rows: dict[str, list[tuple[float, ...]]] = {exercise.task: [] for exercise in exercises}
        parts: dict[str, list[Tensor]] = {exercise.task: [] for exercise in exercises}
        for exercise, row, its in zip(exercises, torch.split(scores, sizes), torch.split(slopes, sizes), strict=True):
            whole = exercise.wanted is None  # An answer counts as a whole.
            rows[exercise.task].append(tuple((row.sum(0, keepdim=True) if whole else row).tolist()))
            parts[exercise.task].append(its.sum(0, keepdim=True) if whole else its)
        return {task: tuple(each) for task, each in rows.items()}, {t: torch.cat(each) for t, each in parts.items()}

    def apart(self, requests: Sequence[Request]) -> LikelihoodPlan:
        """Passes over requests, each in a row of its own.

        Raises:
            SpecError: this model class gives no log-likelihoods by passes of ours.
        """
        return self._passes(requests, self._budget.tokens, apart=True)

    @property
    def model(self) -> PreTrainedModel:
        """The live model."""
        return self._responder.model

    def read(self, places: Mapping[str, Sequence[int]], begin: Callable[[Tensor], None]) -> int:
        """Let the model read search items of tasks, each with one of its options in turn, or without an answer.

        So nothing shows which answers are right; and every item is read by itself, whatever others begin like it.
        Before each pass `begin` is told where tokens are (rows, length); returns how many items there are.

        Raises:
            SpecError: a task gives no scores, or this model class no log-likelihoods by passes of ours.
        """
        draw = Draw(pool="search", places={task: tuple(each) for task, each in places.items()})
        exercises = self._exercises(draw, Lesson(weights={}), list(places))
        self._passes([exercise.unanswered() for exercise in exercises], apart=True).read(self._responder.model, begin)
        return len(exercises)

    def shrink(self) -> bool:
        """Take smaller batches from now on, if there is any sense in it: memory was too small for them."""
        return self._budget.shrink(self._budget.tokens)

    def _exercises(self, draw: Draw, lesson: Lesson, tasks: Sequence[str] | None = None) -> list[Exercise]:
        """What is drawn, of all tasks or of these."""
        found: list[Exercise] = []
        drawn = self._table.drawn(draw.pool, draw.places)
        if self._prose is not None:
            asked = enumerate(self._prose.requests(draw))
            found = [Exercise(TEXT, place, (request,), None, summed=False) for place, request in asked]
        for task in drawn if tasks is None else tasks:
            if task == TEXT:
                continue
            ids = drawn[task]
            pool = self._table.tasks[task].pool(draw.pool)
            if not pool.golds:
                raise SpecError(f"fitness: task {task!r} gives no scores to learn from; choose another optimizer")
            golds = dict(zip(pool.ids, pool.golds, strict=True))
            targets = (lesson.targets or {}).get(task)
            for place, key in enumerate(ids):
                requests, right = self._requests(task, key), golds[key]
                soft = targets[place] if targets is not None and right else None
                wanted = _wanted(right, len(requests), soft) if right else None
                found.append(Exercise(task, place, requests, wanted, summed=soft is None))
        return found

    def _batches(self, exercises: Sequence[Exercise]) -> Iterator[list[Exercise]]:
        """Exercises that are alike, as many as activations and logits of one batch leave memory for."""
        vocabulary = self._responder.model.config.get_text_config().vocab_size
        read = LOGIT_BYTES * vocabulary / self._budget.token_bytes
        batch: list[Exercise] = []
        taken = 0.0
        for exercise in sorted(exercises, key=lambda each: (len(each.requests) > 1, each.tokens)):
            cost = exercise.tokens + exercise.reads * read
            if batch and taken + cost > self._budget.tokens:
                yield batch
                batch, taken = [], 0.0
            batch.append(exercise)
            taken += cost
        if batch:
            yield batch

    def _losses(self, batch: Sequence[Exercise], lesson: Lesson) -> Tensor:
        """The losses of a batch (exercises,)."""
        plan = self._plan([request for exercise in batch for request in exercise.requests])
        sizes = [len(exercise.requests) for exercise in batch]
        scores = torch.split(plan.differentiable(self._responder.model), sizes)
        return torch.stack([exercise.loss(row, lesson) for exercise, row in zip(batch, scores, strict=True)])

    def _plan(self, requests: Sequence[Request]) -> LikelihoodPlan:
        """One pass, if it can be: of several, the gradients of all weights would be there at once."""
        most = PADDED * self._budget.tokens
        plan = self._passes(requests, most)
        whole = sum(len(request.context) + len(request.continuation) - 1 for request in requests)
        if plan.passes > 1 and whole <= WORTH_SHARING * plan.tokens:
            return self._passes(requests, most, apart=True)
        return plan

    def _passes(self, requests: Sequence[Request], most: int | None = None, *, apart: bool = False) -> LikelihoodPlan:
        """Passes of `most` tokens over requests, with shared beginnings unless they are wanted `apart`.

        Raises:
            SpecError: this model class gives no log-likelihoods by passes of ours.
        """
        plan = self._responder.likelihood_plan(requests, most, apart=apart)
        if plan is not None:
            return plan
        name = type(self._responder.model).__name__
        raise SpecError(
            f"optimizer: {name} gives no log-likelihoods by passes of ours, through which alone gradients go back;"
            " choose optimizer: surrogate"
        )


def _wanted(right: tuple[int, ...], options: int, soft: tuple[float, ...] | None) -> Tensor:
    """How much each option is wanted (options,)."""
    if soft is not None:
        return torch.tensor(soft)
    wanted = torch.zeros(options)
    wanted[list(right)] = 1.0
    return wanted
