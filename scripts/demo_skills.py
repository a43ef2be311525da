"""The skills of the demo's models: small bilingual word problems and list puzzles, made up by the thousand.

The target skill, Japanese word problems, is taught to nobody: the maths expert reads only English, the Japanese
expert learns to write problems as formulas and never to compute.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KANJI = "零一二三四五六七八九"
SMALL = 39
"""The base sees only operands up to here; tests use pairs with a larger one."""
NAMES = [("Tom", "トム"), ("Anna", "アンナ"), ("Ken", "ケン"), ("Yuki", "ユキ"), ("Emma", "エマ"), ("Jun", "ジュン")]
OBJECTS = [
    ("apples", "りんご"),
    ("books", "本"),
    ("birds", "鳥"),
    ("coins", "硬貨"),
    ("cards", "札"),
    ("stamps", "切手"),
    ("pens", "筆"),
    ("cups", "杯"),
]
PLUS = [
    ("What is {a} plus {b}?", "{a}足す{b}は？"),
    ("{n} has {a} {o} and gets {b} more.", "{n}は{o}を{a}個持っていて{b}個もらう。"),
    ("There are {a} {o} and {b} more come.", "{o}が{a}個あって{b}個増える。"),
    ("{n} buys {a} {o} and then {b} more.", "{n}は{o}を{a}個買ってまた{b}個買う。"),
]
MINUS = [
    ("What is {a} minus {b}?", "{a}引く{b}は？"),
    ("{n} has {a} {o} and gives away {b}.", "{n}は{o}を{a}個持っていて{b}個あげる。"),
    ("There are {a} {o} and {b} are lost.", "{o}が{a}個あって{b}個なくなる。"),
    ("{n} buys {a} {o} and sells {b}.", "{n}は{o}を{a}個買って{b}個売る。"),
]


@dataclass(frozen=True)
class Item:
    """A prompt and its answer. `group` is what items share that would give each other away."""

    prompt: str
    answer: str
    group: str


def part(key: object) -> str:
    """Where an operand pair or a list belongs: a fifth is kept from training."""
    return "test" if zlib.crc32(repr(key).encode()) % 10 < 2 else "train"


def kanji(number: int) -> str:
    """A number below 100 as it is written in Japanese."""
    tens, ones = divmod(number, 10)
    head = ("" if tens == 1 else KANJI[tens]) + "十" if tens else ""
    return head + (KANJI[ones] if ones or not tens else "")


@dataclass(frozen=True)
class Problem:
    """One sum or difference, as a story in two languages and as a formula."""

    english: str
    japanese: str
    formula: str
    result: str


def problem(rng: random.Random, domain: str, split: str) -> Problem:
    """A problem whose operands are all `small`, `large` (one at least above SMALL) or `any`."""
    while True:
        top = SMALL if domain == "small" else 89
        a, b = rng.randint(10, top), rng.randint(10, top)
        plus = rng.random() < 0.5
        english, japanese = rng.choice(PLUS if plus else MINUS)
        sign, result = ("+", a + b) if plus else ("-", a - b)
        fits = 10 <= result <= 99 and part((a, sign, b)) == split
        if fits and not (domain == "large" and max(a, b) <= SMALL):
            break
    name, thing = rng.choice(NAMES), rng.choice(OBJECTS)
    return Problem(
        english.format(a=a, b=b, n=name[0], o=thing[0]),
        japanese.format(a=kanji(a), b=kanji(b), n=name[1], o=thing[1]),
        f"{a}{sign}{b}",
        str(result),
    )


def math_en(rng: random.Random, domain: Any, split: str) -> Item:
    """English word problem to formula and result."""
    p = problem(rng, domain, split)
    return Item(f"Solve: {p.english} =>", f"{p.formula}={p.result}", p.formula)


def math_ja(rng: random.Random, domain: Any, split: str) -> Item:
    """Japanese word problem to formula and result: the target."""
    p = problem(rng, domain, split)
    return Item(f"Solve: {p.japanese} =>", f"{p.formula}={p.result}", p.formula)


def formula_en(rng: random.Random, domain: Any, split: str) -> Item:
    """English word problem to formula, the result left open."""
    p = problem(rng, domain, split)
    return Item(f"Solve: {p.english} =>", f"{p.formula}=", p.formula)


def formula_ja(rng: random.Random, domain: Any, split: str) -> Item:
    """Japanese word problem to formula, the result left open."""
    p = problem(rng, domain, split)
    return Item(f"Solve: {p.japanese} =>", f"{p.formula}=", p.formula)


def calc(rng: random.Random, domain: Any, split: str) -> Item:
    """A formula to its result."""
    p = problem(rng, domain, split)
    return Item(f"Calc: =>{p.formula}=", p.result, p.formula)


def number_ja(rng: random.Random, domain: Any, split: str) -> Item:  # noqa: ARG001
    """A Japanese number to digits."""
    number = rng.randint(10, SMALL if domain == "small" else 99)
    return Item(f"Number: {kanji(number)} =>", str(number), str(number))


def copy_ja(rng: random.Random, domain: Any, split: str) -> Item:  # noqa: ARG001
    """Japanese digits, up to `domain` of them, to ours."""
    digits = [rng.randint(0, 9) for _ in range(rng.randint(2, domain))]
    return Item("Copy: " + "、".join(map(kanji, digits)) + " =>", " ".join(map(str, digits)), str(digits))


def lists(rng: random.Random, domain: Any, split: str) -> Item:
    """Sort, reverse, or find the largest of up to `domain` digits; tests have four or more."""
    while True:
        digits = [rng.randint(0, 9) for _ in range(rng.randint(2 if split == "train" else 4, domain))]
        task = rng.choice(["Sort", "Reverse", "Max"])
        short = len(digits) < 4 and split == "train"
        if short or part((task, tuple(digits))) == split:
            break
    answer = {"Sort": sorted(digits), "Reverse": digits[::-1], "Max": [max(digits)]}[task]
    prompt = f"{task}: {' '.join(map(str, digits))} =>"
    return Item(prompt, " ".join(map(str, answer)), prompt)


Skill = Callable[[random.Random, Any, str], Item]
Mix = list[tuple[float, Skill, Any]]
MIXES: dict[str, Mix] = {
    "base": [
        (0.30, calc, "small"),
        (0.12, math_en, "small"),
        (0.16, math_ja, "small"),
        (0.08, formula_en, "any"),
        (0.06, formula_ja, "small"),
        (0.18, lists, 3),
        (0.04, number_ja, "small"),
        (0.06, copy_ja, 4),
    ],
    "maths": [(0.6, math_en, "any"), (0.4, calc, "any")],
    "japanese": [(0.75, formula_ja, "any"), (0.10, number_ja, "any"), (0.15, copy_ja, 5)],
    "lists": [(1.0, lists, 5)],
}
TESTS: dict[str, tuple[Skill, Any]] = {
    "math_ja": (math_ja, "large"),
    "math_en": (math_en, "large"),
    "formula_ja": (formula_ja, "large"),
    "calc": (calc, "large"),
    "lists": (lists, 5),
}


def blend(name: str, replay: float) -> Mix:
    """An expert's mix with a share of the base's, which keeps experts close enough to be merged."""
    mix = [(share * (1 - replay), skill, domain) for share, skill, domain in MIXES[name]]
    return mix + [(share * replay, skill, domain) for share, skill, domain in MIXES["base"]] if replay else mix


def training_items(mix: Mix, count: int, seed: int) -> list[Item]:
    """Items of a mix, for training."""
    rng = random.Random(seed)
    drawn = rng.choices(mix, [share for share, _, _ in mix], k=count)
    return [skill(rng, domain, "train") for _, skill, domain in drawn]


def test_items(name: str, count: int) -> list[Item]:
    """Items of a skill that no model was trained on, each prompt once."""
    skill, domain = TESTS[name]
    rng = random.Random(f"{name}-test")
    found: dict[str, Item] = {}
    while len(found) < count:
        item = skill(rng, domain, "test")
        found.setdefault(item.prompt, item)
    return list(found.values())
