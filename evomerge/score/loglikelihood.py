"""Log-likelihoods of continuations: beginnings shared, lengths sorted, logits only where they are needed.

Everything but the forward passes is done once: a plan holds padded tensors and the places to read, and is run
for candidate after candidate.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.score.failure import refuse_nonfinite

LOGIT_BYTES = 1 << 28
"""Most bytes of logits that are made at once."""
MASK_BYTES = 1 << 28
"""Most bytes of attention masks of one forward pass."""

Forward: TypeAlias = Callable[[Hashable, Mapping[str, Any]], Any]
"""What the live model gives for inputs; they come with an identity, and are the same whenever that is the same."""
_BATCHES = count()


@dataclass(frozen=True)
class Request:
    """Tokens of a context and of the continuation to be scored; both hold at least one token."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class _Row:
    """A tree of tokens laid out in one row: sequences that begin alike share their beginning.

    A token sees its ancestors alone, and its position is its depth; for a single sequence that is plain causal
    attention. Sequences come in the order of their tokens, so that all that follow from a token lie right behind it.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.owners: list[int] = []
        self.depths: list[int] = []
        self.reads: list[tuple[int, int, int]] = []
        """Place in the row, the token predicted there, the request it belongs to."""
        self._children: dict[tuple[int, int], int] = {}

    @property
    def branches(self) -> bool:
        """Whether there is more than one sequence in it."""
        return any(parent != place - 1 for place, parent in enumerate(self.parents))

    def shared(self, tokens: Sequence[int]) -> int:
        """How many tokens at the beginning of a sequence are there already."""
        place = -1
        for depth, token in enumerate(tokens):
            found = self._children.get((place, token))
            if found is None:
                return depth
            place = found
        return len(tokens)

    def add(self, tokens: Sequence[int], continuation: Sequence[int], owner: int) -> None:
        """Take in a sequence and read, from its last places, what is predicted for the continuation."""
        path = []
        self.owners.append(owner)
        place = -1
        for depth, token in enumerate(tokens):
            found = self._children.get((place, token))
            if found is None:
                found = self._children[place, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(place)
                self.depths.append(depth)
            place = found
            path.append(place)
        places = path[len(path) - len(continuation) :]
        self.reads += [(place, token, owner) for place, token in zip(places, continuation, strict=True)]

    def ends(self) -> list[int]:
        """For each token the place behind the last one that follows from it."""
        found = list(range(1, len(self.tokens) + 1))
        for place in reversed(range(len(self.tokens))):
            parent = self.parents[place]
            if parent >= 0:
                found[parent] = max(found[parent], found[place])
        return found


@dataclass(frozen=True)
class _Batch:
    tokens: Tensor  # (rows, length)
    positions: Tensor | None  # (rows, length), None for plain rows
    ends: Tensor | None  # (rows, length) who sees whom, see `visible`; None for plain rows
    rows: Tensor  # (reads,)
    columns: Tensor  # (reads,)
    source: Tensor  # (targets,) which read each target looks at
    targets: Tensor  # (targets,) token predicted there
    owners: Tensor  # (targets,) request it belongs to; always in host memory
    filled: Tensor  # (rows, length) where there are tokens, and no padding
    identity: int = field(default_factory=_BATCHES.__next__)

    @property
    def requests(self) -> Tensor:
        """The request of each row (rows,), where each has a row of its own; in host memory."""
        found = torch.empty(len(self.tokens), dtype=torch.long)
        found[self.rows[self.source].cpu()] = self.owners
        return found

    def inputs(self, mask: Tensor | None) -> dict[str, Any]:
        """What the model is given."""
        given = {"input_ids": self.tokens, "attention_mask": mask, "position_ids": self.positions}
        return {**given, "use_cache": False}


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
        rows = _rows(requests, limit, config.hidden_size if share else 0)
        kinds = [(row.branches, row) for row in rows]
        kinds.sort(key=lambda pair: (pair[0], -len(pair[1].tokens)))
        most_reads = max(1, LOGIT_BYTES // (4 * config.vocab_size))
        self.tokens = sum(len(row.tokens) for row in rows)
        shared = min((row for kind, row in kinds if kind), key=lambda row: len(row.tokens), default=_Row())
        self.together: tuple[int, ...] = tuple(shared.owners)
        """Requests that share a row, the shortest; none if no row branches."""
        self._batches = [
            _batch(group, model, branching=branching)
            for branching in (False, True)
            for group in _groups([row for kind, row in kinds if kind == branching], budget, most_reads)
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


def _logits(batch: _Batch, model: PreTrainedModel, forward: Forward) -> Tensor:
    """What a pass predicts at the places that are read: (reads, vocabulary), in fp32."""
    mask = None if batch.ends is None else _mask(batch.ends, model.dtype)
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


def _rows(requests: Sequence[Request], limit: int, width: int) -> list[_Row]:
    """Requests in rows, those that begin alike together while a row stays short beside the model's `width`.

    Attention in a row of as many tokens as the model is wide costs a sixth of the rest; sharing must save more. What
    is too long for the model is cut from the left, as lm-eval cuts it.
    """
    rows: list[_Row] = []
    sequences = [[*r.context, *r.continuation][-(limit + 1) :][:-1] for r in requests]
    for owner in sorted(range(len(requests)), key=lambda i: sequences[i]):
        tokens = sequences[owner]
        if not rows or not _worth_sharing(rows[-1], tokens, width):
            rows.append(_Row())
        rows[-1].add(tokens, requests[owner].continuation, owner)
    return rows


def _worth_sharing(row: _Row, tokens: Sequence[int], width: int) -> bool:
    shared = row.shared(tokens)
    length = len(row.tokens) + len(tokens) - shared
    return shared * 6 >= len(tokens) and length <= max(width, min(4 * width, 3 * shared))


def _groups(rows: Sequence[_Row], budget: int, most_reads: int) -> Iterator[list[_Row]]:
    """Rows of like length, as many as fit the token budget when padded, and the memory for masks and logits."""
    group: list[_Row] = []
    reads = 0
    for row in rows:
        if group and (
            len(group[0].tokens) * (len(group) + 1) > budget
            or (row.branches and len(group[0].tokens) ** 2 * 4 * (len(group) + 1) > MASK_BYTES)
            or reads + len(row.reads) > most_reads
        ):
            yield group
            group, reads = [], 0
        group.append(row)
        reads += len(row.reads)
    if group:
        yield group


def _batch(rows: Sequence[_Row], model: PreTrainedModel, *, branching: bool) -> _Batch:
    length = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    filled = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        filled[i, : len(row.tokens)] = True
    reads = sorted({(i, place) for i, row in enumerate(rows) for place, _, _ in row.reads})
    index = {read: n for n, read in enumerate(reads)}
    targets = [(index[i, place], token, owner) for i, row in enumerate(rows) for place, token, owner in row.reads]
    positions, ends = _tree_tensors(rows, length) if branching else (None, None)
    columns = [torch.tensor(column) for column in (*zip(*reads, strict=True), *zip(*targets, strict=True))]
    read_rows, read_columns, source, token = (column.to(model.device) for column in columns[:4])
    return _Batch(
        tokens.to(model.device),
        None if positions is None else positions.to(model.device),
        None if ends is None else ends.to(model.device),
        read_rows,
        read_columns,
        source,
        token,
        columns[4],
        filled.to(model.device),
    )


def _tree_tensors(rows: Sequence[_Row], length: int) -> tuple[Tensor, Tensor]:
    """Positions and ends, both (rows, length); a token of padding is followed by none and sees itself."""
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    ends = torch.arange(1, length + 1, dtype=torch.int32).repeat(len(rows), 1)
    for i, row in enumerate(rows):
        positions[i, : len(row.tokens)] = torch.tensor(row.depths)
        ends[i, : len(row.tokens)] = torch.tensor(row.ends(), dtype=torch.int32)
    return positions, ends


def visible(ends: Tensor) -> Tensor:
    """Which tokens (last axis) each token (the axis before) sees: its ancestors and itself; (rows, length, length)."""
    places = torch.arange(ends.shape[1], dtype=torch.int32, device=ends.device)
    return (places[None, :] <= places[:, None]) & (places[None, :, None] < ends[:, None, :])


def _mask(ends: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive, (rows, 1, length, length). Made for each pass anew: kept, those of all passes would fill the memory."""
    nothing = torch.zeros((), dtype=dtype, device=ends.device)
    return torch.where(visible(ends), nothing, torch.finfo(dtype).min).unsqueeze(1)
