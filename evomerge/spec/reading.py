"""Run files, from their path to a value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from evomerge.errors import SpecError
from evomerge.fitness import Fitness
from evomerge.presets import find_preset
from evomerge.space import REGMEAN, SpaceSpec
from evomerge.spec.document import read_yaml
from evomerge.spec.parsing import parse, plain_copy
from evomerge.spec.paths import absolute, anchored_models
from evomerge.spec.run import RunSpec
from evomerge.spec.stages import StagedSpec
from evomerge.values import Value

AnySpec = TypeVar("AnySpec", bound=RunSpec | StagedSpec)


def load_run(path: Path) -> RunSpec:
    """Read a run file of one search. Paths in it are relative to it; `space` and `fitness` may be presets or files.

    Raises:
        SpecError: in one line, the file, the field, the value and the way out.
    """
    found = load_spec(path)
    if isinstance(found, StagedSpec):
        raise SpecError(f"{path} has stages, here it takes a run file of one search")
    return found


def load_spec(path: Path) -> RunSpec | StagedSpec:
    """Read a run file, of one search or in stages; see `load_run`."""
    return _read(read_yaml(path), path)


def spec_of(plain: Mapping[str, Any]) -> RunSpec | StagedSpec:
    """What a run file of this content in the working directory means; see `load_run`."""
    source = Path("the run")
    copy: dict[str, Any] = plain_copy(plain, str(source))
    return _read(copy, source)


def _read(plain: dict[str, Any], path: Path) -> RunSpec | StagedSpec:
    plain = _with_stages(plain, path)
    if isinstance(plain.get("models"), dict):
        plain["models"] = anchored_models(plain["models"], path)
    plain = _with_guard(plain, path.absolute().parent)
    whole = _read_search(plain, f"{path}: ", path.absolute().parent)
    if "stages" in plain:
        return parse(StagedSpec, whole, str(path))
    return parse(RunSpec, whole, str(path))


def anchored(run: AnySpec, where: Path) -> AnySpec:
    """The same run with its relative paths made absolute, those of models, task folders and `start`."""
    plain: dict[str, Any] = run.to_plain()
    plain["models"] = anchored_models(plain["models"], where / "run.yaml")  # As if it were written in a file there.
    plain = _with_guard(plain, where)
    for search in (plain, *plain.get("stages", ())):
        if "start" in search:
            search["start"] = _start(search["start"], where)
        if "fitness" in search:
            _anchor_fitness(search["fitness"], where)
    return parse(type(run), plain, "the run")


def load_fitness(name: str, nearby: Path) -> Fitness:
    """A fitness by preset name or path.

    Raises:
        SpecError: there is none, or it is not understood.
    """
    return parse(Fitness, _section("fitness", name, "--fitness: ", nearby), name)


def _with_stages(plain: dict[str, Any], path: Path) -> dict[str, Any]:
    """The run file with its stages written out, each read, if `stages` or a file that `space` names has any."""
    key = "stages" if "stages" in plain else "space"
    entries, file = plain.get(key), path
    if isinstance(entries, str):
        file = _file(key, entries, f"{path}: ", path.absolute().parent)
        content = read_yaml(file)
        if "stages" not in content and key == "space":
            return plain
        entries = _stages_in(content, file)
        plain = {name: value for name, value in plain.items() if name != key}
    elif key == "space":
        return plain
    if isinstance(entries, list):
        home = file.absolute().parent
        entries = [_read_search(entry, f"{file}: stages.{place}.", home) for place, entry in enumerate(entries)]
    return {**plain, "stages": entries}


def _stages_in(content: Mapping[str, Any], file: Path) -> Any:
    others = [str(name) for name in content if name != "stages"]
    if "stages" not in content:
        raise SpecError(f"{file} holds no stages; name it by space, or give a file that holds some")
    if others:
        raise SpecError(f"{file}: {others[0]} is not a key beside stages; take it out")
    return content["stages"]


def _read_search(plain: Any, prefix: str, where: Path) -> Any:
    """A run file, or a stage of one, with its sections read and its paths made absolute."""
    if not isinstance(plain, dict):
        return plain
    read = {key: _section(key, plain[key], prefix, where) for key in ("space", "fitness") if key in plain}
    if isinstance(plain.get("start"), list):
        read["start"] = _start(plain["start"], where)
    return {**plain, **read}


def _section(key: str, value: Any, prefix: str, nearby: Path) -> Any:
    """A space or a fitness, wherever it is written, checked under the name of its own file."""
    home, source = nearby, f"{prefix}{key}"
    if isinstance(value, str):
        file = _file(key, value, prefix, nearby)
        home = file.absolute().parent
        value = read_yaml(file)
        source = str(file)
    if key == "fitness" and isinstance(value, dict):
        _anchor_fitness(value, home)
    kind: Any = Fitness if key == "fitness" else SpaceSpec
    checked: Value = parse(kind, value, source)
    return checked.to_plain()


def _file(key: str, name: str, prefix: str, nearby: Path) -> Path:
    try:
        return find_preset(key, name, nearby)
    except SpecError as error:
        raise SpecError(f"{prefix}{error}") from None


def _with_guard(plain: dict[str, Any], where: Path) -> dict[str, Any]:
    guard = plain.get("guard")
    if not isinstance(guard, dict) or not isinstance(guard.get("text"), str):
        return plain
    return {**plain, "guard": {**guard, "text": str(absolute(guard["text"], where))}}


def _start(entries: Sequence[Any], where: Path) -> list[Any]:
    """Paths made absolute; RegMean is none."""
    return [entry if entry == REGMEAN else _absolute([entry], where)[0] for entry in entries]


def _absolute(entries: Sequence[Any], where: Path) -> list[Any]:
    return [str(absolute(entry, where)) if isinstance(entry, str) else entry for entry in entries]


def _anchor_fitness(plain: dict[str, Any], where: Path) -> None:
    """Make the paths in a fitness absolute."""
    if isinstance(plain.get("include"), list):
        plain["include"] = _absolute(plain["include"], where)
    estimator = plain.get("estimator")
    if isinstance(estimator, dict) and isinstance(estimator.get("calibration"), str):
        estimator["calibration"] = str(absolute(estimator["calibration"], where))
