"""What a gradient costs beside forward passes: on the demo's models, and on a random one of the shape of 0.5B."""

import resource
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import MODELS, ROOT, table, timed
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.checkpoint import Shares
from evomerge.evaluate import Evaluator, EvaluatorFactory
from evomerge.fitness import Fitness
from evomerge.recipe import Grain
from evomerge.space import BlendSpec, bind
from evomerge.spec import Models
from evomerge.trial import Draw, Lesson, Work

HALF_BILLION = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
"""Qwen2.5-0.5B."""


def bench_gradient() -> None:
    """Losses and slopes of a step's items, in every grain and item by item, against marks of as many."""
    experts = ("maths", "japanese")
    demo = Models(base=str(MODELS / "base"), experts={name: str(MODELS / name) for name in experts})
    measure("the demo's models", demo, (16, 64), 9)
    with tempfile.TemporaryDirectory() as temporary:
        measure("random weights of 0.5B", half_billion(Path(temporary)), (16, 64), 2)


def half_billion(folder: Path) -> Models:
    """A base and two experts, in bf16."""
    config = AutoConfig.for_model("qwen2", **HALF_BILLION)
    paths = {}
    for seed, name in enumerate(("base", "one", "two")):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        paths[name] = str(folder / name)
        model.save_pretrained(paths[name])
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(MODELS / "base" / file, folder / name / file)
    return Models(base=paths["base"], experts={name: paths[name] for name in ("one", "two")})


def measure(title: str, models: Models, counts: Sequence[int], rounds: int) -> None:
    """CPU seconds of marks and lessons on so many items, and how much higher memory got."""
    fitness = Fitness.model_validate(
        {
            "include": (str(ROOT / "fitness/demo"),),
            "objectives": {"maths": {"task": "math_ja", "metric": "acc"}},
            "items": {"search": max(counts), "confirm": 16},
        }
    )
    evaluator = EvaluatorFactory(models, fitness, 0, "cpu", compiled=False, reuse=0.0, threads=1).build()
    rows: list[Sequence[object]] = [("items", "what", "CPU s", "forwards", "peak MiB more")]
    for count in counts:
        found: dict[str, float] = {}
        more: dict[str, float] = {}
        for name, work in works(evaluator, count).items():
            before = peak()
            found |= timed({name: lambda _, work=work: answered(evaluator, work)}, rounds)  # type: ignore[misc]
            more[name] = peak() - before
        rows += [(count, name, cpu, cpu / found["marks"], more[name]) for name, cpu in found.items()]
    size = max(torch.Size(shape).numel() for shape in evaluator.live.files.anatomy.shapes.values())
    table(f"gradient: {title}; the largest tensor's gradient takes {size * 4 / 2**20:.0f} MiB", rows)


def works(evaluator: Evaluator, count: int) -> dict[str, Work]:
    """Marks and lessons of one recipe on so many items."""
    space = bind(BlendSpec(), evaluator.parents)
    recipe = space.decode((0.4,) * len(space.genes))
    draw = Draw(pool="search", places={"math_ja": tuple(range(count))})
    marks = Work(id=0, number=0, recipe=recipe, draw=draw, purpose="search")
    grains: tuple[Grain | None, ...] = (None, "tensor", "column", "row")
    lessons = {
        f"by {grain}" if grain else "losses": Lesson(grain=grain, weights={"math_ja": 1 / count}) for grain in grains
    }
    names = Shares(recipe, evaluator.live.files.anatomy).coefficients(None).arrays
    lessons["by item"] = Lesson(weights={}, ties=dict.fromkeys(names, (0, 1)))
    return {"marks": marks} | {
        name: marks.model_copy(update={"lesson": lesson, "purpose": "gradient"}) for name, lesson in lessons.items()
    }


def answered(evaluator: Evaluator, work: Work) -> None:
    """Have it done."""
    outcome = evaluator(work).outcome
    assert isinstance(outcome, dict), outcome


def peak() -> float:
    """The most memory that this process had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
