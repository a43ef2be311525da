"""Log-likelihoods of continuations: beginnings shared, lengths sorted, logits only where they are needed.

Everything but the forward passes is done once: a plan holds padded tensors and the places to read, and is run
for candidate after candidate.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.score.failure import refuse_nonfinite
from evomerge.score.rows import LOGIT_BYTES, Batch, Request, Row, batch_of, grouped, mask_of, rows_of

Forward: TypeAlias = Callable[[Hashable, Mapping[str, Any]], Any]
"""What the live model gives for inputs; they come with an identity, and are the same whenever that is the same."""


def plain(model: PreTrainedModel) -> Forward:
    """A plain call of the model."""
    return lambda _, inputs: model(**inputs)


class LikelihoodPlan:
    """Forward passes that give the log-likelihood of every request, and whether it is what greedy decoding says.

    `share` lets requests that begin alike stand in one row, each blind to the others.
    """

    def __init__(
        self, requests: Sequence[Request], model: PreTrainedModel, limit: int, budget: int, *, share: bool
    ) -> None:
        self.size = len(requests)
        self.budget = budget
        config = model.config.get_text_config()
        rows = rows_of(requests, limit, config.hidden_size if share else 0)
        kinds = [(row.branches, row) for row in rows]
        kinds.sort(key=lambda pair: (pair[0], -len(pair[1].tokens)))
        most_reads = max(1, LOGIT_BYTES // (4 * config.vocab_size))
        self.tokens = sum(len(row.tokens) for row in rows)
        shared = min((row for kind, row in kinds if kind), key=lambda row: len(row.tokens), default=Row())
        self.together: tuple[int, ...] = tuple(shared.owners)
        """Requests that share a row, the shortest; none if no row branches."""
        self._batches = [
            batch_of(group, model, branching=branching)
            for branching in (False, True)
            for group in grouped([row for kind, row in kinds if kind == branching], budget, most_reads)
        ]

    @property
    def passes(self) -> int:
        """How many forward passes it takes."""
        return len(self._batches)

    def run(self, model: PreTrainedModel, forward: Forward | None = None) -> tuple[list[float], list[bool]]:
        """Log-likelihood in nats and greediness of each request, in the order they were given.

        `forward` is how to have the model run, if not by a plain call.

        Raises:
            ScoreFailure: a log-likelihood is not finite.
        """
        picked, missed = self._passes(model, forward)
        return self._summed(picked), (self._added(missed) == 0).tolist()

    def by_token(
        self, model: PreTrainedModel, forward: Forward | None = None
    ) -> tuple[list[float], list[bool], list[tuple[float, ...]]]:
        """What `run` gives, and of the same passes the log-probability of each token of every continuation.

        Raises:
            ScoreFailure: a log-likelihood is not finite.
        """
        picked, missed = self._passes(model, forward)
        found: list[list[float]] = [[] for _ in range(self.size)]
        # Of a request all targets are in one row, in their order.
        for owner, value in zip(self._owners().tolist(), picked.tolist(), strict=True):
            found[owner].append(value)
        return self._summed(picked), (self._added(missed) == 0).tolist(), list(map(tuple, found))

    def differentiable(self, model: PreTrainedModel) -> Tensor:
        """Log-likelihood in nats of each request (requests,), in host memory, with a way back to the model's weights.

        What the passes computed is all kept for it.
        """
        parts = []
        for batch in self._batches:
            logits = _logits(batch, model, plain(model))
            parts.append(logits[batch.source, batch.targets] - torch.logsumexp(logits, -1)[batch.source])
        return self._added(torch.cat(parts).cpu())

    def back(self, model: PreTrainedModel, begin: Callable[[Tensor, int, Tensor], None]) -> Tensor:
        """Log-likelihood in nats of each request (requests,), in host memory; from each pass one goes back at once.

        Requests are to stand apart. Before each pass `begin` is told the request of each row (rows,), how long rows
        are, and the row of each prediction that is read (reads,).
        """
        parts = []
        for batch in self._batches:
            begin(batch.requests, batch.tokens.shape[1], batch.rows)
            with torch.enable_grad():
                logits = _logits(batch, model, plain(model))
                picked = logits[batch.source, batch.targets] - torch.logsumexp(logits, -1)[batch.source]
                if picked.requires_grad:
                    torch.autograd.backward(picked.sum())
            parts.append(picked.detach().cpu())
        return self._added(torch.cat(parts))

    @torch.no_grad()
    def read(self, model: PreTrainedModel, begin: Callable[[Tensor], None]) -> None:
        """Let the model read all requests; before each pass `begin` is told where tokens are (rows, length)."""
        for batch in self._batches:
            begin(batch.filled)
            _logits(batch, model, plain(model))

    @torch.inference_mode()
    def _passes(self, model: PreTrainedModel, forward: Forward | None) -> tuple[Tensor, Tensor]:
        """Log-probability of every target (targets,), and whether another token was likelier, in host memory."""
        picked, missed = [], []
        for batch in self._batches:
            logits = _logits(batch, model, forward or plain(model))
            normaliser = torch.logsumexp(logits, -1)
            best = logits.argmax(-1)
            picked.append(logits[batch.source, batch.targets] - normaliser[batch.source])
            missed.append((best[batch.source] != batch.targets).float())
        return torch.cat(picked).cpu(), torch.cat(missed).cpu()

    def _owners(self) -> Tensor:
        """The request that each target belongs to (targets,)."""
        return torch.cat([batch.owners for batch in self._batches])

    def _added(self, values: Tensor) -> Tensor:
        """Sums over the targets of each request (requests,).

        Added up in host memory, one by one: on a GPU the order of additions is another each time.
        """
        return torch.zeros(self.size).index_add(0, self._owners(), values)

    def _summed(self, picked: Tensor) -> list[float]:
        totals = self._added(picked)
        refuse_nonfinite(totals, "log-likelihoods")
        found: list[float] = totals.tolist()
        return found


def _logits(batch: Batch, model: PreTrainedModel, forward: Forward) -> Tensor:
    """What a pass predicts at the places that are read: (reads, vocabulary), in fp32."""
    mask = None if batch.ends is None else mask_of(batch.ends, model.dtype)
    with _read_only_at(model, batch.rows, batch.columns):
        out = forward(batch.identity, batch.inputs(mask))
    logits: Tensor = out.logits[0].float()
    return logits


@contextmanager
def _read_only_at(model: PreTrainedModel, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Let the output head see only the hidden states that are read: its own scaling and capping stay in force."""

    def select(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows, columns].unsqueeze(0), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
