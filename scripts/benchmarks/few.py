"""Few search items: merges learned from them beside fine-tuning on the same ones, and what suffers that nobody asks.

Items of the demo's Japanese maths are drawn anew for every seed. Fine-tuning begins at task arithmetic 1.0, holds as
many of the same items out, and each of its three rates may cost as many units as a whole run of ours: forward passes
of an item, of which a gradient takes three. 960 items that no search saw say how good it is; skills that its parents
had before say how much it has drifted.
"""

import json
import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from demo_skills import Skill, calc, copy_ja, lists, math_en, number_ja
from measure import MODELS, ROOT, table
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from tuning import EVERY, METHODS, Examples, Plan, encoded, measured, tuned

from evomerge.assemble import export, merge, search
from evomerge.assemble.learn import ENOUGH, FEWEST_HELD, HELD, MOST_HELD
from evomerge.learn.course import SLOPE
from evomerge.recipe import Grain
from evomerge.score import open_banks
from evomerge.spec import load_run
from evomerge.spec.reading import load_fitness

COUNTS = (32, 64, 128, 384)
SEEDS = (1, 2, 3, 4, 5)
GRAINS: Mapping[str, Grain | None] = {"layer": None, "tensor": "tensor", "column": "column"}
UNITS = 12_500
CONFIRMED = 40
"""Items that a run of ours confirms on, of the demo's that are in neither part: here others count."""
SKILLS: Mapping[str, tuple[Skill, object, str]] = {
    "english maths": (math_en, "large", "test"),
    "sums": (calc, "large", "test"),
    "copying": (copy_ja, 5, "test"),
    "numbers": (number_ja, "any", "test"),
    "lists": (lists, 3, "train"),
}
"""What one of the parents can do: .94, .94, .88, 1.00 and .99 of it."""
ASKED = 300
EXPERTS = ("maths", "japanese")
START = "task arithmetic 1.0"
END = "</s>"


class Figures(NamedTuple):
    """Accuracy on items that nobody saw, and on the skills of the parents, whose loss is `skill_loss` on average."""

    accuracy: float
    skills: float
    skill_loss: float


class Case(NamedTuple):
    """So many search items, those of a seed, in a folder of its own."""

    folder: Path
    size: int
    seed: int

    @property
    def fitness(self) -> dict[str, Any]:
        """What is searched for, on the items of the case."""
        return {
            "include": ["tasks"],
            "objectives": {"japanese maths": {"task": "math_ja", "metric": "acc"}},
            "items": {"search": self.size, "confirm": CONFIRMED, "group": "group"},
        }

    def written(self) -> "Case":
        """The case with its items on disk: some of the demo's that are not held out."""
        _, rest = _documents()
        rng = random.Random(f"{self.seed} {self.size}")
        chosen = rng.sample(rest, min(len(rest), self.size + CONFIRMED + 12))
        lines = "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in chosen)
        (self.folder / "tasks").mkdir()
        (self.folder / "tasks/math_ja.jsonl").write_text(lines)
        (self.folder / "tasks/math_ja.yaml").write_text((ROOT / "fitness/demo/math_ja.yaml").read_text())
        (self.folder / "fitness.yaml").write_text(yaml.safe_dump(self.fitness))
        return self


def bench_few() -> None:
    """Held-out accuracy and drift by items, method and seed: means and standard deviations over seeds."""
    found: dict[tuple[int, str], list[Figures]] = {}
    for seed in SEEDS:
        for count in COUNTS:
            with tempfile.TemporaryDirectory() as temporary:
                case = Case(Path(temporary), count, seed).written()
                for method in (*GRAINS, *METHODS):
                    figures = judged(made(case, method))
                    found.setdefault((count, method), []).append(figures)
                    print(count, seed, method, *(f"{each:.3f}" for each in figures), flush=True)
    table("few items: accuracy on items that nobody saw, and on skills that the parents had", list(_lines(found)))


def _lines(found: Mapping[tuple[int, str], Sequence[Figures]]) -> Iterator[Sequence[object]]:
    yield "items", "", "mean", "sd", "skills", "their loss"
    with tempfile.TemporaryDirectory() as temporary:
        yield "", START, *_averages([judged(_start(Path(temporary)))])
    for (count, method), rows in found.items():
        chosen = "tensor" if count - _held(count) < ENOUGH else "column"
        yield count, f"{method} (auto)" if method == chosen else method, *_averages(rows)


