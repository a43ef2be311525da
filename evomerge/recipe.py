"""What to merge, in one normal form: a stack of layers, each a blend of parent layers.

A coefficient search (the same layer index from every parent) and a data-flow search (one parent's layer
each, any order) are the same type with other numbers.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from evomerge.errors import SpecError
from evomerge.values import Tagged, Value, digest_of

Dtype: TypeAlias = Literal["float32", "float16", "bfloat16"]
Component: TypeAlias = Literal["attention", "mlp", "norm"]
COMPONENTS: tuple[Component, ...] = ("attention", "mlp", "norm")
BASE = "base"
"""The base's own name, which no expert may have."""
RESERVED = frozenset({BASE, "own", "join"})
"""Names that mean something else in a space: the base, and two ways to treat what lies outside the stack."""

Density: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
DENSITY_LEVELS = 200
"""Densities are searched in steps of one over this; so one sort of a task vector serves all of them."""


class Folder(Value):
    """A parent: a Hugging Face model folder, named by what is in it.

    `digest` is over its files, `path` only says where they are; `hub` is the id it was fetched by.
    """

    kind: Literal["folder"] = "folder"
    path: str
    digest: str | None = None
    hub: str | None = None


Parent: TypeAlias = Folder


def expert_names(sources: Sequence[str]) -> dict[str, str]:
    """Folders or hub ids by names for them: the last part of each, in letters that a run file allows, each once."""
    named: dict[str, str] = {}
    for source in sources:
        last = Path(re.sub(r"^(\w[\w.-]*/\w[\w.-]*)@.*", r"\1", source)).absolute().name
        stem = re.sub(r"[^\w -]+", "-", last).strip("- ") or "expert"
        names = chain([stem], (f"{stem} {number}" for number in count(2)))
        named[next(name for name in names if name not in RESERVED | named.keys())] = source
    return named


class Linear(Tagged):
    """Weighted sum of the sources, divided by the sum of the weights if `normalize` (Wortsman et al. 2022)."""

    kind: Literal["linear"] = "linear"
    normalize: bool = True


class Slerp(Tagged):
    """Spherical interpolation between two sources, the first at t = 0 (Shoemake 1985)."""

    kind: Literal["slerp"] = "slerp"
    t: float = 0.5


class TaskArithmetic(Tagged):
    """Base plus weighted task vectors (Ilharco et al. 2022)."""

    kind: Literal["task_arithmetic"] = "task_arithmetic"
    normalize: bool = False
    scale: float = Field(1.0, alias="lambda")


class Ties(Tagged):
    """Trim by magnitude, elect a sign by weighted mass, merge what agrees (Yadav et al. 2023; mergekit's meaning)."""

    kind: Literal["ties"] = "ties"
    normalize: bool = True
    scale: float = Field(1.0, alias="lambda")
    scope: Literal["tensor"] = "tensor"


class DareTies(Tagged):
    """Drop at random and rescale (Yu et al. 2023), then elect signs as TIES does.

    `rescale` names the rule: `density` multiplies what is kept by 1/density as the paper does, `l1` matches
    the L1 norm of the task vector as mergekit does.
    """

    kind: Literal["dare_ties"] = "dare_ties"
    normalize: bool = False
    scale: float = Field(1.0, alias="lambda")
    rescale: Literal["density", "l1", "none"] = "density"


Operator: TypeAlias = Annotated[Linear | Slerp | TaskArithmetic | Ties | DareTies, Field(discriminator="kind")]
NEEDS_BASE = ("task_arithmetic", "ties", "dare_ties")


class Source(Value):
    """One parent's share in a blend; `layer` is None outside the stack of layers."""

    parent: str
    layer: int | None = Field(None, ge=0)
    weight: float = 1.0
    density: Density = 1.0


class Blend(Value):
    """The one thing that is merged anywhere: an operator over sources, and a base where it needs one."""

    operator: Operator = Linear()
    base: Source | None = None
    sources: tuple[Source, ...] = ()

    @model_validator(mode="after")
    def _fits_operator(self) -> Self:
        kind = self.operator.kind
        if kind == "slerp" and len(self.sources) != 2:
            raise ValueError(f"slerp takes exactly two sources, here are {len(self.sources)}")
        if kind == "linear" and not self.sources:
            raise ValueError("linear needs at least one source")
        if (self.base is not None) != (kind in NEEDS_BASE):
            raise ValueError(f"{kind} {'needs a' if kind in NEEDS_BASE else 'takes no'} base")
        return self

    def everything(self) -> tuple[Source, ...]:
        """The sources and, if there is one, the base."""
        return (*self.sources, *((self.base,) if self.base else ()))

    def parents(self) -> set[str]:
        """Names of the parents this blend reads."""
        return {source.parent for source in self.everything()}


