"""The run file as a value: everything a search is."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator

from evomerge.errors import SpecError
from evomerge.fitness import Fitness
from evomerge.presets import find_preset
from evomerge.space import SpaceSpec
from evomerge.spec.parsing import parse, read_yaml
from evomerge.values import Tagged, Value, by_name

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
    """Where candidates are evaluated."""

    kind: Literal["inline", "ray"] = "inline"


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
