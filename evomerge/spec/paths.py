"""Paths that a file names, which are relative to it, and the names that may stand where a path may."""

import os
from pathlib import Path
from typing import Any

from evomerge.errors import SpecError
from evomerge.files import at_home, is_there
from evomerge.runs import is_run

YAML = (".yaml", ".yml")


def absolute(value: object, where: Path) -> Path:
    """A path as a file in `where` names it."""
    return Path(os.path.normpath(where / at_home(str(value))))


def split_pick(value: str, where: Path | None = None) -> tuple[str, str | None]:
    """What stands before and behind the `@` of `RUN@PICK`; None behind it where that is no run, in `where` or here."""
    where = where or Path.cwd()
    for place, letter in enumerate(value):
        if letter == "@" and is_run(absolute(value[:place], where)):
            return value[:place], value[place + 1 :]
    return value, None


def parent_source(value: str, where: Path) -> str:
    """A parent as a file in `where` names it: a path made absolute, with its `@PICK`, or a hub id as it is.

    Raises:
        SpecError: there is such a folder in the working directory, but not in `where`, where it counts.
    """
    named, pick = split_pick(value, where)
    path = absolute(named, where)
    if pick is not None:
        return f"{path}@{pick}"
    if value.startswith((".", "/", "~")) or value.endswith(YAML) or is_there(path) or value.count("/") != 1:
        return str(path)
    if is_there(value) or split_pick(value)[1] is not None:
        raise SpecError(
            f"{value} is in the working directory, not in {where}; write its whole path, or {value}@main for the hub"
        )
    return value


def anchored_recipe(plain: dict[str, Any], where: Path) -> dict[str, Any]:
    """A recipe with its paths made absolute, those of its parents and of its side file, also in recipes among them."""
    arrays, parents = plain.get("arrays"), plain.get("parents")
    if isinstance(arrays, dict) and isinstance(arrays.get("path"), str):
        plain = {**plain, "arrays": {**arrays, "path": str(absolute(arrays["path"], where))}}
    if not isinstance(parents, dict):
        return plain
    return {**plain, "parents": {name: _anchored_parent(parent, where) for name, parent in parents.items()}}


def anchored_models(plain: dict[str, Any], file: Path) -> dict[str, Any]:
    """Models with their paths made absolute; what is no path here is left for the hub.

    Raises:
        SpecError: see `parent_source`; or an expert has more beside its path than an objective.
    """
    where = file.absolute().parent

    def found(value: Any, field: str) -> Any:
        try:
            return parent_source(value, where) if isinstance(value, str) else _anchored_parent(value, where)
        except SpecError as error:
            raise SpecError(f"{file}: models.{field}: {error}") from None

    plain = _with_owners(plain, file)
    models = {**plain, **({"base": found(plain["base"], "base")} if "base" in plain else {})}
    if isinstance(plain.get("experts"), dict):
        models["experts"] = {name: found(value, f"experts.{name}") for name, value in plain["experts"].items()}
    return models


def _with_owners(plain: dict[str, Any], file: Path) -> dict[str, Any]:
    """Models with what objective is an expert's own, written beside its path, in `owners`."""
    experts = plain.get("experts")
    if not isinstance(experts, dict):
        return plain
    owned = {name: value for name, value in experts.items() if isinstance(value, dict) and "objective" in value}
    for name, value in owned.items():
        if set(value) != {"path", "objective"}:
            raise SpecError(f"{file}: models.experts.{name} has {', '.join(value)}; give path and objective, no more")
    if not owned:
        return plain
    paths = {name: value["path"] for name, value in owned.items()}
    given = plain.get("owners")
    owners = {
        **(given if isinstance(given, dict) else {}),
        **{name: value["objective"] for name, value in owned.items()},
    }
    return {**plain, "experts": {**experts, **paths}, "owners": owners}


def _anchored_parent(parent: Any, where: Path) -> Any:
    if not isinstance(parent, dict):
        return parent
    if isinstance(parent.get("path"), str):
        over = {"base": _anchored_parent(parent["base"], where)} if "base" in parent else {}
        return {**parent, **over, "path": str(absolute(parent["path"], where))}
    return anchored_recipe(parent, where)
