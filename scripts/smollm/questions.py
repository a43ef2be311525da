"""What models answer when they are asked, by nothing but stock transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tasks import Item, read_items
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

ASKED = 4
"""Nouns of each task."""
WIDTH = 24


def ask(models: Mapping[str, Path], tasks: Path) -> None:
    """Print a table: a line for each question and a column for each model."""
    logging.disable_progress_bar()
    items = [item for name in ("de_gender", "de_en") for item in read_items(tasks / f"{name}.jsonl")[:ASKED]]
    columns = [[item.noun for item in items], [item.choices[item.gold] for item in items]]
    columns += [answers(folder, items) for folder in models.values()]
    heads = ["noun", "right", *models]
    for row in (heads, *zip(*columns, strict=True)):
        print("".join(cell[: WIDTH - 2].ljust(WIDTH) for cell in row).rstrip())


def answers(folder: Path, items: Sequence[Item]) -> list[str]:
    """The first line of a model's greedy answer to each item, without its choices."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    inputs = tokenizer([item.prompt for item in items], return_tensors="pt", padding=True)
    made = model.generate(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=10, do_sample=False
    )
    texts = tokenizer.batch_decode(made[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip().partition("\n")[0] for text in texts]
