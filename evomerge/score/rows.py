"""Requests packed into rows of tokens, beginnings shared, and rows of like length into batches of tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

LOGIT_BYTES = 1 << 28
"""Most bytes of logits that are made at once."""
MASK_BYTES = 1 << 28
"""Most bytes of attention masks of one forward pass."""
_BATCHES = count()


@dataclass(frozen=True)
class Request:
    """Tokens of a context and of the continuation to be scored; both hold at least one token."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Row:
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
class Batch:
    """One forward pass: what goes in, and the places to read."""

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


def rows_of(requests: Sequence[Request], limit: int, width: int) -> list[Row]:
    """Requests in rows, those that begin alike together while a row stays short beside the model's `width`.

    Attention in a row of as many tokens as the model is wide costs a sixth of the rest; sharing must save more. What
    is too long for the model is cut from the left, as lm-eval cuts it.
    """
    rows: list[Row] = []
    sequences = [[*r.context, *r.continuation][-(limit + 1) :][:-1] for r in requests]
    for owner in sorted(range(len(requests)), key=lambda i: sequences[i]):
        tokens = sequences[owner]
        if not rows or not _worth_sharing(rows[-1], tokens, width):
            rows.append(Row())
        rows[-1].add(tokens, requests[owner].continuation, owner)
    return rows


def _worth_sharing(row: Row, tokens: Sequence[int], width: int) -> bool:
    shared = row.shared(tokens)
    length = len(row.tokens) + len(tokens) - shared
    return shared * 6 >= len(tokens) and length <= max(width, min(4 * width, 3 * shared))


def grouped(rows: Sequence[Row], budget: int, most_reads: int) -> Iterator[list[Row]]:
    """Rows of like length, as many as fit the token budget when padded, and the memory for masks and logits."""
    group: list[Row] = []
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


def batch_of(rows: Sequence[Row], model: PreTrainedModel, *, branching: bool) -> Batch:
    """Rows as tensors where the model is; `branching` says whether they are trees."""
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
    return Batch(
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


def _tree_tensors(rows: Sequence[Row], length: int) -> tuple[Tensor, Tensor]:
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


def mask_of(ends: Tensor, dtype: torch.dtype) -> Tensor:
    """Who sees whom as what is added to attention: (rows, 1, length, length).

    Made for each pass anew: kept, those of all passes would fill the memory.
    """
    nothing = torch.zeros((), dtype=dtype, device=ends.device)
    return torch.where(visible(ends), nothing, torch.finfo(dtype).min).unsqueeze(1)
