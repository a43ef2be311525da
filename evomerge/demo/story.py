"""The whole story of a merge search, told while it happens: every number printed is computed in that run."""

import itertools
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.assemble import Listener, export, search
from evomerge.files import new_folder
from evomerge.report import write_report
from evomerge.results import Results
from evomerge.signals import works_on
from evomerge.spec import load_run
from evomerge.store import RunStore
from evomerge.terminal import Ticker, duration, results_tables
from evomerge.terminal import console as new_console

MODELS = Path(__file__).parent / "models"
QUESTIONS = 3
RUN_FILE = """\
# {title}
models:
  base: {models}/base
  experts:
{experts}
space: {space}
fitness: {fitness}
optimizer: {{kind: {optimizer}}}
budget: {{{budget}}}
seed: {seed}
"""


SEARCHES = {
    "skill": (("maths", "japanese"), "demo-maths", "cma"),
    "front": (("maths", "japanese", "lists"), "demo", "nsga2"),
    "learned": (("maths", "japanese", "lists"), "demo", "gradient"),
}
"""Experts, fitness and optimiser of the searches."""
UNITS = 40
"""Item evaluations that learning gets for each candidate of a search, which is put to some 40 items of a task."""


def free(path: Path) -> Path:
    """The path, or the first numbered one beside it that does not exist."""
    numbered = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return path if not os.path.lexists(path) else next(other for other in numbered if not os.path.lexists(other))


def tell(out: Path, *, evaluations: int = 300, seed: int = 7) -> dict[str, Results]:
    """Search, learn, confirm, export, ask the exported model, write the reports; all of it below `out`.

    Raises:
        SpecError: `out` exists and is not empty, or cannot be made.
        RunError: the disk is full.
    """
    _write_run_files(out, evaluations, seed)
    console = new_console()
    started = time.monotonic()
    _say(
        console,
        """
        Three experts were fine-tuned from one small base: one does maths, in English; one turns Japanese word
        problems into formulas, and cannot compute; one sorts lists. Nobody can do Japanese maths.
        Can a merge, without any training?
        """,
    )
    one = _search(console, out / "skill")
    _say(console, f"\nHeld-out accuracy, {_items(one)} items the search never saw, with 95 % intervals:")
    _tables(console, one)
    _say(console, "\nNow both skills at once, over all three experts: what does more of one cost of the other?")
    two = _search(console, out / "front")
    _tables(console, two)
    volumes = two.hypervolumes() or {}
    _say(
        console,
        f"Hypervolume on held-out items: front {volumes['front']:.4f}, all fixed recipes {volumes['fixed']:.4f}",
    )
    three = _learned(console, out, volumes)
    model = out / "model"
    export(three, one.objectives[0], model)
    _say(console, f"\nThe one best at Japanese maths is in {model}. Stock transformers loads it; beside its parents:")
    console.print(_conversation(one, {"merged": model, **{name: MODELS / name for name in ("maths", "japanese")}}))
    told = dict(zip(SEARCHES, (one, two, three), strict=True))
    reports = [str(write_report(results, out / f"{name}.html")) for name, results in told.items()]
    _say(console, f"\nReports: {', '.join(reports)}. All of it took {duration(time.monotonic() - started)}.")
    _say(console, _next_steps(out))
    return told


def _learned(console: Console, out: Path, volumes: Mapping[str, float]) -> Results:
    """The same front, learned instead of searched."""
    _say(
        console,
        """

        Those weights were searched: of each candidate nothing counted but how good it was as a whole. Now they are
        learned, from which way every answer leans: one weight an expert and column of every tensor, as a function of
        what the two skills count, for as many items.
        """,
    )
    found = _search(console, out / "learned")
    _tables(console, found)
    front = (found.hypervolumes() or {})["front"]
    _say(console, f"Hypervolume on held-out items: learned {front:.4f}, evolved {volumes['front']:.4f}")
    return found


def _write_run_files(out: Path, evaluations: int, seed: int) -> None:
    with new_folder(RunStore.target(out)) as fresh:
        for name in SEARCHES:
            (fresh / f"{name}.yaml").write_text(_run_file(out / name, evaluations, seed), encoding="utf-8")


def _run_file(out: Path, evaluations: int, seed: int) -> str:
    """What the user can edit, to search again."""
    experts, fitness, optimizer = SEARCHES[out.name]
    learned = optimizer == "gradient"
    return RUN_FILE.format(
        title=f"Run it again, with another seed, say: evomerge search {out}.yaml --out AGAIN",
        models=MODELS,
        experts="\n".join(f"    {name}: {MODELS / name}" for name in experts),
        fitness=fitness,
        space="learned" if learned else "per-layer",
        optimizer=optimizer,
        budget=f"item_evaluations: {UNITS * evaluations}" if learned else f"evaluations: {evaluations}",
        seed=seed,
    )


def _search(console: Console, out: Path) -> Results:
    path = out.with_suffix(".yaml")
    console.print(Text(f"\n$ evomerge search {path} --out {out}"))
    ticker = Ticker(new_console())
    works_on(out)
    try:
        return search(load_run(path), out, listener=Listener(ticker.say, ticker.watch))
    finally:
        ticker.close()


def _tables(console: Console, results: Results) -> None:
    for table in results_tables(results):
        console.print()
        console.print(table)


def _items(results: Results) -> str:
    return ", ".join(str(len(task.confirm.ids)) for task in results.store.table.tasks.values())


def _conversation(results: Results, folders: Mapping[str, Path]) -> Table:
    """Held-out questions put to exported and original folders by stock transformers."""
    from evomerge.score import open_banks

    bank = open_banks(results.fitness)["math_ja"]
    docs = [bank.items[key].doc for key in bank.table.confirm.ids[:QUESTIONS]]
    table = Table(show_edge=False)
    table.add_column("question")
    table.add_column("answer")
    for name in folders:
        table.add_column(name)
    answers = {name: _answers(folder, [str(doc["prompt"]) for doc in docs]) for name, folder in folders.items()}
    for i, doc in enumerate(docs):
        table.add_row(str(doc["prompt"]), str(doc["answer"]), *(answers[name][i] for name in folders))
    return table


def _answers(folder: Path, prompts: Sequence[str]) -> list[str]:
    """Greedy answers of a model folder, by nothing but transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evomerge.checkpoint import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        inputs = tokenizer(list(prompts), return_tensors="pt", padding=True)
        made = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=12)
    texts: list[str] = tokenizer.batch_decode(made[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def _next_steps(out: Path) -> str:
    width = shutil.get_terminal_size().columns
    return f"""
        {"-" * min(width, 100)}
        With your own models:

          evomerge init path/to/base path/to/expert1 path/to/expert2     # writes run.yaml
          evomerge plan run.yaml                                         # checks it, measures one candidate
          evomerge search run.yaml --out RUN                             # Ctrl-C stops it, evomerge resume RUN goes on
          evomerge show RUN
          evomerge export RUN --pick best --out MODEL
          evomerge report RUN

        Look into {out / "skill.yaml"} for a run file, and into {out / "skill"} for what a run leaves.
        """


def _say(console: Console, text: str) -> None:
    console.print(Text(dedent(text).strip("\n") if text.startswith("\n ") else text))
