"""Log-likelihoods of continuations: contexts shared, lengths sorted, logits only where they are needed.

Everything but the forward passes is done once: a plan holds padded tensors and the places to read, and is run
for candidate after candidate.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

LOGIT_BYTES = 1 << 28
"""Most bytes of logits that are made at once."""


@dataclass(frozen=True)
class Request:
    """Tokens of a context and of the continuation to be scored; both hold at least one token."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass
class _Row:
    """One sequence: a context, continuations side by side after it, and what is read from it."""

    tokens: list[int]
    positions: list[int]
    branch: list[int]
    """Which continuation a token belongs to; -1 for the context, which all of them see."""
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    """Place in the row, the token predicted there, the request it belongs to."""

    @property
    def branches(self) -> int:
        return max(self.branch) + 1


@dataclass(frozen=True)
class _Batch:
    tokens: Tensor  # (rows, length)
    positions: Tensor | None  # (rows, length), None for plain rows
    mask: Tensor | None  # (rows, 1, length, length) additive, None for plain rows
    rows: Tensor  # (reads,)
    columns: Tensor  # (reads,)
    source: Tensor  # (targets,) which read each target looks at
    targets: Tensor  # (targets,) token predicted there
    owners: Tensor  # (targets,) request it belongs to


class LikelihoodPlan:
    """Forward passes that give the log-likelihood of every request, and whether it is what greedy decoding says.

    `share` lets continuations of one context stand in one row, each blind to the others.
    """

    def __init__(
        self, requests: Sequence[Request], model: PreTrainedModel, limit: int, budget: int, *, share: bool
    ) -> None:
        self.size = len(requests)
        rows = _shared_rows(requests, limit) if share else [_plain_row(r, i, limit) for i, r in enumerate(requests)]
        rows.sort(key=lambda row: (row.branches > 1, -len(row.tokens)))
        most_reads = max(1, LOGIT_BYTES // (4 * model.config.get_text_config().vocab_size))
        self.tokens = sum(len(row.tokens) for row in rows)
        self._batches = [_batch(group, model) for group in _groups(rows, budget, most_reads)]

    @torch.inference_mode()
    def run(self, model: PreTrainedModel) -> tuple[list[float], list[bool]]:
        """Log-likelihood in nats and greediness of each request, in the order they were given."""
        device = model.device
        totals = torch.zeros(self.size, dtype=torch.float32, device=device)
        wrong = torch.zeros(self.size, dtype=torch.float32, device=device)
        for batch in self._batches:
            with _read_only_at(model, batch.rows, batch.columns):
                out = model(
                    input_ids=batch.tokens, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
                )
            logits = out.logits[0].float()  # (reads, vocabulary)
            normaliser = torch.logsumexp(logits, -1)
            best = logits.argmax(-1)
            picked = logits[batch.source, batch.targets] - normaliser[batch.source]
            totals.index_add_(0, batch.owners, picked)
            wrong.index_add_(0, batch.owners, (best[batch.source] != batch.targets).float())
        return totals.tolist(), (wrong == 0).tolist()


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


def _plain_row(request: Request, owner: int, limit: int) -> _Row:
    """Context and continuation, cut from the left to what the model can take, as lm-eval cuts them."""
    tokens = [*request.context, *request.continuation][-(limit + 1) :][:-1]
    row = _Row(tokens, list(range(len(tokens))), [-1] * len(tokens))
    start = len(tokens) - len(request.continuation)
    row.reads = [(start + i, token, owner) for i, token in enumerate(request.continuation)]
    return row


def _shared_rows(requests: Sequence[Request], limit: int) -> list[_Row]:
    rows: dict[tuple[int, ...], _Row] = {}
    alone = []
    for owner, request in enumerate(requests):
        if len(request.context) + len(request.continuation) > limit + 1:
            alone.append(_plain_row(request, owner, limit))
            continue
        context = request.context
        row = rows.setdefault(context, _Row(list(context), list(range(len(context))), [-1] * len(context)))
        _add_branch(row, request, owner)
    return [*rows.values(), *alone]


def _add_branch(row: _Row, request: Request, owner: int) -> None:
    *inner, last = request.continuation
    start, branch = len(row.tokens), row.branches
    row.reads.append((len(request.context) - 1, request.continuation[0], owner))
    row.tokens += inner
    row.positions += range(len(request.context), len(request.context) + len(inner))
    row.branch += [branch] * len(inner)
    row.reads += [(start + i, token, owner) for i, token in enumerate((*inner[1:], last)) if inner]


def _groups(rows: Sequence[_Row], budget: int, most_reads: int) -> Iterator[list[_Row]]:
    """Rows of one kind and like length, as many as fit the token budget when padded, and the logits' memory."""
    group: list[_Row] = []
    for row in rows:
        if group and (
            len(group[0].tokens) * (len(group) + 1) > budget
            or (group[0].branches > 1) != (row.branches > 1)
            or sum(len(other.reads) for other in (*group, row)) > most_reads
        ):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _batch(rows: Sequence[_Row], model: PreTrainedModel) -> _Batch:
    length = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
    reads = sorted({(i, place) for i, row in enumerate(rows) for place, _, _ in row.reads})
    index = {read: n for n, read in enumerate(reads)}
    targets = [(index[i, place], token, owner) for i, row in enumerate(rows) for place, token, owner in row.reads]
    positions, mask = _branch_tensors(rows, length, model.dtype) if rows[0].branches > 1 else (None, None)
    columns = [torch.tensor(column) for column in (*zip(*reads, strict=True), *zip(*targets, strict=True))]
    read_rows, read_columns, source, token, owners = (column.to(model.device) for column in columns)
    return _Batch(
        tokens.to(model.device),
        None if positions is None else positions.to(model.device),
        None if mask is None else mask.to(model.device),
        read_rows,
        read_columns,
        source,
        token,
        owners,
    )


def _branch_tensors(rows: Sequence[_Row], length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    visible = torch.zeros(len(rows), 1, length, length, dtype=torch.bool)
    for i, row in enumerate(rows):
        size = len(row.tokens)
        positions[i, :size] = torch.tensor(row.positions)
        branch = torch.tensor(row.branch)
        shared = (branch[None, :] == -1) | (branch[None, :] == branch[:, None])
        visible[i, 0, :size, :size] = shared.tril()
        visible[i, 0, size:, 0] = True  # Padding looks at something, so that its softmax is a number.
    return positions, torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
