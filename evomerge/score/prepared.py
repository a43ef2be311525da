"""Requests planned once, and put to candidate after candidate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.api.instance import Instance

from evomerge.score.encoding import Encoded
from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.responses import Responder
from evomerge.score.rows import Request


class Passes:
    """Requests planned once; where memory is too small for the plan, planned anew with smaller passes from then on."""

    def __init__(self, responder: Responder, requests: Sequence[Request]) -> None:
        self._responder = responder
        self._requests = requests
        self._plan = responder.likelihood_plan(requests) if requests else None

    def run(self) -> tuple[list[float], list[bool]]:
        """Log-likelihood in nats and greediness of each request.

        Raises:
            ScoreFailure: a log-likelihood is not finite.
        """
        while (plan := self._plan) is not None:
            with self._shrinking(plan):
                return plan.run(self._responder.model, self._responder.forward)
        return self._responder.likelihoods(self._requests) if self._requests else ([], [])

    def by_token(self) -> tuple[list[float], list[bool], list[tuple[float, ...]]]:
        """The same, and the log-probability of each token of every continuation.

        Where lm-eval's own passes stand in for ours, which say no more, that of all tokens together.

        Raises:
            ScoreFailure: a log-likelihood is not finite.
        """
        while (plan := self._plan) is not None:
            with self._shrinking(plan):
                return plan.by_token(self._responder.model, self._responder.forward)
        totals, greedy = self.run()
        return totals, greedy, [(total,) for total in totals]

    @contextmanager
    def _shrinking(self, plan: LikelihoodPlan) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            if not self._responder.budget.shrink(plan.budget):
                raise
            self._plan = self._responder.likelihood_plan(self._requests)


class Prepared:
    """Requests planned once, ready to be put to candidate after candidate.

    `references` are answers to be scored beside those that are generated, where scores are wanted.
    """

    def __init__(
        self,
        responder: Responder,
        instances: Sequence[Instance],
        encoded: Sequence[Encoded],
        references: Sequence[Request] = (),
    ) -> None:
        self._responder = responder
        self._scored = [(i, e.requests) for i, e in zip(instances, encoded, strict=True) if e.prompt is None]
        self._generated = [i for i, e in zip(instances, encoded, strict=True) if e.prompt is not None]
        self._prompts = [e.prompt for e in encoded if e.prompt is not None]
        self._passes = Passes(responder, [request for _, requests in self._scored for request in requests])
        self._native = bool(self._generated) and responder.decodes(self._generated, self._prompts)
        self._references = references
        self._reference_passes: Passes | None = None

    def answer(self) -> None:
        """Fill every request's `resps` with what the model, as it is now, says.

        Raises:
            ScoreFailure: it computes no finite numbers.
        """
        self._fill(*self._passes.run())

    def answer_by_token(self) -> list[tuple[float, ...]]:
        """Do the same, and give of every request that asks for a likelihood the tokens' log-probabilities.

        They are in the order of requests, those of the references at the end.

        Raises:
            ScoreFailure: the model computes no finite numbers.
        """
        totals, greedy, tokens = self._passes.by_token()
        self._fill(totals, greedy)
        return tokens + self._of_references()

    def _of_references(self) -> list[tuple[float, ...]]:
        if not self._references:
            return []
        if self._reference_passes is None:  # Of their own, so that marks are the same whether or not they are wanted.
            self._reference_passes = Passes(self._responder, self._references)
        return self._reference_passes.by_token()[2]

    def _fill(self, totals: Sequence[float], greedy: Sequence[bool]) -> None:
        for instance in (*(instance for instance, _ in self._scored), *self._generated):
            instance.resps, instance.filtered_resps = [], {}
        self._fill_likelihoods(totals, greedy)
        if not self._native:
            self._responder.slow.answer(self._generated)
            return
        texts = self._responder.decode(self._prompts)
        for instance, text in zip(self._generated, texts, strict=True):
            instance.resps = [text] * (instance.repeats or 1)

    def _fill_likelihoods(self, totals: Sequence[float], greedy: Sequence[bool]) -> None:
        start = 0
        for instance, requests in self._scored:
            here = slice(start, start + len(requests))
            rolling = instance.request_type == "loglikelihood_rolling"
            answer: Any = sum(totals[here]) if rolling else (totals[start], greedy[start])
            instance.resps = [answer] * (instance.repeats or 1)
            start += len(requests)
