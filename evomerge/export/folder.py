"""The folders that a recipe or a run is exported to."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, assert_never

import yaml

from evomerge.arrays import SUFFIX
from evomerge.checkpoint import ParentFiles
from evomerge.errors import SpecError
from evomerge.export.adapter import AsAdapter, write_adapter
from evomerge.export.card import model_card
from evomerge.export.rounding import rounding_remark
from evomerge.export.to_mergekit import caveats, to_mergekit
from evomerge.export.weights import write_weights
from evomerge.files import Target, among, changed_since, new_folder, write_sums
from evomerge.recipe import FILE, Arrays, Coefficients, Recipe
from evomerge.results import Results, Row
from evomerge.values import digest_of
from evomerge.visible import visible

Format: TypeAlias = Literal["model", "recipe", "mergekit", "all"]
Wanted: TypeAlias = Format | AsAdapter
RECIPE = "recipe.yaml"
EXACT = 1e-4
"""A share of what a merge adds that is no more than rounding."""
MERGEKIT = "mergekit.yml"
RUN = "run.yaml"


def export_target(out: Path, *, force: bool = False, needed: Sequence[Path] = ()) -> Target:
    """The place of an exported folder; with `force` one that evomerge wrote, and nobody changed, may be there.

    It has nothing to do with what is needed.

    Raises:
        SpecError: something else is there, or no folder can be made.
    """
    return Target.folder(out, lambda path: among(path, needed) or _not_ours(path), force=force)


def export_run(
    results: Results,
    row: Row,
    files: ParentFiles,
    out: Path | Target,
    formats: Sequence[Wanted],
) -> list[str]:
    """Write a candidate of a run as a model folder, a recipe, a mergekit configuration, or all of them; or an adapter.

    Returns remarks the user should read.

    Raises:
        SpecError: `out` exists; only `mergekit` is wanted and has no words for the recipe; the models cannot have such
            layers or scales.
        RunError: the disk is full, a weight is not finite, or something came to be at `out` meanwhile.
    """
    recipe = results.recipe(row.number).only_used()
    remarks: list[str] = []
    note = None
    wanted = {part for format in formats for part in _parts(format)}
    target = _spared(out, [results.store.folder, *_folders(files)])
    with new_folder(target, rescue=True) as folder:
        write_recipe(folder / RECIPE, recipe)
        write_run(folder / RUN, results)
        if "mergekit" in wanted:
            remarks += _write_mergekit(folder / MERGEKIT, recipe, files, insist=set(formats) == {"mergekit"})
        if "model" in wanted:
            note = _write_model(folder, recipe, files)
            remarks += [*files.remarks(), *([note] if note else [])]
        for adapter in (format for format in formats if isinstance(format, AsAdapter)):
            note = _write_adapter(folder, recipe, files, adapter.rank)
            remarks.append(note)
        _write(
            folder / "README.md", model_card(results, row, recipe, target.path, note=note, adapter="adapter" in wanted)
        )
        how = _how(results, row, target.path, formats)
        _write(folder / "reproduce.json", json.dumps(how, indent=2, ensure_ascii=False) + "\n")
        write_sums(folder)
    return remarks


def _write_adapter(folder: Path, recipe: Recipe, files: ParentFiles, rank: int | None) -> str:
    made = write_adapter(folder, recipe, files, rank)
    return (
        f"an adapter of rank {made.rank}: of what the merge adds to matrices it lacks {made.error:.2%}"
        if made.error > EXACT
        else f"an adapter of rank {made.rank}, which is the whole merge before it is rounded to {recipe.dtype}"
    )


def _parts(format: Wanted) -> tuple[Literal["model", "mergekit", "adapter"], ...]:
    """What is written of a format, beside the recipe, which always is."""
    match format:
        case "model" | "mergekit":
            return (format,)
        case AsAdapter():
            return ("adapter",)
        case "recipe":
            return ()
        case "all":
            return ("model", "mergekit")
        case _:
            assert_never(format)


def export_recipe(recipe: Recipe, files: ParentFiles, out: Path | Target) -> list[str]:
    """Merge a recipe to a model folder, without a search; returns remarks the user should read.

    Raises:
        SpecError: `out` exists, or the models cannot have such layers or scales.
        RunError: the disk is full, a weight is not finite, or something came to be at `out` meanwhile.
    """
    with new_folder(_spared(out, _folders(files)), rescue=True) as folder:
        note = _write_model(folder, recipe, files)
        write_recipe(folder / RECIPE, recipe)
        write_sums(folder)
    return [*files.remarks(), *([note] if note else [])]


def write_recipe(path: Path, recipe: Recipe) -> None:
    """A recipe as YAML, which `evomerge merge` reads, and its side file beside it.

    Raises:
        SpecError: that cannot be read, or was changed.
    """
    plain = {"format": recipe.format, **_with_side_files(recipe, path.parent, recipe.arrays).to_plain()}
    _write(path, yaml.dump(plain, Dumper=_Compact, sort_keys=False, allow_unicode=True, width=120))


def write_run(path: Path, results: Results) -> None:
    """The run file of a search, with every default written out, which `evomerge search` reads.

    Raises:
        SpecError: the side file of a recipe among its experts cannot be read, or was changed.
    """
    spec = results.file.spec
    sources = spec.models.experts.items()
    experts = {name: _with_side_files(it, path.parent) if isinstance(it, Recipe) else it for name, it in sources}
    spec = spec.model_copy(update={"models": spec.models.model_copy(update={"experts": experts})})
    plain = spec.model_dump(mode="json", exclude_none=True)
    _write(path, yaml.dump(plain, Dumper=_Compact, sort_keys=False, allow_unicode=True, width=120))


def _with_side_files(recipe: Recipe, folder: Path, own: Arrays | None = None) -> Recipe:
    """The recipe with copies of all its side files in a folder: its `own` under the usual name, others by content."""

    def name(arrays: Arrays) -> str:
        return FILE if arrays == own else f"{Path(FILE).stem}-{arrays.digest.removeprefix('sha256:')}{SUFFIX}"

    for arrays in recipe.side_files():
        (folder / name(arrays)).write_bytes(Coefficients.read(arrays).content)
    return recipe.with_side_files(name)


def _write_model(folder: Path, recipe: Recipe, files: ParentFiles) -> str | None:
    """Write the weights; what rounding them does, if anything."""
    write_weights(folder, recipe, files)
    return rounding_remark(recipe, files, folder)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _not_ours(out: Path) -> str | None:
    """What is wrong with replacing a folder: it was not exported, or is not as it was then."""
    if out.is_dir() and not (out / RECIPE).is_file():
        return f"has no {RECIPE}, so that evomerge did not write it"
    return changed_since(out)


def _spared(out: Path | Target, needed: Sequence[Path]) -> Target:
    target = out if isinstance(out, Target) else export_target(out)
    target.spare(needed)
    return target


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
    _write(path, head + yaml.dump(plain, Dumper=_Compact, sort_keys=False, width=120))
    return [f"{path.name}: {note}" for note in notes]


def _how(results: Results, row: Row, out: Path, formats: Sequence[Wanted]) -> dict[str, Any]:
    """What it takes to make this folder again."""
    opened = results.state.opened
    spec = results.file.to_plain()
    run = results.store.folder
    adapted = [format for format in formats if isinstance(format, AsAdapter)]
    words = ["--format", "adapter", *(["--rank", str(adapted[0].rank)] if adapted[0].rank else [])] if adapted else []
    export = ["evomerge", "export", run.name, "--pick", f"number:{row.number}", "--out", out.name, *words]
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