class Layer(Value):
    """One layer of the merged model: a blend, and other blends for the components that differ from it."""

    blend: Blend
    attention: Blend | None = None
    mlp: Blend | None = None
    norm: Blend | None = None
    scale: float = 1.0

    @field_validator("scale")
    @classmethod
    def _is_one(cls, scale: float) -> float:
        if scale != 1.0:
            raise ValueError("is not supported yet; leave it out")
        return scale

    def part(self, component: Component) -> Blend:
        """The blend of one component."""
        override: Blend | None = getattr(self, component)
        return self.blend if override is None else override


class Recipe(Value):
    """A merged model, complete: which parents, how each layer and each outer tensor group is blended.

    `outer` holds the groups outside the stack (embeddings, norm, head, as the model class has them).
    `template` names the parent that lends config, tokenizer and tensor names.
    """

    format: Literal[1] = 1
    parents: dict[str, Parent]
    template: str
    dtype: Dtype
    seed: int = 0
    layers: tuple[Layer, ...] = Field(min_length=1)
    outer: dict[str, Blend]

    @model_validator(mode="after")
    def _knows_its_parents(self) -> Self:
        unknown = sorted((self.used() | {self.template}) - set(self.parents))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not among the parents ({', '.join(sorted(self.parents))})")
        return self

    def blends(self) -> list[Blend]:
        """Every blend in it, layer by layer, then the outer groups."""
        inner = [layer.part(component) for layer in self.layers for component in COMPONENTS]
        return inner + list(self.outer.values())

    def used(self) -> set[str]:
        """Names of the parents whose weights it reads."""
        return set().union(*(blend.parents() for blend in self.blends()))

    def digest(self) -> str:
        """Content address: of the parents' files and what is done with them, never of paths or names."""
        plain = self.to_plain()
        names = {name: parent.digest or f"name:{name}" for name, parent in self.parents.items()}
        plain["parents"] = sorted(names[name] for name in self.used() | {self.template})
        plain["template"] = names[self.template]
        if not any(isinstance(blend.operator, DareTies) for blend in self.blends()):
            plain.pop("seed", None)  # Only DARE's masks depend on it.
        return digest_of(_renamed(plain, names))

    def over(self, parents: "Parents", names: dict[str, str]) -> "Recipe":
        """The same recipe over `parents`, where its models have other `names` (by the names here).

        Raises:
            SpecError: it makes another model than these parents can: of another depth, with other outer groups, or
                from layers that are not there.
        """
        self._check_shape(parents.layers, parents.outer)
        plain = _renamed(self.to_plain(), names)
        plain["parents"] = {name: folder.to_plain() for name, folder in parents.models.items()}
        plain["template"] = parents.template
        return Recipe.model_validate_json(json.dumps(plain))

    def _check_shape(self, depth: int, outer: Sequence[str]) -> None:
        if len(self.layers) != depth:
            raise SpecError(f"layers: there are {len(self.layers)}, its models have {depth}; write as many")
        for group in sorted(self.outer.keys() ^ set(outer)):
            what = "is missing" if group in outer else "is not there"
            raise SpecError(f"outer.{group} {what}; the models have {', '.join(outer)}")
        inner = [(f"layers.{i}", layer.part(name)) for i, layer in enumerate(self.layers) for name in COMPONENTS]
        for place, source in ((place, source) for place, blend in inner for source in blend.everything()):
            if source.layer is None or source.layer >= depth:
                shown = "no layer" if source.layer is None else f"layer {source.layer}"
                raise SpecError(f"{place}: {source.parent} gives {shown}; write a layer from 0 to {depth - 1}")
        for group, blend in self.outer.items():
            if any(source.layer is not None for source in blend.everything()):
                raise SpecError(f"outer.{group}: a source has a layer, and is outside the layers; leave it out")


def _renamed(plain: Any, names: dict[str, str]) -> Any:
    if isinstance(plain, dict):
        return {k: names[v] if k == "parent" else _renamed(v, names) for k, v in plain.items()}
    if isinstance(plain, list):
        return [_renamed(item, names) for item in plain]
    return plain


class Parents(Value):
    """What a search space must know of the models it may mix.

    `experts` keeps the order of the run file; `outer` names the tensor groups outside the stack of `layers`;
    `lender` is who lends config and tokenizer if that is not the base, or else the first expert.
    """

    models: dict[str, Parent]
    base: str | None
    experts: tuple[str, ...]
    layers: int
    outer: tuple[str, ...]
    dtype: Dtype
    seed: int = 0
    lender: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The base, then the experts."""
        return (*((self.base,) if self.base else ()), *self.experts)

    @property
    def template(self) -> str:
        """Who lends config, tokenizer and chat template."""
        return self.lender or self.base or self.experts[0]

    def recipe(self, layers: tuple[Layer, ...], outer: dict[str, Blend]) -> Recipe:
        """A recipe over these parents."""
        return Recipe(
            parents=self.models, template=self.template, dtype=self.dtype, seed=self.seed, layers=layers, outer=outer
        )
