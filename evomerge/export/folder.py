"""The folders that a recipe or a run is exported to."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from evomerge.checkpoint import ParentFiles, whole_folder, write_sums
from evomerge.errors import RunError, SpecError
from evomerge.export.card import model_card
from evomerge.export.rounding import rounding_remark
from evomerge.export.to_mergekit import caveats, to_mergekit
from evomerge.export.weights import write_weights
from evomerge.recipe import Recipe
from evomerge.results import Results, Row
from evomerge.values import digest_of
from evomerge.visible import visible

Format: TypeAlias = Literal["model", "recipe", "mergekit", "all"]
RECIPE = "recipe.yaml"
MERGEKIT = "mergekit.yml"
RUN = "run.yaml"


def export_run(
    results: Results, row: Row, files: ParentFiles, out: Path, formats: Sequence[Format], *, force: bool = False
) -> list[str]:
    """Write a candidate of a run as a model folder, a recipe, a mergekit configuration, or all of them.

    Returns remarks the user should read.

    Raises:
        SpecError: `out` exists and `force` is not given; only `mergekit` is wanted and has no words for the recipe; the
            models cannot have such layers or scales.
        RunError: the disk is full.
    """
    recipe = results.recipe(row.number).only_used()
    remarks: list[str] = []
    note = None
    wanted = {*formats} | ({"model", "mergekit"} if "all" in formats else set())
    with _room(out), whole_folder(out, force=force, keep=[results.store.folder, *_folders(files)]) as folder:
        write_recipe(folder / RECIPE, recipe)
        write_run(folder / RUN, results)
        if "mergekit" in wanted:
            remarks += _write_mergekit(folder / MERGEKIT, recipe, files, insist=wanted == {"mergekit"})
        if "model" in wanted:
            note = _write_model(folder, recipe, files)
            remarks += [*files.remarks(), *([note] if note else [])]
        (folder / "README.md").write_text(model_card(results, row, recipe, out, note=note))
        (folder / "reproduce.json").write_text(json.dumps(_how(results, row, out), indent=2, ensure_ascii=False) + "\n")
        write_sums(folder)
    return remarks


def export_recipe(recipe: Recipe, files: ParentFiles, out: Path, *, force: bool = False) -> list[str]:
    """Merge a recipe to a model folder, without a search; returns remarks the user should read.

    Raises:
        SpecError: `out` exists and `force` is not given, or the models cannot have such layers or scales.
        RunError: the disk is full.
    """
    with _room(out), whole_folder(out, force=force, keep=_folders(files)) as folder:
        note = _write_model(folder, recipe, files)
        write_recipe(folder / RECIPE, recipe)
        write_sums(folder)
    return [*files.remarks(), *([note] if note else [])]


def write_recipe(path: Path, recipe: Recipe) -> None:
    """A recipe as YAML, which `evomerge merge` reads."""
    plain = {"format": recipe.format, **recipe.to_plain()}
    path.write_text(yaml.dump(plain, Dumper=_Compact, sort_keys=False, allow_unicode=True, width=120))


def write_run(path: Path, results: Results) -> None:
    """The run file of a search, with every default written out, which `evomerge search` reads."""
    plain = results.file.spec.model_dump(mode="json", exclude_none=True)
    path.write_text(yaml.dump(plain, Dumper=_Compact, sort_keys=False, allow_unicode=True, width=120))


def _write_model(folder: Path, recipe: Recipe, files: ParentFiles) -> str | None:
    """Write the weights; what rounding them does, if anything."""
    write_weights(folder, recipe, files)
    return rounding_remark(recipe, files, folder)


def _folders(files: ParentFiles) -> list[Path]:
    return [checkpoint.path for checkpoint in files.checkpoints.values()]


def _write_mergekit(path: Path, recipe: Recipe, files: ParentFiles, *, insist: bool) -> list[str]:
    try:
        plain = to_mergekit(recipe, files)
    except SpecError as error:
        if insist:
            raise
        return [f"no {path.name}: {error}"]
    notes = caveats(recipe, files)
    head = "".join(f"# {visible(note)}.\n" for note in notes)
    path.write_text(head + yaml.dump(plain, Dumper=_Compact, sort_keys=False, width=120))
    return [f"{path.name}: {note}" for note in notes]


def _how(results: Results, row: Row, out: Path) -> dict[str, Any]:
    """What it takes to make this folder again."""
    opened = results.state.opened
    spec = results.file.to_plain()
    run = results.store.folder
    export = ["evomerge", "export", run.name, "--pick", f"number:{row.number}", "--out", out.absolute().name]
    return {
        "candidate": row.number,
        "recipe": row.recipe,
        "search": f"evomerge search {RUN} --out {shlex.quote(run.name)}",
        "export": shlex.join(export),
        "versions": opened.versions if opened else {},
        "device": opened.device if opened else None,
        "spec": spec,
        "spec_digest": digest_of(spec),
    }


class _room:
    """Turns a full disk into one line."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise RunError(
                f"{self._out} cannot be written ({error.strerror or error}); nothing was left behind"
            ) from None


class _Compact(yaml.SafeDumper):
    """YAML with one line for each mapping or list that holds only plain values."""


def _flow(dumper: _Compact, data: Any) -> yaml.Node:
    values = list(data.values()) if isinstance(data, dict) else data
    leaves = all(not isinstance(value, dict | list) or _small(value) for value in values)
    if isinstance(data, dict):
        return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=leaves and bool(values))
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=leaves and bool(values))


def _small(value: dict[str, Any] | list[Any]) -> bool:
    return len(value) <= 1 and not any(
        isinstance(v, dict | list) for v in (value.values() if isinstance(value, dict) else value)
    )


_Compact.add_representer(dict, _flow)
_Compact.add_representer(list, _flow)
