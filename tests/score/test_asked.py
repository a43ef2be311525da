"""What a model is asked, how, and what is said of it: sampling, windows, classes that our way does not suit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from conftest import DEMO_MODELS, Typed
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_tasks import write_tasks
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.fitness import Fitness, Items, Objective
from evomerge.score import TaskScorer, open_banks
from evomerge.score.slow import sampling_seed
from evomerge.trial import Draw

CHANCE = {"do_sample": True, "temperature": 9.0, "max_gen_toks": 5, "until": ["\n"]}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), count=8)


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths", dtype=torch.float32).eval()


def scorer(tasks: Path, model: Any, seed: int = 0, **objective: Any) -> TaskScorer:
    fitness = Fitness(include=(str(tasks),), objectives={"it": Objective(**objective)}, items=Items(search=5))
    return TaskScorer(fitness, open_banks(fitness), model, DEMO_MODELS / "maths", seed=seed)


def answers(one: TaskScorer, task: str, places: tuple[int, ...] | None = None) -> dict[str, Any]:
    """What the model said, by item."""
    one.marks(Draw(pool="search", places=None if places is None else {task: places}))
    ids = one.table.tasks[task].search.ids
    wanted = ids if places is None else [ids[place] for place in places]
    return {key: [list(each.resps) for each in one._requests[task][key]] for key in wanted}


def test_what_is_sampled_depends_on_seed_and_item_alone(tasks: Path, model: Any) -> None:
    one = scorer(tasks, model, 1, task="long", generation=CHANCE)
    assert "sampling" in next(iter(one.notes))
    state = torch.random.get_rng_state()
    whole = answers(one, "long")
    assert torch.equal(state, torch.random.get_rng_state())
    assert answers(scorer(tasks, model, 1, task="long", generation=CHANCE), "long", (3, 0)).items() <= whole.items()
    assert answers(scorer(tasks, model, 2, task="long", generation=CHANCE), "long") != whole


def test_what_is_sampled_is_what_lm_eval_samples_from_that_seed(
    tasks: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scorer(tasks, model, 1, task="long", generation=CHANCE)
    ((said,),) = answers(one, "long", (0,)).values()
    key = one.table.tasks["long"].search.ids[0]
    monkeypatch.chdir(tasks)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(DEMO_MODELS / "maths")),
        tasks=["long"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        gen_kwargs=dict(CHANCE),
        samples={"long": [one._banks["long"].items[key].index]},
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=sampling_seed(1, one._requests["long"][key][0], 0),
        bootstrap_iters=0,
    )
    assert found["samples"]["long"][0]["resps"] == [said]


@pytest.mark.parametrize(("task", "inputs"), [("choices", "position_ids"), ("written", "logits_to_keep")])
@pytest.mark.parametrize("how", ["raises", "forgets"])
def test_a_class_that_our_way_does_not_suit_is_run_by_lm_eval(
    task: str, inputs: str, how: str, tasks: Path, model: Any
) -> None:
    """Log-likelihoods or generation: inputs that the class does not know, or answers that are others with them."""
    expected = answers(scorer(tasks, model, task=task), task)
    plain = model.forward

    def forward(*asked: Any, **given: Any) -> Any:
        if inputs in given and how == "raises":
            raise TypeError(f"forward() got an unexpected keyword argument {inputs!r}")
        out = plain(*asked, **given)
        if inputs in given:
            out.logits = out.logits.flip(-1)
        return out

    model.forward = forward
    one = scorer(tasks, model, task=task)
    (note,) = one.notes
    assert "through lm-eval's HFLM, which is slower: LlamaForCausalLM run our way: " in note
    assert ("unexpected keyword" in note) == (how == "raises")
    for key, each in answers(one, task).items():
        for mine, other in zip(each, expected[key], strict=True):
            assert mine == (other if task == "written" else [(pytest.approx(other[0][0], abs=1e-4), other[0][1])])


def write_long(folder: Path) -> Path:
    """Multiple choice over prompts of all lengths."""
    folder.mkdir()
    rows = [{"q": "9 8 7 " * (place * 9), "options": ["1", "2"], "gold": place % 2} for place in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "long.yaml").write_text(
        f"task: long\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{q}} =>"\ndoc_to_choice: options\n'
        "doc_to_target: gold\n"
    )
    return folder


def test_prompts_beyond_the_window_are_counted_wherever_numbers_are_shown(
    cli: Callable[..., Typed], run_file: Callable[..., Path], tmp_path: Path
) -> None:
    fitness = {
        "include": [str(write_long(tmp_path / "tasks"))],
        "objectives": {"x": {"task": "long"}},
        "items": {"search": 8, "confirm": 8},
        "estimator": "mean",
    }
    path = run_file(fitness=fitness, budget={"evaluations": 4})
    planned = cli("plan", path)
    assert planned.status == 0, planned.err
    (said,) = [line for line in planned.out.splitlines() if "longer than the model's window" in line]
    window = json.loads((DEMO_MODELS / "base/config.json").read_text())["max_position_embeddings"]
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS / "base")
    lost = [len(tokenizer("9 8 7 " * (place * 9) + " => 1")["input_ids"]) - window - 1 for place in range(16)]
    assert f"long: {sum(each > 0 for each in lost)} of 16 items" in said
    assert f"at most {max(lost)} tokens are cut off their beginning" in said
    assert cli("search", path, "--out", tmp_path / "RUN").status == 0
    assert "items are longer than the model's window" in " ".join(cli("show", tmp_path / "RUN").out.split())


@pytest.mark.parametrize("most", [0, 100_000])
def test_no_room_for_a_prompt_is_refused_by_plan(
    most: int, tasks: Path, cli: Callable[..., Typed], run_file: Callable[..., Path]
) -> None:
    objective = {"task": "written", "generation": {"max_gen_toks": most}}
    fitness = {"include": [str(tasks)], "objectives": {"x": objective}, "items": {"search": 2, "confirm": 2}}
    found = cli("plan", run_file(fitness=fitness))
    assert found.status == 2
    assert "task 'written': document" in found.err and f"max_gen_toks is {most}" in found.err
    assert "Traceback" not in found.err
