"""The model card of an exported merge: parents, numbers, and how to make it again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from evomerge.export.markdown import markdown, row_of, table_row
from evomerge.export.recipe_table import recipe_table
from evomerge.items import PoolName
from evomerge.recipe import BASE, Folder, Parent, Recipe
from evomerge.results import RIVALS, Results, Row, Which, difference, number

AGAIN = """\
`reproduce.json` holds the digests of all parents, seeds and versions.

```sh
evomerge merge recipe.yaml --out again    # {what}, from the parents
evomerge search run.yaml --out RUN        # the search that found it
sha256sum -c SHA256SUMS                   # these files are whole
```"""


def model_card(
    results: Results, row: Row, recipe: Recipe, out: Path, *, note: str | None = None, adapter: bool = False
) -> str:
    """README.md of an export, with the metadata that the Hugging Face hub reads; `note` is on how it was made.

    Beside it lies an `adapter`, or else a model.
    """
    what = "the whole merged model" if adapter else "the same weights, byte for byte"
    sections = [
        f"# {markdown(out.absolute().name)}",
        _summary(results, row, recipe),
        "## Parents\n\n" + _parents(recipe),
        "## Recipe\n\n"
        + "\n\n".join([recipe_table(recipe), *([markdown(f"{note[0].upper()}{note[1:]}.")] if note else [])]),
        "## Results\n\n" + _results(results, row),
        "## Make it again\n\n" + AGAIN.format(what=what),
    ]
    folders = [results.file.parents.models[BASE]] if adapter else recipe.folders()
    return _front_matter(folders, adapter=adapter) + "\n\n".join(sections) + "\n"


def _front_matter(folders: Sequence[Parent], *, adapter: bool) -> str:
    hubs = sorted({folder.hub.partition("@")[0] for folder in folders if isinstance(folder, Folder) and folder.hub})
    plain: dict[str, object] = {"library_name": "peft" if adapter else "transformers"}
    plain |= {"pipeline_tag": "text-generation"}
    if hubs:
        plain |= {"base_model": hubs, "base_model_relation": "adapter" if adapter else "merge"}
    return f"---\n{yaml.safe_dump({**plain, 'tags': ['merge', 'evomerge']}, sort_keys=False)}---\n\n"


def _summary(results: Results, row: Row, recipe: Recipe) -> str:
    merges = [recipe, *(parent for _, parent in _everything(recipe) if isinstance(parent, Recipe))]
    kinds = sorted({blend.operator.kind for merge in merges for blend in merge.blends()})
    run = results.file.spec
    kind = run.optimizer.kind
    learned = results.state.candidates[row.number].tradeoff is not None
    made = "with weights of its parents that were learned from the search's items" if learned else "without training"
    return (
        f"A merge of {len(recipe.folders())} models ({', '.join(kinds)}) in {recipe.dtype}, made {made}. It"
        f" is candidate {row.number} of a search over {len(results.state.finished())} candidates by evomerge ({kind})."
        " `recipe.yaml` says what goes where; `evomerge merge recipe.yaml --out DIR` gives these weights again."
    )


def _parents(recipe: Recipe) -> str:
    lines = ["| name | model | content |", "|---|---|---|"]
    for name, parent in _everything(recipe):
        digest = (parent.content() or "")[: len("sha256:") + 12]
        shown = parent.hub or Path(parent.path).name if isinstance(parent, Folder) else parent.shown()
        lines.append(f"| {markdown(name)} | {markdown(shown)} | `{digest}` |")
    return "\n".join(lines)


def _everything(recipe: Recipe, owner: str = "") -> Iterator[tuple[str, Parent]]:
    """The models that a recipe merges, each merge among them followed by what it is made of."""
    for name, parent in recipe.parents.items():
        yield owner + name, parent
        if isinstance(parent, Recipe):
            yield from _everything(parent, f"{owner}{name}: ")


def _results(results: Results, row: Row) -> str:
    caveats = [line for caveat in results.store.table.caveats() for line in (f"**{markdown(caveat)}**", "")]
    if row.failure is not None:
        return "\n".join([*caveats, f"**It failed in the search** ({row.failure.stage}) and was never scored."])
    if row.confirmed is None:
        unsure = "Not confirmed on held-out items. The search's own values are optimistic and are left out here."
        return "\n".join([*caveats, unsure])
    lines = [
        *caveats,
        f"`confirmed` was measured on items that the search never saw ({_counted(results, 'confirm')}), with its 95 %"
        " interval; differences are paired on the same items, and the rivals were picked on them, in their favour."
        f" `search` is what the search itself believed ({row.items} answers of this model), which flatters the best of"
        " many, and `shrunken` the same without the luck: neither is a result. ± is one standard error.",
        "",
        *_finalist(results, row),
    ]
    lines += ["", "All baselines, confirmed:", "", *_models(results, "confirmed", results.baselines)]
    if row.report is not None:
        text = f"On report items, which neither search nor choice has seen ({_counted(results, 'report')}):"
        this = row.model_copy(update={"name": "this model"})
        lines += ["", text, "", *_models(results, "report", [this, *results.baselines])]
    return "\n".join(lines)


def _finalist(results: Results, row: Row) -> list[str]:
    """A table of all that is known of the model: its numbers, and its differences to baselines."""
    head = ["objective", "search", "shrunken", "confirmed", *(f"minus {name}" for name in RIVALS.values())]
    lines = [table_row(head), "|---" * len(head) + "|"]
    paired = results.paired(row)
    for label in results.objectives:
        cells = [markdown(label), *(number(row, which, label) for which in ("search", "shrunken", "confirmed"))]
        for key in RIVALS:
            rival, pair = paired[key].get(label, ("", None))
            cells.append(f"{difference(row, label, pair)} ({markdown(rival)})" if pair is not None else "")
        lines.append(row_of(cells))
    return lines


def _counted(results: Results, pool: PoolName) -> str:
    return ", ".join(f"{count} of {markdown(name)}" for name, count in results.store.table.items_of(pool).items())


def _models(results: Results, which: Which, rows: Sequence[Row]) -> list[str]:
    """A table with a line for every model that has such numbers."""
    lines = [table_row(["model", *results.objectives]), "|---" * (len(results.objectives) + 1) + "|"]
    for row in rows:
        if row.values(which):
            cells = [markdown(row.name), *(number(row, which, label) for label in results.objectives)]
            lines.append(row_of(cells))
    return lines
