"""Turns a command line into one call."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evomerge import signals
from evomerge.arguments import (
    PICK,
    Address,
    Dimensions,
    Estimator,
    Executor,
    Force,
    Models,
    NewRun,
    Out,
    Page,
    Pool,
    Recipe,
    Responses,
    Run,
    RunFile,
    Top,
    Trust,
    What,
    Workers,
)
from evomerge.ending import end
from evomerge.errors import SpecError
from evomerge.version import __version__
from evomerge.watch import conduct, console, elsewhere, read, say, show_results, stage_keys, watched

app = typer.Typer(
    name="evomerge",
    help="Evolutionary search for the best way to merge fine-tuned language models.",
    epilog="Start: `evomerge demo`. Your own models: init, plan, search, show, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write runs, models, reports; evomerge-demo if free.")
    ] = None,
    evaluations: Annotated[int, typer.Option(min=30, help="Candidates of each of the two searches.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The searches' seed.")] = 7,
) -> None:
    """Watch a whole search on small models shipped with evomerge.

    It takes minutes on a CPU: two searches, held-out confirmation, an exported model, two reports.
    """
    from evomerge.demo import free, tell

    tell(out or free(Path("evomerge-demo")), evaluations=evaluations, seed=seed)


@app.command()
def init(
    folders: Models,
    out: Annotated[Path, typer.Option("--out", "-o", help="The run file to write.")] = Path("run.yaml"),
    base: Annotated[bool, typer.Option("--base/--no-base", help="Whether the first folder is the base.")] = True,
) -> None:
    """Write a commented run file for these models."""
    from evomerge.starter import write_run_file

    write_run_file(folders, out, first_is_base=base)
    say(f"wrote {out}; look it through, then: evomerge plan {out}")


@app.command()
def plan(run: RunFile) -> None:
    """Check a run file and measure one candidate, searching nothing.

    It prints what the search will take: genes, items, time, memory, disk.
    """
    from evomerge.assemble import plan as make
    from evomerge.terminal import plan_text

    found = watched(lambda listener: make(run, listener=listener))
    say(*plan_text(found))


@app.command()
def search(
    run: RunFile,
    out: NewRun,
    executor: Executor = None,
    address: Address = None,
    workers: Workers = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Evaluations, instead of the run file's budget.")] = None,
    go_on: Annotated[
        bool, typer.Option("--resume", help="Go on, if there is a run; for jobs that are requeued.")
    ] = False,
) -> None:
    """Search for the best merge and confirm it on held-out items.

    Ctrl-C stops it after the running candidates; `evomerge resume` goes on.
    """
    signals.works_on(out)
    from evomerge.assemble import search as go
    from evomerge.spec import Budget, StagedSpec, is_run, load_spec

    if go_on and is_run(out):
        resume(out, budget, executor=executor, address=address, workers=workers)
        return
    spec = elsewhere(None, executor, address, workers).of(load_spec(run))
    if budget is not None:
        if isinstance(spec, StagedSpec) and all(stage.share is None for stage in spec.stages):
            raise SpecError("--budget: every stage has a budget of its own; give them shares of it instead")
        spec = spec.model_copy(update={"budget": Budget(evaluations=budget)})
    conduct(out, lambda listener: go(spec, out, listener=listener))


@app.command()
def resume(
    run: Run,
    budget: Annotated[int | None, typer.Option(min=1, help="Evaluations in all, instead of the budget so far.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to go on: auto, cpu, cuda or cuda:N.")] = None,
    executor: Executor = None,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Go on with a stopped, killed or finished search.

    A finished one needs a larger --budget.
    """
    signals.works_on(run)
    from evomerge.assemble import resume as go
    from evomerge.spec import Budget

    extended = Budget(evaluations=budget) if budget is not None else None
    where = elsewhere(device, executor, address, workers)
    conduct(run, lambda listener: go(run, budget=extended, elsewhere=where, listener=listener))


