"""Answers through lm-eval's own HFLM over the live model, one at a time: exactly what `simple_evaluate` does."""

import hashlib
from collections.abc import Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evomerge.errors import SpecError
from evomerge.score.failure import ScoreFailure, finite_logits
from evomerge.score.settings import samples
from evomerge.score.tasks import silent


class SlowGenerator:
    """Generates with whatever settings transformers knows.

    What is sampled is sampled by a generator of its own for each run seed, request and repetition, so that it does
    not depend on what was asked before, or beside, or in which process; all candidates get the same numbers.
    """

    def __init__(self, lm: HFLM, seed: int) -> None:
        """`lm` answers one request at a time: with several, what follows a stop depends on the others."""
        self._lm = lm
        self._seed = seed

    def check(self, instances: Sequence[Instance]) -> None:
        """Try one request of each kind of settings.

        Raises:
            SpecError: lm-eval cannot answer it.
            ScoreFailure: the model computes no finite numbers.
        """
        for first in {repr(one.args[1]): one for one in instances[::-1]}.values():
            try:
                self._answer(first, 0)
            except (ScoreFailure, torch.OutOfMemoryError):
                raise
            except Exception as error:  # noqa: BLE001  Settings go to transformers, which may raise anything at them.
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise SpecError(
                    f"fitness: task {first.task_name!r}: its generation settings cannot be used ({reason})"
                ) from None

    def answer(self, instances: Sequence[Instance]) -> None:
        """Fill the `resps` of requests with their answers, as many as they have repeats.

        Raises:
            ScoreFailure: the model's logits are not finite.
        """
        for instance in instances:
            repeats = instance.repeats or 1
            if samples(instance.args[1]):
                instance.resps = [self._answer(instance, turn) for turn in range(repeats)]
            else:
                instance.resps = [self._answer(instance, 0)] * repeats

    def _answer(self, instance: Instance, turn: int) -> str:
        devices = [self._lm.device] if self._lm.device.type == "cuda" else []
        with silent(), finite_logits(self._lm.model), torch.random.fork_rng(devices):
            torch.manual_seed(sampling_seed(self._seed, instance, turn))
            return str(self._lm.generate_until([instance], disable_tqdm=True)[0])


def sampling_seed(seed: int, instance: Instance, turn: int) -> int:
    """The seed of one answer: a hash of the run's seed, of which request it answers, and of which repetition it is."""
    named = f"{seed}/{instance.task_name}/{instance.doc_id}/{instance.idx}/{turn}"
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:6])
