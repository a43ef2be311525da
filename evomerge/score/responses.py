"""Answers of a live model to lm-eval requests: natively where we can, through lm-eval's own HFLM where not."""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.score.budget import TokenBudget
from evomerge.score.failure import finite_logits
from evomerge.score.generation import GreedyDecoder, Prompt
from evomerge.score.loglikelihood import Forward, LikelihoodPlan, Request
from evomerge.score.tasks import silent

GREEDY_KEYS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
NEUTRAL = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "num_beams": 1,
    "min_length": 0,
    "bad_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
"""Settings of a generation config under which greedy decoding is nothing but the largest logit."""
PROBE_TOLERANCE = 1e-3
COARSE = 0.01
"""How far, relative to one plus its size, a log-likelihood may be off with shared beginnings; in 16 bits, on average.

In bf16 ten families were off by 0.001 at most; with the masks ignored, the demo's models by 0.016 to 0.17."""


class Responder:
    """Puts requests to a live model.

    `forward` is how log-likelihoods have it run, if not by a plain call. `notes` says in plain words what goes the slow
    way, and why.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, forward: Forward | None = None
    ) -> None:
        self.model = model
        self.forward = forward
        with silent():
            self.lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16)
        self.notes: set[str] = set()
        self.budget = TokenBudget(model)
        self._decoder = GreedyDecoder(model, tokenizer)
        self._takes_masks: bool | None = None
        self._eos = self.lm.tok_decode(self.lm.eot_token_id, skip_special_tokens=False)

    def likelihood_plan(self, requests: Sequence[Request]) -> LikelihoodPlan:
        """A plan over requests, with shared beginnings if this model class takes them rightly."""
        plan = self._plan(requests, share=self._takes_masks is not False and self._fits_window(requests))
        if plan.together and self._takes_masks is None:
            self._takes_masks = self._probe([requests[i] for i in plan.together])
        return self._plan(requests, share=False) if plan.together and not self._takes_masks else plan

    def _plan(self, requests: Sequence[Request], *, share: bool) -> LikelihoodPlan:
        return LikelihoodPlan(requests, self.model, self.lm.max_length, self.budget.tokens, share=share)

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

    def generate_slowly(self, instances: Sequence[Instance]) -> None:
        """Answer through lm-eval's HFLM what is not plain greedy decoding."""
        repeated = [instance for instance in instances for _ in range(instance.repeats or 1)]
        with finite_logits(self.model):
            every = iter(self.lm.generate_until(repeated, disable_tqdm=True))
        for instance in instances:
            instance.resps = [next(every) for _ in range(instance.repeats or 1)]

    def prompts(self, instances: Sequence[Instance]) -> list[Prompt]:
        """What the decoder needs of `generate_until` requests."""
        found = []
        for instance in instances:
            text, arguments = instance.args
            settings = normalize_gen_kwargs(dict(arguments), self.lm.max_gen_toks)
            stops = handle_stop_sequences(settings.get("until"), eos=self._eos)
            room = self.lm.max_length - settings["max_gen_toks"]
            tokens, _ = self.lm.tok_batch_encode([text], left_truncate_len=room, truncation=self.lm.truncation)
            found.append(
                Prompt(tuple(tokens[0].tolist()), settings["max_gen_toks"], tuple(stop for stop in stops if stop))
            )
        return found

    def greedy(self, instances: Sequence[Instance]) -> bool:
        """Whether all these requests are plain greedy decoding, which is done natively."""
        config = self.model.generation_config
        odd = [key for key, value in NEUTRAL.items() if (getattr(config, key, None) or value) != value]
        for instance in instances:
            arguments = instance.args[1]
            sampled = arguments.get("do_sample") or float(arguments.get("temperature") or 0) > 0
            odd += ["sampling"] if sampled else []
            odd += [key for key in normalize_gen_kwargs(dict(arguments), 1) if key not in GREEDY_KEYS]
        if odd:
            self.notes.add(
                f"generation goes through lm-eval's HFLM, which is slower, because of {', '.join(sorted(set(odd)))}"
            )
        return not odd

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

    def _probe(self, requests: Sequence[Request]) -> bool:
        """Score a few requests with beginnings shared and one by one; a class that ignores our masks is found out."""
        together, alone = (torch.tensor(self._plan(requests, share=s).run(self.model)[0]) for s in (True, False))
        off = (together - alone).abs() / (1 + alone.abs())
        same = float(off.max()) <= PROBE_TOLERANCE if self.model.dtype == torch.float32 else float(off.mean()) <= COARSE
        if not same:
            name = type(self.model).__name__
            self.notes.add(f"prompts that begin alike are not shared: {name} does not take our masks")
        return same


