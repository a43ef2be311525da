"""lm-eval tasks of every request type over the demo's kind of items, written to a folder."""

import json
import random
from pathlib import Path

TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: options
doc_to_target: gold
target_delimiter: " "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "letters": """
output_type: multiple_choice
doc_to_text: "{{prompt}} {% for o in options %}{{loop.index}}: {{o}} {% endfor %}Answer:"
doc_to_choice: ["1", "2", "3", "4"]
doc_to_target: gold
""",
    "fewshot": """
output_type: multiple_choice
fewshot_split: train
num_fewshot: 2
doc_to_text: "{{prompt}}"
doc_to_choice: options
doc_to_target: gold
fewshot_delimiter: " "
""",
    "mutual": """
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: options
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
""",
    "together": """
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: options
doc_to_target: gold
metric_list:
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "exact": """
output_type: loglikelihood
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{prompt}} {{answer}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "written": """
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_gen_toks: 14, until: ["\\n", "7"], do_sample: false}
filter_list:
  - name: strict
    filter:
      - {function: remove_whitespace}
      - {function: take_first}
  - name: first-number
    filter:
      - {function: regex, regex_pattern: "(\\\\d+)"}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "long": """
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_gen_toks: 14, until: ["</s>"], do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}


HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{train: train.jsonl, test: test.jsonl}}
training_split: train
test_split: test
"""


OVER_ALL = """
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_gen_toks: 4, until: ["\\n"], do_sample: false}
metric_list:
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
"""
"""A task none of whose metrics is a number for one document."""


LEAF = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{train: train.jsonl, validation: {name}.jsonl}}
training_split: train
validation_split: validation
tag: leaves
output_type: loglikelihood
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: perplexity, aggregation: mean, higher_is_better: false}}
"""
LEAVES = {"one": 4, "two": 9, "three": 20}
"""Sub-tasks and how many documents each has to validate on."""
GROUPS = {
    "sized": """
task: [one, two, three]
aggregate_metric_list:
  - {metric: perplexity, weight_by_size: true}
""",
    "even": """
task: [one, {group: rest, task: [two, three]}]
aggregate_metric_list:
  - {metric: perplexity, weight_by_size: false}
""",
    "nested": """
task: [one, {group: rest, task: [two, three]}]
""",
    "nested_sized": """
task:
  - one
  - {group: rest, task: [two, three], aggregate_metric_list: {metric: perplexity, weight_by_size: true}}
""",
}
"""Groups of these, with and without a number of their own."""


def write_groups(folder: Path) -> Path:
    """Sub-tasks of several sizes, and groups of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(4)
    for name, size in {"train": 12, **LEAVES}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(_row(rng)) + "\n" for _ in range(size)))
    for name in LEAVES:
        (folder / f"{name}.yaml").write_text(LEAF.format(name=name))
    for name, body in GROUPS.items():
        (folder / f"{name}.yaml").write_text(f"group: {name}{body}")
    return folder


def write_tasks(folder: Path, count: int = 40) -> Path:
    """Write them all; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(3)
    for split, size in (("train", 12), ("test", count)):
        rows = [_row(rng) for _ in range(size)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, body in TASKS.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name) + body)
    (folder / "over_all.yaml").write_text(HEAD.format(name="over_all") + OVER_ALL)
    return folder


def _row(rng: random.Random) -> dict[str, object]:
    a, b = rng.randint(10, 60), rng.randint(10, 39)
    answer = f"{a}+{b}={a + b}"
    wrong = [f"{a}+{b}={a + b + d}" for d in rng.sample([-20, -10, -2, -1, 1, 2, 10, 20], 2)] + [f"{b}-{a}"]
    options = [answer, *wrong]
    rng.shuffle(options)
    name = rng.choice(["Tom", "Emma", "Ken"])
    prompt = f"Solve: {name} has {a} coins and gets {b} more. =>"
    return {"prompt": prompt, "answer": answer, "options": options, "gold": options.index(answer), "pair": f"{a}+{b}"}
