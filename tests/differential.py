"""Marks of evomerge beside those of lm-eval's `simple_evaluate`, over the same model: what is asked, of whom, compared.

The model and the tokenizer are random and tiny, and made so that answers hold special tokens now and then.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import lm_eval
import torch
from families import FAMILIES, LIKE_LLAMA, MORE
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Items, Objective
from evomerge.items import POOLS
from evomerge.score import TaskScorer, open_banks
from evomerge.score.tasks import mark_of, metric_name, silent
from evomerge.trial import Draw

VOCABULARY = 280
SPECIAL = ("<pad>", "<s>", "</s>", "<|im_end|>", "<|note|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}[{{ m['content'] }}]{% else %}"
    "<{{ m['role'][0] }}>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
DOCS = 10


@dataclass(frozen=True)
class Case:
    """One way to ask: a task file's body, how a fitness and lm-eval are told to use it, and which tokenizer reads it.

    `config` and `generation_config` are changes to the model's.
    """

    name: str
    body: str
    use: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = "plain"
    config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, Any]:
        """The same in the words of `simple_evaluate`."""
        words = {
            "fewshot": "num_fewshot",
            "chat_template": "apply_chat_template",
            "system": "system_instruction",
            "generation": "gen_kwargs",
        }
        return {words[key]: dict(value) if isinstance(value, dict) else value for key, value in self.use.items()}


HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}
training_split: train
test_split: test
"""


