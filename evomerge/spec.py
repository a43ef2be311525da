"""The run file as a value: everything a search is, parsed once, with errors that say where and what to do."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, field_validator

from evomerge.errors import SpecError
from evomerge.fitness import Fitness
from evomerge.presets import find_preset
from evomerge.space import SpaceSpec
from evomerge.values import Tagged, Value, by_name

T = TypeVar("T")
Count: TypeAlias = Annotated[int, Field(ge=1)]


class Models(Value):
    """The models to merge: folders or hub ids, experts under the names that genes and reports use.

    `template` is the one whose config, tokenizer and chat template a merged model gets; left out: the base, or else
    the first expert.
    """

    base: str | None = None
    template: str | None = None
    experts: dict[Annotated[str, Field(pattern=r"^[\w -]+$")], str] = Field(min_length=1)


class CmaSpec(Tagged):
    """CMA-ES, for one objective or a scalarisation of several."""

    kind: Literal["cma"] = "cma"
    population: Annotated[int, Field(ge=3)] | None = None
    sigma: Annotated[float, Field(gt=0, le=1)] | None = None


class Nsga2Spec(Tagged):
    """NSGA-II, for a Pareto front."""

    kind: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=4)] = 20


class TpeSpec(Tagged):
    """The tree-structured Parzen estimator, for few genes."""

    kind: Literal["tpe"] = "tpe"


class RandomSpec(Tagged):
    """Scrambled Sobol points: what every other optimiser has to beat."""

    kind: Literal["random"] = "random"


OptimizerSpec: TypeAlias = Annotated[CmaSpec | Nsga2Spec | TpeSpec | RandomSpec, Field(discriminator="kind")]


class Budget(Value):
    """Hard limits of a search; the first to be reached ends it. `seconds` counts all sessions together."""

    evaluations: Count | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    item_evaluations: Count | None = None


class ExecutorSpec(Value):
    """Where candidates are evaluated; `reuse` is how many GiB of hidden states are kept for layers that they share."""

    kind: Literal["inline", "ray"] = "inline"
    reuse: Annotated[float, Field(ge=0)] | None = None


class RunSpec(Value):
    """Everything a search is."""

    models: Models
    space: SpaceSpec
    fitness: Fitness
    optimizer: Annotated[OptimizerSpec | None, BeforeValidator(by_name)] = None
    start: tuple[str, ...] = ()
    budget: Budget = Budget(evaluations=200)
    executor: Annotated[ExecutorSpec, BeforeValidator(by_name)] = ExecutorSpec()
    seed: int = Field(7, ge=0)
    device: str = "auto"

    @field_validator("budget")
    @classmethod
    def _limited(cls, budget: Budget) -> Budget:
        if budget == Budget():
            raise ValueError("sets no limit; give evaluations, seconds or item_evaluations")
        return budget


def load_run(path: Path) -> RunSpec:
    """Read a run file. Paths in it are relative to it; `space` and `fitness` may be presets or files.

    Raises:
        SpecError: in one line, the file, the field, the value and the way out.
    """
    plain = read_yaml(path)
    where = path.absolute().parent
    sections = {key: _section(key, plain[key], path, where) for key in ("space", "fitness") if key in plain}
    if isinstance(plain.get("models"), dict):
        plain["models"] = _models(plain["models"], path)
    if isinstance(plain.get("start"), list):
        plain["start"] = [str(_absolute(entry, where)) for entry in plain["start"]]
    return parse(RunSpec, {**plain, **sections}, str(path))


def anchored(run: RunSpec, where: Path) -> RunSpec:
    """The same run with its relative paths made absolute, those of models, task folders and `start`."""
    plain = run.to_plain()
    plain["models"] = _models(plain["models"], where / "run.yaml")  # As if it were written in a file there.
    plain["start"] = [str(_absolute(entry, where)) for entry in run.start]
    plain["fitness"]["include"] = [str(_absolute(entry, where)) for entry in run.fitness.include]
    if run.fitness.estimator.calibration is not None:
        plain["fitness"]["estimator"]["calibration"] = str(_absolute(run.fitness.estimator.calibration, where))
    return parse(RunSpec, plain, "the run")


def load_fitness(name: str, nearby: Path) -> Fitness:
    """A fitness by preset name or path.

    Raises:
        SpecError: there is none, or it is not understood.
    """
    return parse(Fitness, _section("fitness", name, Path("--fitness"), nearby), name)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        SpecError: no such file, not YAML, not a mapping.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(plain, dict):
        held = "nothing" if plain is None else json.dumps(plain, default=str)[:60]
        raise SpecError(f"{path} holds {held}; expected keys and values")
    return plain


def parse(kind: type[T], plain: Any, source: str) -> T:
    """A value from JSON types, strictly.

    Raises:
        SpecError: the first thing that is wrong, addressed by `source` and field.
    """
    try:
        text = json.dumps(plain, default=_unexpected)
        return TypeAdapter(kind).validate_json(text)
    except TypeError as error:
        raise SpecError(f"{source}: {error}") from None
    except ValidationError as error:
        raise SpecError(_first_error(error, plain, kind, source)) from None


def _unexpected(value: Any) -> Any:
    raise TypeError(f"{value!r} is a {type(value).__name__}, expected text or a number; put it in quotes")


def _section(key: str, value: Any, file: Path, nearby: Path) -> dict[str, Any]:
    """A space or a fitness, wherever it is written, checked under the name of its own file."""
    home, source = nearby, f"{file}: {key}"
    if isinstance(value, str):
        try:
            file = find_preset(key, value, nearby)
        except SpecError as error:
            raise SpecError(f"{file}: {error}") from None
        home = file.absolute().parent
        value = read_yaml(file)
        source = str(file)
    if isinstance(value, dict) and isinstance(value.get("include"), list):
        value["include"] = [str(_absolute(entry, home)) for entry in value["include"]]
    estimator = value.get("estimator") if isinstance(value, dict) else None
    if isinstance(estimator, dict) and isinstance(estimator.get("calibration"), str):
        estimator["calibration"] = str(_absolute(estimator["calibration"], home))
    kind: Any = Fitness if key == "fitness" else SpaceSpec
    checked: Value = parse(kind, value, source)
    return checked.to_plain()


def _models(plain: dict[str, Any], file: Path) -> dict[str, Any]:
    """Parents' paths made absolute; what is no path here is left for the hub."""

    def found(value: Any, field: str) -> Any:
        try:
            return parent_source(value, file.absolute().parent) if isinstance(value, str) else value
        except SpecError as error:
            raise SpecError(f"{file}: models.{field}: {error}") from None

    models = {**plain, **({"base": found(plain["base"], "base")} if "base" in plain else {})}
    if isinstance(plain.get("experts"), dict):
        models["experts"] = {name: found(value, f"experts.{name}") for name, value in plain["experts"].items()}
    return models


