"""Native forward passes beside those of lm-eval and transformers, on a few requests: where they differ, or raise."""

from collections.abc import Sequence

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.score.failure import ScoreFailure
from evomerge.score.generation import GreedyDecoder, Prompt
from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.rows import Request

TOLERANCE = 1e-3
COARSE = 0.01
"""How far, relative to one plus its size, a log-likelihood or logit may be off; in 16 bits, on average.

In bf16 ten families were off by 0.001 at most; with the masks ignored, the demo's models by 0.016 to 0.17."""
STEPS = 4
"""Tokens that generation is tried on."""


def agree(one: Sequence[float], other: Sequence[float], model: PreTrainedModel) -> bool:
    """Whether two ways to compute the same numbers agree, as far as the model's dtype allows."""
    first, second = torch.tensor(one), torch.tensor(other)
    off = (first - second).abs() / (1 + second.abs())
    return float(off.max()) <= TOLERANCE if model.dtype == torch.float32 else float(off.mean()) <= COARSE


def likelihoods_by_lm_eval(requests: Sequence[Request], lm: HFLM) -> list[tuple[float, bool]]:
    """Log-likelihood and greediness of each request, from lm-eval's own passes."""
    asked = [(("", ""), list(request.context), list(request.continuation)) for request in requests]
    found: list[tuple[float, bool]] = lm._loglikelihood_tokens(asked, disable_tqdm=True)
    return found


def why_not_likelihoods(requests: Sequence[Request], plan: LikelihoodPlan, model: PreTrainedModel, lm: HFLM) -> str:
    """Why a plan over these requests cannot stand in for lm-eval's passes; nothing if it can.

    Raises:
        ScoreFailure: the model computes no finite numbers.
    """
    try:
        ours, _ = plan.run(model)
    except (ScoreFailure, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  A model class may raise anything at inputs that it was not made for.
        return _first_line(error)
    theirs = [value for value, _ in likelihoods_by_lm_eval(requests, lm)]
    return "" if agree(ours, theirs, model) else "it gives other log-likelihoods"


def why_not_decoding(prompts: Sequence[Prompt], decoder: GreedyDecoder, model: PreTrainedModel) -> str:
    """Why our decoding of these prompts cannot stand in for transformers' own; nothing if it can.

    Compared are the logits of the tokens that we chose, with those and with the largest that transformers finds, up to
    the first choice that differs: where two tokens are equally likely either may be chosen.

    Raises:
        ScoreFailure: the model computes no finite numbers.
    """
    steps = min(STEPS, *(prompt.most for prompt in prompts))
    try:
        answers = decoder.decode([Prompt(prompt.tokens, steps, ()) for prompt in prompts])
    except (ScoreFailure, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  As above.
        return _first_line(error)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens, logits = _generated(prompt, steps, model)
        same = [mine == other for mine, other in zip(answer.tokens, tokens, strict=False)]
        compared = same.index(False) + 1 if False in same else len(same)
        chosen = zip(answer.tokens, logits[:compared], strict=False)
        theirs = [value for token, row in chosen for value in (float(row[token]), float(row.max()))]
        if not agree([value for value in answer.logits[:compared] for _ in range(2)], theirs, model):
            return "it gives other logits"
    return ""


def _generated(prompt: Prompt, steps: int, model: PreTrainedModel) -> tuple[list[int], list[Tensor]]:
    """Tokens that transformers generates, and the logits, (vocabulary,), that it chose each by."""
    inputs = torch.tensor([prompt.tokens], device=model.device)
    made = model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        max_length=inputs.shape[1] + steps,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    return made.sequences[0, inputs.shape[1] :].tolist(), [logits[0] for logits in made.logits]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
