"""What a command line may say: arguments and options, with their help."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Pool(StrEnum):
    """Which items to score on."""

    all = "all"
    search = "search"
    confirm = "confirm"
    report = "report"


class What(StrEnum):
    """What an export writes."""

    model = "model"
    recipe = "recipe"
    mergekit = "mergekit"
    all = "all"
    adapter = "adapter"


class Kind(StrEnum):
    """How estimates are made from some items; `docs/run-file.md` says when to choose which."""

    mean = "mean"
    weighted = "weighted"
    p_irt = "p_irt"
    gp_irt = "gp_irt"
    mp_irt = "mp_irt"
    gmp_irt = "gmp_irt"
    difference = "difference"
    aipw = "aipw"
    blend = "blend"


class Where(StrEnum):
    """Where candidates are evaluated."""

    inline = "inline"
    ray = "ray"


PICK = (
    "best (highest confirmed value), knee (the balanced point of a front), an objective's name, number:N, or failed:N."
)
RunFile = Annotated[Path, typer.Argument(help="The run file.", metavar="RUN.yaml")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write; missing or empty.")]
Page = Annotated[
    Path | None, typer.Option("--out", "-o", help="The file; RUN/report.html if left out, made anew if it is there.")
]
NewRun = Annotated[Path, typer.Option("--out", "-o", help="The run folder to make; missing or empty.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what evomerge wrote there before.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the models.")]
Estimator = Annotated[
    Kind | None, typer.Option(help="Another estimator than the search's own, to see its candidates by; needs no model.")
]
Top = Annotated[
    int,
    typer.Option(
        min=1,
        help="How many of the search's best; with several objectives it is their whole front,"
        " cut to 24, or to this if it is more; with a cost it is at least this many.",
    ),
]
Models = Annotated[
    list[str],
    typer.Argument(
        help="The base, then the experts (with --no-base, experts only): folders or hub ids.", metavar="FOLDER"
    ),
]
Recipe = Annotated[
    Path, typer.Argument(help="A recipe of evomerge's, or a mergekit configuration.", metavar="RECIPE.yaml")
]
Executor = Annotated[
    Where | None,
    typer.Option(
        help="inline (this process), or ray: a worker for every accelerator, or core, of a machine or cluster."
    ),
]
Address = Annotated[
    str | None, typer.Option(help="auto or HOST:PORT of a Ray cluster; local: this machine; left out: the run's.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="How many workers on Ray; left out: as many as there is room for.")
]
Responses = Annotated[
    list[Path],
    typer.Argument(
        help="What models answered, one file a task: item ids in the first row, model names in the first column, marks"
        " from 0 to 1; .csv, .parquet or .npz.",
        metavar="RESPONSES",
    ),
]
Dimensions = Annotated[str, typer.Option(help="Of ability: auto (what predicts best), or a number.", metavar="auto|N")]
