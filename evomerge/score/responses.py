"""Answers of a live model to lm-eval requests: natively where we can, through lm-eval's own HFLM where not."""

from collections.abc import Callable, Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import postprocess_generated_text
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.errors import SpecError
from evomerge.score.budget import TokenBudget
from evomerge.score.encoding import Encoder
from evomerge.score.failure import ScoreFailure, refuse_nonfinite
from evomerge.score.generation import GreedyDecoder, Prompt
from evomerge.score.loglikelihood import Forward, LikelihoodPlan
from evomerge.score.probe import agree, likelihoods_by_lm_eval, why_not_decoding, why_not_likelihoods
from evomerge.score.rows import Request
from evomerge.score.settings import odd_arguments, odd_config
from evomerge.score.slow import SlowGenerator
from evomerge.score.tasks import silent


class Responder:
    """Puts requests to a live model.

    `forward` is how log-likelihoods have it run, if not by a plain call. `notes` says in plain words what goes the slow
    way, and why. What both ways cannot do is refused when requests are prepared.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, forward: Forward | None = None, seed: int = 0
    ) -> None:
        """`seed` is the run's, for what is sampled."""
        self.model = model
        self.forward = forward
        with silent():
            self.lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
        self.notes: set[str] = set()
        self.budget = TokenBudget(model)
        self.slow = SlowGenerator(self.lm, seed)
        self.encoder = Encoder(self.lm, model.get_input_embeddings().num_embeddings)
        self._decoder = GreedyDecoder(model, tokenizer)
        self._takes_masks: bool | None = None
        self._native_likelihoods: bool | None = None
        self._native_decoding: bool | None = None

    def likelihood_plan(
        self, requests: Sequence[Request], most: int | None = None, *, apart: bool = False
    ) -> LikelihoodPlan | None:
        """A plan over requests, with shared beginnings if this model class takes them rightly, unless wanted `apart`.

        Passes take `most` tokens; left out: what is usual.

        None if it has no passes of ours that give lm-eval's numbers, see `likelihoods`.

        Raises:
            ScoreFailure: the model, as it is now, computes no finite numbers.
        """
        if not self._has_likelihoods(requests):
            return None
        share = not apart and self._takes_masks is not False and self._fits_window(requests)
        plan = self._plan(requests, most, share=share)
        if plan.together and self._takes_masks is None:
            self._takes_masks = self._probe_sharing([requests[i] for i in plan.together])
        return self._plan(requests, most, share=False) if plan.together and not self._takes_masks else plan

    def _plan(self, requests: Sequence[Request], most: int | None = None, *, share: bool) -> LikelihoodPlan:
        return LikelihoodPlan(requests, self.model, self.lm.max_length, most or self.budget.tokens, share=share)

    def likelihoods(self, requests: Sequence[Request]) -> tuple[list[float], list[bool]]:
        """What a plan gives, from lm-eval's own passes.

        Raises:
            ScoreFailure: a log-likelihood is not finite.
        """
        found = likelihoods_by_lm_eval(requests, self.lm)
        refuse_nonfinite(torch.tensor([value for value, _ in found]), "log-likelihoods")
        return [value for value, _ in found], [greedy for _, greedy in found]

    def decode(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy continuations, cut at their stop strings as lm-eval cuts them."""
        texts = self._decoded(prompts)
        return [postprocess_generated_text(t, list(p.stops), None) for t, p in zip(texts, prompts, strict=True)]

    def _decoded(self, prompts: Sequence[Prompt]) -> list[str]:
        while True:
            tried = self.budget.tokens
            try:
                return self._decoder.run(prompts, tried)
            except torch.OutOfMemoryError:
                if not self.budget.shrink(tried):
                    raise

    def decodes(self, instances: Sequence[Instance], prompts: Sequence[Prompt]) -> bool:
        """Whether these requests are plain greedy decoding and this model class is one that we decode rightly.

        Raises:
            SpecError: lm-eval cannot answer them either.
            ScoreFailure: the model, as it is now, computes no finite numbers.
        """
        odd = odd_config(self.model.generation_config)
        odd = odd.union(*(odd_arguments(instance.args[1]) for instance in instances))
        if odd:
            self.notes.add(
                f"generation goes through lm-eval's HFLM, which is slower, because of {', '.join(sorted(odd))}"
            )
        native = not odd and self._has_decoding(prompts)
        if not native:
            self.slow.check(instances)
        return native

    def _has_likelihoods(self, requests: Sequence[Request]) -> bool:
        if self._native_likelihoods is None:
            lengths = {len(one.context) + len(one.continuation): one for one in requests}
            few = [lengths[length] for length in sorted(lengths)[:2]]
            reason = self._asking(lambda: why_not_likelihoods(few, self._plan(few, share=False), self.model, self.lm))
            self._native_likelihoods = not reason
            self._say("log-likelihoods go", reason)
        return self._native_likelihoods

    def _has_decoding(self, prompts: Sequence[Prompt]) -> bool:
        if self._native_decoding is None:
            order = sorted(prompts, key=lambda prompt: len(prompt.tokens))
            reason = self._asking(lambda: why_not_decoding([order[0], order[-1]], self._decoder, self.model))
            self._native_decoding = not reason
            self._say("generation goes", reason)
        return self._native_decoding

    def _say(self, what: str, reason: str) -> None:
        if reason:
            name = type(self.model).__name__
            self.notes.add(f"{what} through lm-eval's HFLM, which is slower: {name} run our way: {reason}")

    def _asking(self, ask: Callable[[], str]) -> str:
        """What a probe says; where lm-eval's own way fails nothing is left to fall back on.

        Raises:
            SpecError: it does.
        """
        try:
            return ask()
        except (ScoreFailure, torch.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001  A model class may raise anything.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            name = type(self.model).__name__
            raise SpecError(f"fitness: {name} cannot be put to tasks, by lm-eval neither ({reason})") from None

    def _fits_window(self, requests: Sequence[Request]) -> bool:
        """Whether attention reaches from the end of all of these to their beginning, as our masks let it."""
        config = self.model.config.get_text_config()
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        reach = min((window for window in windows if window), default=None)
        longest = min(max(len(r.context) + len(r.continuation) for r in requests), self.lm.max_length)
        if reach is None or longest <= reach:
            return True
        self.notes.add("prompts that begin alike are not shared: some are longer than the attention window")
        return False

    def _probe_sharing(self, requests: Sequence[Request]) -> bool:
        """Score a few requests with beginnings shared and one by one; a class that ignores our masks is found out."""
        alone, _ = self._plan(requests, share=False).run(self.model)
        try:
            same = agree(self._plan(requests, share=True).run(self.model)[0], alone, self.model)
        except (ScoreFailure, torch.OutOfMemoryError):
            raise
        except Exception:  # noqa: BLE001  A class that cannot take our masks may raise anything at them.
            same = False
        if not same:
            name = type(self.model).__name__
            self.notes.add(f"prompts that begin alike are not shared: {name} does not take our masks")
        return same
