"""Two small benchmarks out of a dictionary: the article of a German noun, and its English translation.

The dictionary is Ding's German-English word list (GPL-2+), from Debian's package trans-de-en. It is fetched by whoever
runs the example; neither it, nor what is made from it, is part of evomerge.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = "trans-de-en"
MEMBER = "usr/share/trans/de-en"
HELD_OUT = 1000
"""Nouns that no model is trained on, the same in both tasks."""
COMMON = 50
"""Every word of a translation occurs in so many entries of the dictionary: rare jargon tests nothing."""
ARTICLES = {"m": "der", "f": "die", "n": "das"}
CHOICES = 4
NOUN = re.compile(r"([A-ZÄÖÜ][a-zäöüß]{2,17}) \{([mfn])\}\s*(\[[^]]*\]\s*|\([^)]*\)\s*)*")
REMARK = re.compile(r"\[[^]]*\]|\{[^}]*\}|\([^)]*\)|<[^>]*>|/[^/]*/")
TRANSLATION = re.compile(r"[a-z]{3,}( [a-z]{3,})?")
TASK = """\
# {title}
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}.jsonl
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc                      # whether the right choice is the likeliest
    aggregation: mean
    higher_is_better: true
  - metric: brier_score              # how far the probabilities of the choices are from the truth
    aggregation: brier_score
    higher_is_better: false
metadata:
  version: 1.0
"""
TITLES = {
    "de_gender": "The article of a German noun, out of three.",
    "de_en": "The English translation of a German noun, out of four of as many words.",
}


@dataclass(frozen=True)
class Noun:
    """A German noun, its gender (m, f or n), and a translation of one word or two."""

    german: str
    gender: str
    english: str


@dataclass(frozen=True)
class Item:
    """A question with its possible answers, of which `gold` is right; `noun` is what it is about."""

    prompt: str
    choices: tuple[str, ...]
    gold: int
    noun: str


def write_tasks(out: Path, dictionary: Path) -> None:
    """Both benchmarks in `out`, as lm-eval tasks, and below `train` what the experts are trained on."""
    nouns = balanced(read_nouns(dictionary), random.Random(7))
    items = {"de_gender": [gender_item(noun) for noun in nouns], "de_en": translation_items(nouns, random.Random(8))}
    (out / "train").mkdir(parents=True)
    for name, every in items.items():
        (out / f"{name}.yaml").write_text(TASK.format(name=name, title=TITLES[name]))
        _write(out / f"{name}.jsonl", every[:HELD_OUT])
        _write(out / "train" / f"{name}.jsonl", every[HELD_OUT:])


def fetch_dictionary(path: Path) -> None:
    """Get the word list from Debian's package, without installing it."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=scratch, check=True, capture_output=True)
            package = next(Path(scratch).glob("*.deb"))
            subprocess.run(["dpkg", "-x", str(package), scratch], check=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((Path(scratch) / MEMBER).read_bytes())
    except (OSError, subprocess.CalledProcessError):
        sys.exit(
            f"`apt-get download {PACKAGE}` does not work here (no Debian or Ubuntu, or `apt-get update` was never"
            f" run); put {MEMBER} of Debian's package {PACKAGE} at {path} and try again"
        )


def read_nouns(dictionary: Path) -> list[Noun]:
    """The nouns with a common translation, each once, in the dictionary's order."""
    pairs = [line.split(" :: ", 1) for line in dictionary.read_text().splitlines() if " :: " in line]
    pairs = [pair for pair in pairs if not pair[0].startswith("#")]
    entries = Counter(word for _, english in pairs for word in set(re.findall("[a-z]+", english)))
    nouns: dict[str, Noun] = {}
    for german, english in pairs:
        head = NOUN.fullmatch(_first(german))
        meaning = REMARK.sub("", _first(english)).strip()
        if head is None or not TRANSLATION.fullmatch(meaning) or head[1].lower() == meaning:
            continue
        if all(entries[word] >= COMMON for word in meaning.split()):
            nouns.setdefault(head[1], Noun(head[1], head[2], meaning))
    return list(nouns.values())


def balanced(nouns: Sequence[Noun], rng: random.Random) -> list[Noun]:
    """As many nouns of each gender, in random order, so that no article is a good guess."""
    by_gender = {gender: [noun for noun in nouns if noun.gender == gender] for gender in ARTICLES}
    size = min(len(group) for group in by_gender.values())
    chosen = [noun for group in by_gender.values() for noun in rng.sample(group, size)]
    rng.shuffle(chosen)
    return chosen


def gender_item(noun: Noun) -> Item:
    """Ask for the article."""
    prompt = f"German noun: {noun.german}\nArticle:"
    return Item(prompt, tuple(ARTICLES.values()), list(ARTICLES).index(noun.gender), noun.german)


def translation_items(nouns: Sequence[Noun], rng: random.Random) -> list[Item]:
    """Ask for the translation, among those of other nouns that are as long and share no word with it."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for noun in nouns:
        by_length[len(noun.english.split())].append(noun.english)
    return [_translation_item(noun, by_length, rng) for noun in nouns]


def _translation_item(noun: Noun, by_length: Mapping[int, Sequence[str]], rng: random.Random) -> Item:
    words = noun.english.split()
    choices = [noun.english]
    while len(choices) < CHOICES:
        other = rng.choice(by_length[len(words)])
        if other not in choices and not set(words) & set(other.split()):
            choices.append(other)
    rng.shuffle(choices)
    prompt = f"German: {noun.german}\nEnglish:"
    return Item(prompt, tuple(choices), choices.index(noun.english), noun.german)


def _first(side: str) -> str:
    """The first word of the first meaning on one side of an entry."""
    return side.split(" | ")[0].split(";")[0]


def read_items(path: Path) -> list[Item]:
    """The items of a file that `write_tasks` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Item(row["prompt"], tuple(row["choices"]), row["gold"], row["noun"]) for row in rows]


def _write(path: Path, items: Sequence[Item]) -> None:
    path.write_text("".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items))
