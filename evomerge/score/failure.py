"""What makes a candidate one that cannot be scored."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.errors import EvomergeError


class ScoreFailure(Exception):
    """A candidate that cannot be scored: its logits are not finite, or a metric chokes on its answers."""


class GradeFailure(ScoreFailure):
    """A task's own code that cannot grade a model's answers."""


@contextmanager
def grading(what: str) -> Iterator[None]:
    """Grade answers with a task's own code, which may raise anything, and may want to end the process.

    Raises:
        GradeFailure: it did.
    """
    try:
        yield
    except (ScoreFailure, EvomergeError, ImportError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise GradeFailure(f"{what} cannot be graded ({reason[:300]}); mend the task") from error


def finite(mark: float, metric: str, item: str, task: str) -> float:
    """The mark, if it is a number.

    Raises:
        GradeFailure: it is NaN or infinite.
    """
    if not math.isfinite(mark):
        raise GradeFailure(f"{metric} of item {item} of {task} is {mark}, which is no mark")
    return mark


def refuse_nonfinite(values: Tensor, what: str) -> None:
    """Stop at NaN and infinity: an arg-max of NaNs is a choice like any other, and earns marks.

    Raises:
        ScoreFailure: a value is not finite.
    """
    if not bool(torch.isfinite(values).all()):
        raise ScoreFailure(f"some {what} are NaN or infinite: the merged model computes no finite numbers")


@contextmanager
def finite_logits(model: PreTrainedModel) -> Iterator[None]:
    """Refuse what comes out of the block if the model predicted anything with logits that are not finite.

    Raises:
        ScoreFailure: it did.
    """
    largest: list[Tensor] = []

    def note(_: torch.nn.Module, __: object, logits: Tensor) -> None:
        largest.append(logits[:, -1].max(-1).values.float())

    handle = model.get_output_embeddings().register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()
    if largest:
        refuse_nonfinite(torch.cat(largest), "logits")
