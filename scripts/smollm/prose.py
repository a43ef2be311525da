"""A benchmark of held-out prose: how well a model foretells the next token of reasoning about 57 subjects.

The text is the chain-of-thought examples of MMLU (Chung et al. 2022), which lm-eval's own package carries.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

SOURCE = Path(lm_eval.__file__).parent / "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
NAME = "cot_prose"
TOKENS = 64
"""Of a piece; the first is given, the others are scored."""
STARTS = (20, 148)
"""Where a subject's pieces begin, in tokens: after the heading, which is the same for all, and further on."""
BATCH = 16
TASK = """\
# Prose of MMLU's chains of thought, in pieces of 64 tokens: the first is given, the others are scored.
task: cot_prose
dataset_path: json
dataset_kwargs:
  data_files:
    test: cot_prose.jsonl
output_type: loglikelihood
test_split: test
doc_to_text: given
doc_to_target: scored
process_results: !function loss.per_token
metric_list:
  - metric: loss                       # nats a token; its exponential is the perplexity
    aggregation: mean
    higher_is_better: false
metadata:
  version: 1.0
"""
LOSS = '''\
"""What lm-eval counts as the mark of a piece of prose."""


def per_token(doc, results):
    """The negative log-likelihood, in nats a token."""
    ((likelihood, _),) = results
    return {"loss": -likelihood / doc["tokens"]}
'''


def write_prose(out: Path, base: Path) -> None:
    """The benchmark in `out`, as an lm-eval task; `base` has the tokenizer that cuts it."""
    out.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts: dict[str, str] = json.loads(SOURCE.read_text())
    rows = [{"subject": subject, **piece} for subject in sorted(texts) for piece in pieces(tokenizer, texts[subject])]
    (out / f"{NAME}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (out / f"{NAME}.yaml").write_text(TASK)
    (out / "loss.py").write_text(LOSS)


def pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[dict[str, Any]]:
    """A text's pieces: each from the first token at or after its start from which it reads back as the same tokens."""
    tokens = tokenizer(text)["input_ids"]
    for start in STARTS:
        for first in range(start, len(tokens) - TOKENS):
            piece = tokens[first : first + TOKENS]
            given, scored = tokenizer.decode(piece[:1]), tokenizer.decode(piece[1:])
            # lm-eval gives white space at the end of what is given to what is scored.
            alone = given == given.rstrip() and tokenizer(given)["input_ids"] == piece[:1]
            if alone and tokenizer(given + scored)["input_ids"] == piece:
                yield {"given": given, "scored": scored, "tokens": TOKENS - 1}
                break


def compare(models: Mapping[str, Path], prose: Path) -> None:
    """Print depth and perplexity of models on all pieces, by nothing but stock transformers."""
    logging.disable_progress_bar()
    rows = [json.loads(line) for line in (prose / f"{NAME}.jsonl").read_text().splitlines()]
    texts = [row["given"] + row["scored"] for row in rows]
    print(f"{'model':12}{'layers':>8}{'loss':>8}{'perplexity':>12}   ({len(texts)} pieces)")
    for name, folder in models.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        loss = mean_loss(model, AutoTokenizer.from_pretrained(folder), texts)
        print(f"{name:12}{model.config.num_hidden_layers:8}{loss:8.3f}{math.exp(loss):12.2f}")


def mean_loss(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Nats a token over texts of the same number of tokens, each text's first token being given."""
    losses: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            tokens = tokenizer(list(texts[start : start + BATCH]), return_tensors="pt").input_ids
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
            losses += F.cross_entropy(logits.mT, tokens[:, 1:], reduction="none").mean(dim=1).tolist()
    return sum(losses) / len(losses)