def parent_source(value: str, where: Path) -> str:
    """A parent as a file in `where` names it: a path made absolute, or a hub id as it is.

    Raises:
        SpecError: there is such a folder in the working directory, but not in `where`, where it counts.
    """
    path = _absolute(value, where)
    if value.startswith((".", "/", "~")) or path.exists() or value.count("/") != 1:
        return str(path)
    if Path(value).exists():
        raise SpecError(
            f"{value} is in the working directory, not in {where}; write its whole path, or {value}@main for the hub"
        )
    return value


def _absolute(value: Any, where: Path) -> Path:
    return Path(os.path.normpath(where / Path(str(value)).expanduser()))


def _first_error(error: ValidationError, plain: Any, kind: Any, source: str) -> str:
    """The first complaint, in words: file, field, value, way out."""
    # A key that is not known comes first: it is often the one that is missing, misspelt.
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]
    paths = [_readable(each["loc"], plain) for each in errors]
    path = paths[0]
    others = len(paths) - paths.count(path)
    more = f" (and {others} more)" if others else ""
    # A section is checked on its own, and its fields are named below it: `run.yaml: space.weight`.
    separator = "." if source.endswith((": space", ": fitness")) else ": "
    return f"{source}{separator if path else ''}{path}{_complaint(first, kind, several=paths.count(path) > 1)}{more}"


def _complaint(first: Mapping[str, Any], kind: Any, *, several: bool) -> str:
    """What is wrong with a value; `several` complaints about one field mean that none of its forms fits."""
    name = str(first["loc"][-1]) if first["loc"] else ""
    value = json.dumps(first["input"], default=str, ensure_ascii=False)
    shown = value if len(value) <= 60 else value[:57] + "..."
    forms = _described(kind) if several else {}
    field = next((str(step) for step in reversed(first["loc"]) if step in forms), None)
    if field is not None:
        return f" is {shown}; give {forms[field]}"
    match first["type"]:
        case "extra_forbidden":
            known = _known_keys(kind)
            near = difflib.get_close_matches(name, known, n=1) or [key for key in known if key.startswith(name)]
            return f" is not a key here{f'; did you mean {near[0]}?' if near else '; take it out'}"
        case "missing":
            return " is missing; write it"
        case "value_error":
            said = str(first["ctx"]["error"])
            return f": {shown} {said}" if said.startswith("is ") else f": {said}"
        case "union_tag_invalid":
            return f" is {first['ctx']['tag']!r}; give one of {first['ctx']['expected_tags']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f" is {shown}; write keys and values below it"
        case _:
            return f" is {shown}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _readable(loc: tuple[int | str, ...], plain: Any) -> str:
    """A pydantic location without the tags of unions, which are no keys of what was written."""
    parts: list[str] = []
    here = plain
    for i, step in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(here, dict) and (step in here or last):
            here = here.get(step)
        elif isinstance(here, list | tuple) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            continue
        parts.append(str(step))
    return ".".join(parts)


def _known_keys(kind: Any) -> list[str]:
    return sorted({key for key, _ in _fields(kind)})


def _described(kind: Any) -> dict[str, str]:
    """What a field may hold, of those fields that say so."""
    return {key: field["description"] for key, field in _fields(kind) if "description" in field}


def _fields(kind: Any) -> list[tuple[str, dict[str, Any]]]:
    schema = TypeAdapter(kind).json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return [(key, field) for model in models for key, field in model.get("properties", {}).items()]
