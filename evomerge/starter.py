"""A first run file for somebody's models, with a comment on every choice."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from evomerge.errors import SpecError
from evomerge.files import Target, write_file
from evomerge.presets import preset_names
from evomerge.recipe import expert_names
from evomerge.visible import visible

TEMPLATE = """\
# A search for the best merge of these models. Check it with `evomerge plan {name}`, then
# `evomerge search {name} --out RUN`. Relative paths are relative to this file.

models:
{models}
# Which merges may be proposed: a preset, a file, or a mapping.
#   Presets: {spaces}.
#   A mapping: {{kind: blend, operator: ties, groups: 4, weight: [0.0, 1.5], density: [0.2, 1.0]}}
#   Where every objective has scores, `learned` learns more than {space} can: a weight a tensor, or a column of it.
space: {space}

# What counts as better, on which items. Tasks are lm-eval's (`lm-eval ls tasks`), or YAML files of your own in
# folders named by `include`. Search and confirm items are disjoint: winners are confirmed on what they never saw.
fitness:
  # include: [tasks]
  objectives:                                       # two examples: put your own in their place, one line each
    # `split` (train, validation, test): what you search on is spent; keep the split that you will report on.
    first: {{task: arc_easy, metric: acc_norm, split: validation}}    # one gives a best model, two or more a front
    second: {{task: gsm8k, metric: "exact_match,flexible-extract", fewshot: 5, split: train}}
  items: {{search: 128, confirm: 384}}                # per task, chosen by hash; more search items, less overfitting
  # In an evolution each candidate answers a few search items, others for every generation; its score on all is
  # estimated from them. Kinds: aipw, difference, mean, ...; items: all estimates nothing.
  # estimator: {{kind: aipw, items: 60}}

# What suits space, objectives and budget; `evomerge plan` says which it is, and why. Weights are learned (gradient)
# where every objective has scores, as multiple choice has, else evolved. Others: surrogate, cma, nsga2, tpe, random.
optimizer: auto

# Recipes or finished runs to begin with, beside the fixed recipes that every search begins with.
# start: [recipe.yaml, OTHER_RUN]

budget: {{evaluations: 200}}                          # and/or seconds, accelerator_hours, item_evaluations; stall: 60
                                                    # ends a search when 60 candidates have added next to nothing
seed: 7
device: auto                                        # cpu, cuda, cuda:1
"""


def write_run_file(folders: Sequence[str], out: Path, *, first_is_base: bool) -> None:
    """Write the file.

    Raises:
        SpecError: it exists already, its folder does not, or there are too few models.
        RunError: the disk is full.
    """
    target = Target.file(out)
    experts = list(folders[1:] if first_is_base else folders)
    if not experts:
        raise SpecError("init takes the base and at least one expert; give another folder")
    space = "per-layer" if first_is_base else "slerp" if len(experts) == 2 else "{kind: blend, operator: linear}"
    models: dict[str, object] = {"base": _seen_from(out, folders[0])} if first_is_base else {}
    models["experts"] = {name: _seen_from(out, path) for name, path in expert_names(experts).items()}
    text = yaml.safe_dump(models, sort_keys=False, allow_unicode=True, width=1000)
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    spaces = ", ".join(preset_names("space"))
    write_file(target, TEMPLATE.format(name=visible(out.name), models=indented, space=space, spaces=spaces).encode())


def _seen_from(out: Path, model: str) -> str:
    """A model as a file at `out` names it: a folder here relative to that file, anything else as it was given."""
    if not Path(model).exists() or Path(model).is_absolute():
        return model
    path = os.path.relpath(model, out.parent)
    return path if path.startswith(".") else f"./{path}"