class Prepared:
    """Requests tokenised and planned once, ready to be put to candidate after candidate."""

    def __init__(self, responder: Responder, instances: Sequence[Instance]) -> None:
        self._responder = responder
        self._kinds: dict[str, list[Instance]] = {}
        for instance in instances:
            self._kinds.setdefault(instance.request_type, []).append(instance)
        self._plan: LikelihoodPlan | None = None
        self._windows: list[int] = []
        self._requests = self._likelihood_requests()
        if self._requests:
            self._plan = responder.likelihood_plan(self._requests)
        wanted = self._kinds.get("generate_until", [])
        self._prompts = responder.prompts(wanted) if wanted and responder.greedy(wanted) else None

    def _likelihood_requests(self) -> list[Request]:
        lm = self._responder.lm
        requests = [_pair(lm, *instance.args) for instance in self._kinds.get("loglikelihood", [])]
        for instance in self._kinds.get("loglikelihood_rolling", []):
            windows = get_rolling_token_windows(
                token_list=lm.tok_encode(instance.args[0]),
                prefix_token=lm.prefix_token_id,
                max_seq_len=lm.max_length,
                context_len=1,
            )
            pairs = [Request(tuple(context), tuple(rest)) for context, rest in map(make_disjoint_window, windows)]
            self._windows.append(len(pairs))
            requests += pairs
        return requests

    def answer(self) -> None:
        """Fill every request's `resps` with what the model, as it is now, says."""
        for kind, instances in self._kinds.items():
            for instance in instances:
                instance.resps, instance.filtered_resps = [], {}
            if kind == "generate_until":
                self._answer_generations(instances)
        if self._plan is not None:
            self._answer_likelihoods()

    def _answer_likelihoods(self) -> None:
        totals, greedy = self._scored()
        answers: list[Any] = list(zip(totals, greedy, strict=True))
        single = self._kinds.get("loglikelihood", [])
        for instance, answer in zip(single, answers, strict=False):
            instance.resps = [answer] * (instance.repeats or 1)
        start = len(single)
        for instance, count in zip(self._kinds.get("loglikelihood_rolling", []), self._windows, strict=True):
            instance.resps = [sum(totals[start : start + count])] * (instance.repeats or 1)
            start += count

    def _scored(self) -> tuple[list[float], list[bool]]:
        """The plan's answers; where memory is too small for it, those of a plan with smaller passes from now on."""
        while True:
            assert self._plan is not None
            try:
                return self._plan.run(self._responder.model, self._responder.forward)
            except torch.OutOfMemoryError:
                if not self._responder.budget.shrink(self._plan.budget):
                    raise
            self._plan = self._responder.likelihood_plan(self._requests)

    def _answer_generations(self, instances: Sequence[Instance]) -> None:
        if self._prompts is None:
            self._responder.generate_slowly(instances)
            return
        texts = self._responder.decode(self._prompts)
        for instance, text in zip(instances, texts, strict=True):
            instance.resps = [text] * (instance.repeats or 1)


def _pair(lm: HFLM, context: str, continuation: str) -> Request:
    """Tokens of a context and its continuation, split where lm-eval splits them."""
    if context:
        left, right = lm._encode_pair(context, continuation)
        return Request(tuple(left), tuple(right))
    right = lm.tok_encode(continuation, add_special_tokens=False)
    if lm.prefix_token_id != right[0]:
        return Request((lm.prefix_token_id,), tuple(right))
    return Request((right[0],), tuple(right[1:]))