def _averages(rows: Sequence[Figures]) -> list[str]:
    mean, skills, loss = (statistics.mean(row[i] for row in rows) for i in range(3))
    spread = statistics.stdev(row.accuracy for row in rows) if len(rows) > 1 else 0.0
    return [f"{number:.3f}" for number in (mean, spread, skills, loss)]


def made(case: Case, method: str) -> nn.Module:
    """What a method makes of the items of a case."""
    return _fine_tuned(case, method) if method in METHODS else _learned(case, method)


def _learned(case: Case, name: str) -> nn.Module:
    """What a run of ours ends in, with genes a layer or with a grain."""
    grain = GRAINS[name]
    space: dict[str, object] = {"groups": "layer"} if grain is None else {"groups": "model", "grain": grain}
    plain = {
        "models": {"base": str(MODELS / "base"), "experts": {each: str(MODELS / each) for each in EXPERTS}},
        "space": {**space, "weight": [-0.5, 2.0]},
        "fitness": "fitness.yaml",
        "optimizer": {"kind": "gradient"},
        "budget": {"item_evaluations": UNITS},
        "seed": case.seed,
    }
    path, out = case.folder / f"{name}.yaml", case.folder / f"MODEL-{name}"
    path.write_text(yaml.safe_dump(plain))
    results = search(load_run(path), case.folder / f"RUN-{name}")
    last = max(number for number, asked in results.state.candidates.items() if asked.tradeoff is not None)
    export(results, f"number:{last}", out, formats=("model",))
    return _loaded(out)


def _start(folder: Path) -> nn.Module:
    """The fixed recipe that learning begins at, as a model."""
    path = folder / "start.yaml"
    models = [{"model": str(MODELS / each), "parameters": {"weight": 1.0}} for each in EXPERTS]
    plain = {
        "merge_method": "task_arithmetic",
        "base_model": str(MODELS / "base"),
        "models": models,
        "dtype": "float32",
    }
    path.write_text(yaml.safe_dump(plain))
    merge(path, folder / "START", force=True)
    return _loaded(folder / "START")


def _loaded(folder: Path) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval()


def _fine_tuned(case: Case, method: str) -> nn.Module:
    """The start fine-tuned on all search items but as many as a run of ours holds out, for as many units."""
    (bank,) = open_banks(load_fitness("fitness.yaml", case.folder)).values()
    docs = [dict(bank.items[key].doc) for key in bank.table.search.ids]
    random.Random(case.seed).shuffle(docs)
    held = _held(len(docs))
    batch = min(64, len(docs) - held)
    plan = Plan(int(UNITS / (SLOPE * batch + held / EVERY)), batch, case.seed)
    return tuned(_start(case.folder), method, _examples(docs[held:]), _examples(docs[:held]), plan)


def _held(count: int) -> int:
    """How many of so many items a run of ours holds out, and fine-tuning too."""
    return max(FEWEST_HELD, min(MOST_HELD, count // HELD))


def judged(model: nn.Module) -> Figures:
    """What a model is worth, and what became of the skills of its parents."""
    unseen, _ = _documents()
    skills = [measured(model, _skill(name)) for name in SKILLS]
    loss, right = (statistics.mean(each) for each in zip(*skills, strict=True))
    return Figures(measured(model, _examples(unseen))[1], right, loss)


@cache
def _documents() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The demo's items: those that its preset confirms on, and the rest."""
    (bank,) = open_banks(load_fitness("demo-maths", ROOT)).values()
    unseen = [dict(bank.items[key].doc) for key in bank.table.confirm.ids]
    groups = {doc["group"] for doc in unseen}
    every = [json.loads(line) for line in (ROOT / "fitness/demo/math_ja.jsonl").read_text().splitlines()]
    return unseen, [doc for doc in every if doc["group"] not in groups]


def _examples(docs: Sequence[Mapping[str, str]]) -> Examples:
    return encoded(_tokenizer(), [(doc["prompt"], doc["answer"]) for doc in docs], END)


@cache
def _skill(name: str) -> Examples:
    skill, domain, split = SKILLS[name]
    rng, found = random.Random(name), {}
    for _ in range(20 * ASKED):  # There are not so many of every skill.
        item = skill(rng, domain, split)
        found[item.prompt] = item.answer
    return encoded(_tokenizer(), list(found.items())[:ASKED], END)


@cache
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODELS / "base")