@app.command()
def show(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every candidate, one line each.")] = False,
    estimator: Estimator = None,
) -> None:
    """Print a run's status, baselines, front and failures.

    It may be running meanwhile.
    """
    from evomerge.terminal import csv_lines

    results = read(run, estimator.value if estimator else None)
    if as_json:
        say(json.dumps(results.to_json() | stage_keys(run, results), ensure_ascii=False))
    elif as_csv:
        say(*csv_lines(results))
    else:
        show_results(results, run)


@app.command()
def confirm(
    run: Run,
    top: Top = 8,
    executor: Executor = None,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Score the best candidates of a run on held-out items.

    Parents and fixed recipes are scored on the same items, unless they were before.
    """
    signals.works_on(run)
    from evomerge.assemble import confirm_more

    where = elsewhere(None, executor, address, workers)
    conduct(run, lambda listener: confirm_more(run, top, elsewhere=where, listener=listener))


@app.command()
def export(
    run: Run,
    out: Out,
    pick: Annotated[str, typer.Option(help=PICK)] = "best",
    format: Annotated[list[What], typer.Option(help="What to write; may be given several times.")] = [What.all],  # noqa: B006
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="Of --format adapter; left out: what it takes to be the merge, of adapters added up."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a candidate as a model folder, recipe, or other format.

    A model card, the run file and checksums lie beside it.
    """
    from evomerge.assemble import export as go
    from evomerge.export import AsAdapter

    results = read(run)
    if rank is not None and What.adapter not in format:
        raise SpecError("--rank: it is of an adapter; write --format adapter, or leave it out")
    formats: Any = [AsAdapter(rank) if what is What.adapter else what.value for what in format]
    remarks = watched(lambda listener: go(results, pick, out, formats=formats, force=force, listener=listener))
    say(*remarks, f"wrote {out}")


@app.command()
def report(run: Run, out: Page = None, force: Force = False) -> None:
    """Write one self-contained HTML page about a run."""
    from evomerge.report import write_report

    say(f"wrote {write_report(read(run), out or run / 'report.html', force=force or out is None)}")


@app.command()
def merge(
    recipe: Recipe,
    out: Out,
    force: Force = False,
    trust_remote_code: Trust = False,
) -> None:
    """Merge a recipe to a model folder, without a search."""
    from evomerge.assemble import merge as go

    watched(lambda listener: go(recipe, out, force=force, trusted=trust_remote_code, listener=listener))
    say(f"wrote {out}")


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A model folder, or a recipe.", metavar="MODEL_OR_RECIPE")],
    fitness: Annotated[str, typer.Option(help="A fitness file, or a preset's name.")],
    items: Annotated[
        Pool,
        typer.Option(
            help="search items, confirm items (held out from searches), report items (seen by no choice), or all."
        ),
    ] = Pool.confirm,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Score one model, or one recipe, on a fitness."""
    from evomerge.assemble import score as go
    from evomerge.spec import load_fitness
    from evomerge.terminal import scores_table

    wanted = load_fitness(fitness, Path.cwd())
    found = watched(
        lambda listener: go(model, wanted, items=items.value, trusted=trust_remote_code, listener=listener),
        quiet=as_json,
    )
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    else:
        console().print(scores_table(found["objectives"], found["items"], wanted.costs()))


@app.command()
def calibrate(
    responses: Responses,
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration to write, .npz or .json.")],
    dimensions: Dimensions = "auto",
    anchors: Annotated[int, typer.Option(min=1, help="Items of each task that stand for all.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the clusters that anchors are chosen from.")] = 0,
    force: Force = False,
) -> None:
    """Fit item response models to what many models answered.

    It prints how well models that were held out are predicted.
    """
    from evomerge.assemble import calibrate as go
    from evomerge.assemble import dimensions_of
    from evomerge.estimate.calibrate import Fitting

    fitting = Fitting(dimensions_of(dimensions), anchors, seed)
    found = watched(lambda listener: go(responses, out, fitting, force=force, listener=listener))
    say(*found.lines(), f"wrote {out}")


def main() -> None:
    """The command line; ends with the exit status that `docs/cli.md` lists."""
    end(app)