def prepare(folder: Path, documents: int = DOCS) -> Path:
    """A folder of documents and of the tasks over them."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    for split, size in (("train", 6), ("test", documents)):
        rows = [_row(rng, place) for place in range(size)]
        (tasks / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for case in CASES:
        home = tasks / case.name  # By itself: lm-eval reads every task file of a folder.
        home.mkdir()
        (home / "own.py").write_text(OWN)
        (home / "task.yaml").write_text(HEAD.format(name=case.name, folder=tasks) + case.body)
    return folder


OWN = '''
import math

def graded(doc, results):
    """Undefined for every third document; two metrics at once."""
    answer = results[0] if isinstance(results[0], str) else str(results[0][0] > -9.0)
    return {
        "length": float(len(answer)),
        "only_some": math.nan if doc["place"] % 3 == 0 else float(len(answer) % 5),
    }

def longer(doc):
    return doc["prompt"] + " so"

def wrong_way(resps, docs):
    return [[one[::-1] for one in each] for each in resps]
'''


def _row(rng: random.Random, place: int) -> dict[str, Any]:
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    options = [f"{a + b}", f"{a}+{b}", f"the {b}", f"{rng.randint(0, 199)} or so"]
    rng.shuffle(options)
    first, second = rng.sample(["Tom", "Emma", "the old man", "Ken"], 2)
    gold = rng.randrange(4)
    return {
        "prompt": f"add {a} and {b}" + " more and more" * rng.randint(0, 4) + " gives",
        "answer": options[gold],
        "options": options,
        "gold": gold,
        "golds": sorted(rng.sample(range(4), 2)),
        "answers": rng.sample(options, 2),
        "fills": [f"{first} met {second} because {name} was" for name in (first, second)],
        "which": rng.randrange(2),
        "ending": f"happy {a}",
        "place": place,
        "blank": "" if place % 2 else "add",
    }


GEN = 'output_type: generate_until\ndoc_to_text: "{{prompt}}"\ndoc_to_target: "{{answer}}"\n'
EXACT = "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n"
CHOICE = 'output_type: multiple_choice\ndoc_to_text: "{{prompt}}"\ndoc_to_choice: options\ndoc_to_target: gold\n'
LOGL = 'output_type: loglikelihood\ndoc_to_text: "{{prompt}}"\ndoc_to_target: "{{answer}}"\n'
LOGL_METRICS = """metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
"""
ROLL = 'output_type: loglikelihood_rolling\ndoc_to_text: ""\n'
ROLL_METRICS = """metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
MANY = """metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_bytes, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def _gen(arguments: str, rest: str = "") -> str:
    return GEN + f"generation_kwargs: {{{arguments}}}\n" + rest + EXACT


def _own(metrics: str, body: str = GEN + "generation_kwargs: {max_gen_toks: 6}\n") -> str:
    return body + "process_results: !function own.graded\nmetric_list:\n" + metrics


LONG = "{% for i in range(place * 3 + 1) %}{{prompt}} {% endfor %}"
CASES: tuple[Case, ...] = (
    # generate_until: what ends an answer
    Case("until_list", _gen('max_gen_toks: 8, until: ["\\n", "1", " a"]')),
    Case("until_string", _gen('max_gen_toks: 8, until: "1"')),
    Case("until_none", _gen("max_gen_toks: 8, until: []")),
    Case("until_empty_string", _gen('max_gen_toks: 8, until: [""]')),
    Case("until_null", _gen("max_gen_toks: 8, until: null")),
    Case("until_default", _gen("max_gen_toks: 8")),
    Case("until_long", _gen('max_gen_toks: 8, until: ["gives the 1 or", "é", " "]')),
    Case("until_end_token", _gen('max_gen_toks: 8, until: ["</s>"]')),
    Case("until_special", _gen('max_gen_toks: 8, until: ["<|note|>"]')),
    Case("until_pad", _gen('max_gen_toks: 8, until: ["<pad>", "<s>"]')),
    Case("other_end_token", _gen('max_gen_toks: 8, until: ["\\n"]'), tokenizer="chat"),
    Case("other_end_token_until", _gen('max_gen_toks: 8, until: ["<|im_end|>"]'), tokenizer="chat"),
    Case("end_tokens", _gen("max_gen_toks: 8, until: []"), generation_config={"eos_token_id": [2, 3, 120]}),
    Case("no_end_token_in_config", _gen("max_gen_toks: 8"), generation_config={"eos_token_id": None}),
    Case("overlapping_stops", _gen('max_gen_toks: 8, until: ["bc", "ab", "n", "en"]')),
    # generate_until: how much, and of what
    Case("default_length", GEN + EXACT, config={"max_position_embeddings": 272, "n_positions": 272}),
    Case("default_length_too_much", GEN + EXACT),
    Case("window_full", _gen("max_gen_toks: 88")),
    Case("window_almost_full", _gen("max_gen_toks: 80, until: ['1']")),
    Case("nothing_asked", _gen("max_gen_toks: 0")),
    Case("new_tokens", _gen("max_new_tokens: 5, until: ['1']")),
    Case("max_tokens", _gen("max_tokens: 5, until: ['1']")),
    Case("max_length", _gen("max_length: 60, until: ['1']")),
    Case("long_prompt", _gen("max_gen_toks: 8, until: ['1']").replace("{{prompt}}", LONG)),
    Case("empty_prompt", _gen("max_gen_toks: 8").replace("{{prompt}}", "{{blank}}")),
    Case("empty_prompt_bos", _gen("max_gen_toks: 8").replace("{{prompt}}", "{{blank}}"), tokenizer="bos"),
    Case("no_end_token", _gen("max_gen_toks: 8"), tokenizer="endless"),
    # generate_until: how
    Case("greedy_hot", _gen("max_gen_toks: 8, do_sample: false, temperature: 0.7")),
    Case("greedy_cold", _gen("max_gen_toks: 8, temperature: 0.0, top_p: 0.5, top_k: 3")),
    Case("sampled_cold", _gen("max_gen_toks: 8, do_sample: true, temperature: 0.0")),
    Case("sampled_no_temperature", _gen("max_gen_toks: 8, do_sample: true")),
    Case("beams", _gen("max_gen_toks: 8, num_beams: 2, do_sample: false")),
    Case("penalty", _gen("max_gen_toks: 8, repetition_penalty: 1.3")),
    Case("unknown_argument", _gen("max_gen_toks: 8, no_such_thing: 3")),
    Case("config_penalty", _gen("max_gen_toks: 8"), generation_config={"repetition_penalty": 1.3}),
    Case("config_samples", _gen("max_gen_toks: 8"), generation_config={"do_sample": True, "temperature": 0.6}),
    Case("config_length", _gen("max_gen_toks: 8"), generation_config={"max_new_tokens": 3}),
    Case("config_bias", _gen("max_gen_toks: 8"), generation_config={"sequence_bias": [[[120], 9.0], [[30], 9.0]]}),
    Case("config_min", _gen("max_gen_toks: 8"), generation_config={"min_new_tokens": 6, "eos_token_id": [2, 3, 120]}),
    Case("config_guidance", _gen("max_gen_toks: 8"), generation_config={"guidance_scale": 1.5}),
    Case("overridden", _gen("max_gen_toks: 3"), use={"generation": {"max_gen_toks": 9, "until": ["1"]}}),
    # generate_until: what is made of an answer
    Case(
        "filters",
        _gen(
            "max_gen_toks: 10",
            "filter_list:\n"
            "  - {name: strict, filter: [{function: remove_whitespace}, {function: take_first}]}\n"
            '  - {name: number, filter: [{function: regex, regex_pattern: "(\\\\d+)", group_select: -1}, '
            "{function: take_first}]}\n"
            "  - {name: low, filter: [{function: lowercase}, {function: take_first}]}\n",
        ),
    ),
    Case(
        "own_filter",
        _gen(
            "max_gen_toks: 10",
            "filter_list:\n  - {name: own, filter: [{function: custom, "
            "filter_fn: !function own.wrong_way}, {function: take_first}]}\n",
        ),
    ),
    Case(
        "repeats",
        _gen(
            "max_gen_toks: 6",
            "repeats: 3\nfilter_list:\n  - {name: vote, filter: [{function: majority_vote}, {function: take_first}]}\n",
        ),
    ),
    Case("own_metric", _own("  - {metric: length, aggregation: mean, higher_is_better: true}\n")),
    Case("nanmean", _own("  - {metric: only_some, aggregation: nanmean, higher_is_better: true}\n")),
    Case("several_answers", GEN.replace('"{{answer}}"', "answers") + "generation_kwargs: {max_gen_toks: 4}\n" + EXACT),
    Case(
        "generated_choice",
        GEN.replace('"{{answer}}"', "gold\ndoc_to_choice: options") + "generation_kwargs: {max_gen_toks: 4}\n" + EXACT,
    ),
    Case(
        "scored_metrics",
        GEN + "generation_kwargs: {max_gen_toks: 6}\nmetric_list:\n"
        "  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, "
        'ignore_punctuation: true, regexes_to_ignore: ["1"]}\n',
    ),
    # prompts
    Case("fewshot", _gen("max_gen_toks: 6") + "fewshot_split: train\nnum_fewshot: 1\n"),
    Case("fewshot_asked", _gen("max_gen_toks: 6") + "fewshot_split: train\n", use={"fewshot": 1}),
    Case(
        "delimiters",
        CHOICE + 'fewshot_split: train\nnum_fewshot: 1\ntarget_delimiter: " -> "\nfewshot_delimiter: " ; "\n' + MANY,
    ),
    Case("first_n", CHOICE + "fewshot_config: {sampler: first_n, split: train}\nnum_fewshot: 1\n" + MANY),
    Case("fewshot_of_test", CHOICE + "fewshot_split: test\nnum_fewshot: 1\n" + MANY),
    Case("description", CHOICE + 'description: "Number {{place}}.\\n"\n' + MANY, use={"system": "Be brief."}),
    Case("gen_prefix", _gen("max_gen_toks: 6", 'gen_prefix: "It is"\n')),
    Case("gen_prefix_choice", CHOICE + 'gen_prefix: "It is"\n' + MANY),
    Case("chat", _gen("max_gen_toks: 6"), use={"chat_template": True}, tokenizer="chat"),
    Case("chat_system", _gen("max_gen_toks: 6"), use={"chat_template": True, "system": "Be brief."}, tokenizer="chat"),
    Case(
        "chat_turns",
        _gen("max_gen_toks: 6") + "fewshot_split: train\nnum_fewshot: 1\n",
        use={"chat_template": True, "system": "Be brief."},
        tokenizer="chat",
    ),
    Case(
        "chat_choice",
        CHOICE + "fewshot_split: train\nnum_fewshot: 1\n" + MANY,
        use={"chat_template": True},
        tokenizer="chat",
    ),
    Case(
        "chat_gen_prefix",
        _gen("max_gen_toks: 6", 'gen_prefix: "It is"\n'),
        use={"chat_template": True},
        tokenizer="chat",
    ),
    Case("chat_choice_prefix", CHOICE + 'gen_prefix: "It is"\n' + MANY, use={"chat_template": True}, tokenizer="chat"),
    Case(
        "chat_no_system",
        _gen("max_gen_toks: 6"),
        use={"chat_template": True, "system": "Be brief."},
        tokenizer="no_system",
    ),
    Case("chat_raises", _gen("max_gen_toks: 6"), use={"chat_template": True}, tokenizer="raises"),
    Case("text_function", CHOICE.replace('"{{prompt}}"', "!function own.longer") + MANY),
    # multiple choice
    Case("choices", CHOICE + MANY),
    Case("choices_default", CHOICE),
    Case("choices_bos", CHOICE + MANY, tokenizer="bos"),
    Case("choices_bos_in_text", CHOICE.replace("{{prompt}}", "<s>{{prompt}}") + MANY, tokenizer="bos"),
    Case("letters", CHOICE.replace("options", '["A", "B", "C", "D"]') + MANY),
    Case(
        "choices_of_template", CHOICE.replace("options", '"{{[answer, prompt, ending]}}"').replace("gold", "0") + MANY
    ),
    Case(
        "gold_text",
        CHOICE.replace("to_target: gold", 'to_target: "{{answer}}"')
        + "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n",
    ),
    Case(
        "several_golds",
        CHOICE.replace("to_target: gold", "to_target: golds")
        + "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
        + "  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n",
    ),
    Case(
        "mutual",
        CHOICE + "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
        "  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}\n",
    ),
    Case(
        "over_all",
        CHOICE + "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
        "  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}\n",
    ),
    Case(
        "winograd",
        "output_type: multiple_choice\ndoc_to_text: which\ndoc_to_choice: fills\ndoc_to_target: ending\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n",
    ),
    Case(
        "winograd_chat",
        "output_type: multiple_choice\ndoc_to_text: which\ndoc_to_choice: fills\n"
        "doc_to_target: ending\nmetric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n",
        use={"chat_template": True},
        tokenizer="chat",
    ),
    Case("choices_long", CHOICE.replace("{{prompt}}", LONG) + MANY),
    Case(
        "choices_own",
        _own(
            "  - {metric: length, aggregation: mean, higher_is_better: true}\n"
            "  - {metric: only_some, aggregation: nanmean, higher_is_better: true}\n",
            CHOICE,
        ),
    ),
    Case(
        "choices_filter",
        CHOICE + "filter_list:\n  - {name: a, filter: [{function: take_first}]}\n"
        "  - {name: b, filter: [{function: take_first}]}\n" + MANY,
    ),
    Case("choices_repeats", CHOICE + "repeats: 2\n" + MANY),
    Case("choices_empty_context", CHOICE.replace("{{prompt}}", "") + MANY),
    Case(
        "choices_no_tokens", CHOICE.replace("{{prompt}}", "").replace("options", '["", "b"]') + 'target_delimiter: ""\n'
    ),
    Case("choice_too_long", CHOICE.replace("options", '"{{[answer * 90, answer]}}"').replace("gold", "0")),
    # log-likelihoods
    Case("likelihood", LOGL + LOGL_METRICS),
    Case("likelihood_default", LOGL),
    Case("likelihood_space", LOGL.replace("{{prompt}}", "{{prompt}} ") + LOGL_METRICS),
    Case("likelihood_blank", LOGL.replace("{{prompt}}", "{{blank}}") + LOGL_METRICS),
    Case("likelihood_blank_bos", LOGL.replace("{{prompt}}", "{{blank}}") + LOGL_METRICS, tokenizer="bos"),
    Case(
        "likelihood_prefix_in_target",
        LOGL.replace("{{prompt}}", "").replace("{{answer}}", "<s>{{answer}}") + LOGL_METRICS,
    ),
    Case("likelihood_only_prefix", LOGL.replace("{{prompt}}", "").replace("{{answer}}", "<s>") + LOGL_METRICS),
    Case("likelihood_both_empty", LOGL.replace("{{prompt}}", "").replace("{{answer}}", "") + LOGL_METRICS),
    Case("likelihood_empty_target", LOGL.replace("{{answer}}", "{{blank}}") + LOGL_METRICS),
    Case("likelihood_long", LOGL.replace("{{prompt}}", LONG) + LOGL_METRICS),
    Case("likelihood_no_end_token", LOGL + LOGL_METRICS, tokenizer="endless"),
    Case("likelihood_no_end_token_blank", LOGL.replace("{{prompt}}", "{{blank}}") + LOGL_METRICS, tokenizer="endless"),
    Case("likelihood_only_bos", LOGL.replace("{{prompt}}", "{{blank}}") + LOGL_METRICS, tokenizer="only_bos"),
    Case("generation_only_bos", _gen("max_gen_toks: 6"), tokenizer="only_bos"),
    Case("tokens_beyond", LOGL + LOGL_METRICS, config={"vocab_size": 200}),
    Case("generation_tokens_beyond", _gen("max_gen_toks: 6"), config={"vocab_size": 200}),
    Case("words_only", LOGL + LOGL_METRICS, tokenizer="words"),
    Case("words_only_choices", CHOICE + MANY, tokenizer="words"),
    Case("rolling", ROLL + 'doc_to_target: "{{prompt}} {{answer}}"\n' + ROLL_METRICS),
    Case("rolling_bos", ROLL + 'doc_to_target: "{{prompt}} {{answer}}"\n' + ROLL_METRICS, tokenizer="bos"),
    Case("rolling_long", ROLL + f'doc_to_target: "{LONG}"\n' + ROLL_METRICS),
    Case("rolling_blank", ROLL + 'doc_to_target: "{{blank}}"\n' + ROLL_METRICS),
    Case(
        "rolling_all_blank",
        ROLL
        + 'doc_to_target: ""\n'
        + "metric_list:\n  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}\n",
    ),
    # windows of attention
    Case("narrow", CHOICE + MANY, config={"sliding_window": 16}),
    Case(
        "narrow_generation",
        _gen("max_gen_toks: 20, until: ['1']").replace("{{prompt}}", LONG),
        config={"sliding_window": 16},
    ),
)


def named(name: str) -> Case:
    """The case of this name."""
    return next(case for case in CASES if case.name == name)


@cache
def tokenizer(kind: str, folder: Path) -> Path:
    """A folder with a tokenizer of this kind."""
    path = folder / f"tokenizer-{kind}"
    found = _words() if kind == "words" else _bytes()
    named: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    if kind == "bos":
        found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    if kind in ("chat", "no_system", "raises"):
        named["eos_token"] = "<|im_end|>"
    if kind == "endless":
        named = {"pad_token": "<pad>"}
    if kind == "only_bos":
        del named["eos_token"]
    made = PreTrainedTokenizerFast(tokenizer_object=found, **named)
    refusing = "{{ raise_exception('no') }}"
    templates = {
        "chat": TEMPLATE,
        "no_system": "{% if messages[0]['role'] == 'system' %}" + refusing + "{% endif %}" + TEMPLATE,
        "raises": refusing,
    }
    made.chat_template = templates.get(kind)
    made.save_pretrained(path)
    return path


def _bytes() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(
        [f"add {a} and {b} more gives the old man {a + b} or so" for a in range(9) for b in range(9)], trainer
    )
    return made


def _words() -> Tokenizer:
    """Whole words alone, so that a word at the end is one token with what goes before it, or none."""
    words = [*SPECIAL, "add", "and", "more", "gives", "the", "or", "so", "1", "2"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def random_model(family: str, case: Case | None = None) -> PreTrainedModel:
    """A model with random weights that answers differently to different prompts, special tokens among the answers."""
    own: dict[str, Any] = dict((FAMILIES | MORE)[family])
    sizes = own if "n_layer" in own else LIKE_LLAMA | own
    known = AutoConfig.for_model(family)
    changes = {key: value for key, value in (case.config if case else {}).items() if hasattr(known, key)}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCABULARY + 8}
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(sizes | special | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
        head = model.get_output_embeddings().weight
        head[: len(SPECIAL)] *= 1.6
    for name, value in (case.generation_config if case else {}).items():
        setattr(model.generation_config, name, value)
    return model


@dataclass(frozen=True)
class Compared:
    """What came of a case on a model: how it ended, what is different, and what either said who refused it."""

    outcome: str
    differences: tuple[str, ...] = ()
    ours: str = ""
    theirs: str = ""
    notes: tuple[str, ...] = ()


def compare(family: str, case: Case, folder: Path) -> Compared:
    """Ask both, item by item."""
    tasks = folder / "tasks" / case.name
    words = tokenizer(case.tokenizer, folder)
    model = random_model(family, case)
    theirs, ours = _theirs(case, model, words, tasks), _ours(case, model, words, tasks)
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return _refusals(theirs, ours)
    marks, responses, scorer = ours
    different = list(_differences(theirs, marks, responses))
    return Compared("different" if different else "equal", tuple(different), notes=tuple(sorted(scorer.notes)))


def _refusals(theirs: Any, ours: Any) -> Compared:
    said = [f"{type(one).__name__}: {one}"[:300] if isinstance(one, Exception) else "" for one in (ours, theirs)]
    if isinstance(ours, Exception) and not isinstance(ours, SpecError):
        return Compared("broken", (), *said)
    if not isinstance(ours, Exception):
        return Compared("lm-eval alone refuses", (), *said)
    outcome = "refused by both" if isinstance(theirs, Exception) else "refused by evomerge alone"
    return Compared(outcome, (), *said)


def _theirs(case: Case, model: PreTrainedModel, words: Path, tasks: Path) -> Any:
    """Samples of `simple_evaluate`, one request at a time: with several, what follows a stop depends on the others."""
    try:
        with silent():
            lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(words), batch_size=1)
            found = lm_eval.simple_evaluate(
                model=lm,
                tasks=[case.name],
                task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
                random_seed=None,
                numpy_random_seed=None,
                bootstrap_iters=0,
                **case.told,
            )
    except Exception as error:  # noqa: BLE001
        return error
    return found["samples"][case.name]


def _ours(case: Case, model: PreTrainedModel, words: Path, tasks: Path) -> Any:
    """Marks by metric and document, answers by document, and the scorer."""
    try:
        objective = Objective(task=case.name, **case.use)
        fitness = Fitness(include=(str(tasks),), objectives={"it": objective}, items=Items())
        scorer = TaskScorer(fitness, open_banks(fitness), model, words)
        bank, table = scorer._banks[case.name], scorer.table.tasks[case.name]
        marks: dict[str, dict[int, float]] = {}
        answers = {}
        for pool in POOLS[:2]:
            ids = table.pool(pool).ids
            for metric, values in scorer.marks(Draw(pool=pool))[case.name].items():
                marks.setdefault(metric, {}).update(zip([bank.items[key].index for key in ids], values, strict=True))
            for key in ids:
                instances = sorted(scorer._requests[case.name][key], key=lambda one: one.idx)
                answers[bank.items[key].index] = [list(instance.resps) for instance in instances]
    except Exception as error:  # noqa: BLE001
        return error
    return marks, answers, scorer


def _differences(samples: list[dict[str, Any]], marks: Any, responses: Any) -> Iterator[str]:
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    compared = 0
    for sample in samples:
        place = sample["doc_id"]
        if place not in responses:
            if not any(sample[metric] != sample[metric] for metric in sample["metrics"]):
                yield f"document {place} is left out"
            continue
        for mine, other in zip(responses[place], sample["resps"], strict=True):
            if len(mine) != len(other) or not all(map(_alike, mine, other)):
                yield f"document {place}: {mine} for {other}"
        given = {metric_name(m, sample["filter"], filters): mark_of(m, sample[m]) for m in sample["metrics"]}
        pairs = {name: (marks[name][place], value) for name, value in given.items() if place in marks.get(name, {})}
        compared += len(pairs)
        different = {} if _undecided(sample) else {n: pair for n, pair in pairs.items() if not _alike(*pair)}
        yield from (f"{name} of document {place}: {mine} for {other}" for name, (mine, other) in different.items())
    if not compared:
        yield "no mark was compared"


def _alike(mine: Any, other: Any) -> bool:
    if isinstance(other, tuple | list):
        return _alike(mine[0], other[0]) and bool(mine[1]) == bool(other[1])
    if isinstance(other, str):
        return bool(mine == other)
    return abs(float(mine) - float(other)) <= 1e-4 * (1 + abs(float(other)))


def _undecided(sample: Mapping[str, Any]) -> bool:
    """Options whose log-likelihoods lie close together may be ranked either way."""
    if len(sample["resps"]) < 2 or not isinstance(sample["resps"][0][0], tuple | list):
        return False
    values = sorted(float(each[0][0]) for each in sample["resps"])
    return any(b - a < 1e-3 for a, b in pairwise(values))
