"""The models that a search mixes, and their names."""

import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import assert_never

from pydantic import Field

from evomerge.limits import Seed
from evomerge.recipe.blend import Blend, Layer
from evomerge.recipe.recipe import Dtype, Folder, Parent, Recipe
from evomerge.values import Value

BASE = "base"
"""The base's own name, which no expert may have."""
RESERVED = frozenset({BASE, "own", "join"})
"""Names that mean something else in a space: the base, and two ways to treat what lies outside the stack."""


def expert_names(sources: Sequence[str]) -> dict[str, str]:
    """Folders or hub ids by names for them: the last part of each, in letters that a run file allows, each once."""
    named: dict[str, str] = {}
    for source in sources:
        last = Path(re.sub(r"^(\w[\w.-]*/\w[\w.-]*)@.*", r"\1", source)).absolute().name
        stem = re.sub(r"[^\w -]+", "-", last).strip("- ") or "expert"
        names = chain([stem], (f"{stem} {number}" for number in count(2)))
        named[next(name for name in names if name not in RESERVED | named.keys())] = source
    return named


class Parents(Value):
    """What a search space must know of the models it may mix.

    `experts` keeps the order of the run file; `outer` names the tensor groups outside the stack of `layers`;
    `lender` is who lends config and tokenizer if that is not the base, or else the first expert. `tensors` says of each
    tensor, by its name, where it is: a layer by its number and a component of that (`3.mlp`), or an outer group. Where
    there are experts `rewritten` by RegMean, they may be what is searched over instead of the `originals`.
    """

    models: dict[str, Parent]
    base: str | None
    experts: tuple[str, ...]
    layers: int
    outer: tuple[str, ...]
    dtype: Dtype
    seed: Seed = 0
    lender: str | None = None
    tensors: dict[str, str] = Field(default_factory=dict)
    rewritten: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """The experts as they are on disk."""
        return self.originals or self.experts

    @property
    def names(self) -> tuple[str, ...]:
        """The base, then the experts as they are on disk."""
        return (*((self.base,) if self.base else ()), *self.given)

    def with_rewritten(self, rewritten: tuple[str, ...], *, instead: bool) -> "Parents":
        """The same with some of the experts being others rewritten, which are searched over if they are `instead`."""
        given = tuple(name for name in self.experts if name not in rewritten)
        experts, originals = (rewritten, given) if instead else (given, ())
        return self.model_copy(update={"experts": experts, "originals": originals, "rewritten": rewritten})

    @property
    def template(self) -> str:
        """Who lends config, tokenizer and chat template."""
        return self.lender or self.base or self.given[0]

    def depth_of(self, name: str) -> int:
        """How many layers a parent has: a recipe may make a model of another depth."""
        match parent := self.models[name]:
            case Folder():
                return self.layers
            case Recipe():
                return len(parent.layers)
            case _:
                assert_never(parent)

    def recipe(self, layers: tuple[Layer, ...], outer: dict[str, Blend]) -> Recipe:
        """A recipe over these parents."""
        return Recipe(
            parents=self.models, template=self.template, dtype=self.dtype, seed=self.seed, layers=layers, outer=outer
        )
