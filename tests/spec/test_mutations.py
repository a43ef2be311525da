"""Files of each kind, changed anywhere: they are read, or refused in one line, and soon."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.assemble.experts import read_recipe
from evomerge.errors import SpecError
from evomerge.export import mergekit_models, read_mergekit
from evomerge.recipe import Folder, Parents
from evomerge.space import bind
from evomerge.spec import RunSpec, load_fitness, load_spec, read_yaml
from evomerge.visible import visible

FITNESS = {
    "include": ["tasks"],
    "objectives": {
        "maths": {"task": "math_ja", "metric": "acc", "tie_break": {"metric": "perplexity", "weight": 0.01}},
        "both": {"tasks": ["math_ja", "lists"], "weight": 0.5, "fewshot": 2, "generation": {"until": ["x"]}},
        "size": {"cost": "layers"},
    },
    "items": {"search": 24, "confirm": 48, "group": "group"},
    "estimator": {"kind": "aipw", "items": 12, "rungs": [4, 8]},
}
SPACES = [
    {"kind": "blend", "operator": {"kind": "ties", "lambda": 1.1}, "groups": [[0, 2], [3, 5]], "density": [0.2, 1.0]},
    {"kind": "path", "repeats": 2, "scale": [0.5, 1.5], "depth": [0.5, 2.0], "scaling": "pair"},
    {"kind": "joint", "blend": {"weight": [0.0, 1.5]}, "path": {"kind": "stack", "ranges": 3, "depth": [4, 9]}},
    {"kind": "repeat", "length": 3, "times": 4},
    {"kind": "swap", "inside": "maths", "transition": 2},
]
SOURCES = [{"parent": "maths", "layer": 0, "weight": 0.5, "density": 0.4}, {"parent": "japanese", "layer": 1}]
LAYER = {
    "blend": {"operator": {"kind": "ties"}, "base": {"parent": "base", "layer": 0}, "sources": SOURCES},
    "scale": 1.2,
}
OUTER = {"embeddings": {"sources": [{"parent": "base"}]}}
RECIPE = {
    "parents": {"base": {"path": "b"}, "maths": {"path": "m", "digest": "x"}, "japanese": {"path": "j"}},
    "template": "base", "dtype": "float16", "layers": [LAYER, LAYER], "outer": OUTER, "seed": 3,
}  # fmt: skip
RUN = {
    "models": {"base": "models/base", "experts": {"maths": "models/maths", "nested": RECIPE}, "template": "maths"},
    "space": SPACES[0], "fitness": FITNESS, "optimizer": {"kind": "nsga2", "population": 10}, "start": ["x.yaml"],
    "budget": {"evaluations": 20, "seconds": 9.5, "target": {"maths": 0.5}}, "seed": 7, "device": "cpu",
    "executor": {"kind": "ray", "workers": 2, "gpus": 0.5},
}  # fmt: skip
STAGED = {key: RUN[key] for key in ("models", "fitness", "budget")} | {
    "stages": [{"space": SPACES[0], "share": 0.5, "keep": 2}, {"space": SPACES[1], "share": 0.5, "parents": "kept"}]
}
MERGEKIT = {
    "merge_method": "ties", "base_model": "base", "dtype": "torch.float32", "tokenizer": {"source": "base"},
    "slices": [{"sources": [{"model": "base", "layer_range": [0, 2]}, {"model": "maths", "layer_range": [0, 2],
                "parameters": {"weight": [0.1, 0.9], "density": [{"filter": "mlp", "value": 0.5}, {"value": 1}]}}]}],
    "parameters": {"normalize": True, "lambda": 1.0},
}  # fmt: skip
ODD = [
    None, True, False, 0, -1, 1, 2, 0.5, 1e-9, 1e18, -1e308, 10**19, 2**63, "", "x", "no", "1e3", "~", "~nobody/x",
    "a" * 300, "a\nb", "\x1b[31m", "[/bold]", "../" * 50, "run.yaml", "all", "base", "maths@best",
    [], {}, [[]], [None], [1, 2, 3],
    {"kind": "cma"}, {"kind": None}, {"": 1}, {"x": {"y": []}}, ["a"] * 50, "cma", "ties", "stack", [1.5, 0.5],
]  # fmt: skip
PARENTS = Parents(
    models={name: Folder(path=name, digest=name) for name in ("base", "maths", "japanese")},
    base="base", experts=("maths", "japanese"), layers=6, outer=("embeddings", "norm"), dtype="float16",
)  # fmt: skip


def _space(path: Path) -> None:
    found = load_spec(path)
    if isinstance(found, RunSpec):
        space = bind(found.space, PARENTS)
        space.decode((0.3,) * len(space.genes))


def _mergekit(path: Path) -> None:
    mergekit_models(read_mergekit(read_yaml(path), str(path)), path.parent)


KINDS: dict[str, tuple[list[dict[str, Any]], Callable[[Path], object]]] = {
    "run": ([RUN, STAGED], load_spec),
    "space": ([{**RUN, "space": space} for space in SPACES], _space),
    "fitness": ([FITNESS], lambda path: load_fitness(path.name, path.parent)),
    "recipe": ([RECIPE], read_recipe),
    "mergekit": ([MERGEKIT], _mergekit),
}


def places(plain: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [here, *(place for key, value in inner for place in places(value, (*here, key)))]


def changed(plain: Any, place: tuple[Any, ...], how: str, value: Any) -> Any:
    if not place:
        return value if how == "set" else plain
    key, rest = place[0], place[1:]
    if rest:
        plain[key] = changed(plain[key], rest, how, value)
    elif how == "set":
        plain[key] = value
    elif how == "drop":
        del plain[key]
    elif how == "double" and isinstance(plain, list):
        plain.insert(key, plain[key])
    elif isinstance(plain, dict):
        plain[f"{key}x"] = plain[key] if how == "double" else plain.pop(key)
    return plain


@st.composite
def mutated(draw: st.DrawFn, documents: list[dict[str, Any]]) -> bytes:
    """A document with values set, taken out, doubled or renamed, written down, and then with some bytes changed."""
    plain: Any = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from(places(plain)))
        plain = changed(
            plain,
            place,
            draw(st.sampled_from(["set", "drop", "double", "rename"])),
            copy.deepcopy(draw(st.sampled_from(ODD))),
        )
    text = bytearray(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        where = draw(st.integers(0, len(text)))
        text[where : where + draw(st.integers(0, 4))] = draw(
            st.sampled_from(
                [b"", b":", b"- ", b"\n", b"\t", b"{", b"[", b"*a", b"&a ", b"!", b"'", b"\x00", b"\xff", b"1", b"#"]
            )
        )
    return bytes(text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    documents, read = KINDS[kind]
    path = tmp_path / "x.yaml"
    for document in documents:
        path.write_text(yaml.safe_dump(document))
        read(path)

    @settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
    @given(mutated(documents))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        started = time.perf_counter()
        try:
            read(path)
        except SpecError as error:
            assert len(visible(error)) < 1000  # As it is shown, on one line whatever it quotes.
        assert time.perf_counter() - started < 10

    check()
