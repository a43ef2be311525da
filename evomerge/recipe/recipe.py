"""What to merge, in one normal form: a stack of layers, each a blend of parent layers.

A coefficient search (the same layer index from every parent) and a data-flow search (one parent's layer
each, any order) are the same type with other numbers.
"""

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, Union

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from evomerge.arrays import SUFFIX
from evomerge.errors import SpecError
from evomerge.limits import HOPS, RECIPES_NESTED, Seed, Weight
from evomerge.recipe.blend import COMPONENTS, Blend, Layer, Source
from evomerge.recipe.coefficients import Arrays, Coefficients
from evomerge.recipe.operators import Linear
from evomerge.values import Value, digest_of

if TYPE_CHECKING:
    from evomerge.recipe.parents import Parents

TINY = 1e-300
"""Products of scales do not get smaller; long before, `materialize` refuses them."""
Dtype: TypeAlias = Literal["float32", "float16", "bfloat16"]


class Folder(Value):
    """A parent: a Hugging Face model folder, named by what is in it, or a PEFT adapter over such a folder, its `base`.

    `digest` is over its files, `path` only says where they are; `hub` is the id it was fetched by.
    """

    kind: Literal["folder"] = "folder"
    path: str
    digest: str | None = None
    hub: str | None = None
    base: "Folder | None" = None

    def content(self) -> str | None:
        """Content address, if its files were read."""
        return self.digest

    def shown(self) -> str:
        """What a reader knows it by."""
        return self.hub or self.path

    def origins(self) -> None:
        """Which layer of a model folder each layer of it is: none other than itself."""

    def nested(self) -> int:
        """How many recipes there are within one another: none."""
        return 0

    def folders(self) -> list["Folder"]:
        """The model folders that it is made of in the end: itself, and what it is an adapter over."""
        return [self, *([self.base] if self.base is not None else [])]

    def side_files(self) -> list[Arrays]:
        """Side files of the recipes that it is made of: none."""
        return []

    def with_side_files(self, place: Callable[[Arrays], str]) -> "Folder":  # noqa: ARG002  It has none.
        """The same, its side files at other places: it has none."""
        return self


def _kind(value: Any) -> str:
    return "recipe" if isinstance(value, Recipe) or (isinstance(value, dict) and "layers" in value) else "folder"


Parent: TypeAlias = Annotated[
    Union[Annotated[Folder, Tag("folder")], Annotated["Recipe", Tag("recipe")]],  # noqa: UP007  A name not there yet.
    Discriminator(_kind),
]
"""A model to merge from: one on disk, or a recipe, which stands for the model that it makes."""


class Recipe(Value):
    """A merged model, complete: which parents, how each layer and each outer tensor group is blended.

    `outer` holds the groups outside the stack (embeddings, norm, head, as the model class has them).
    `template` names the parent that lends config, tokenizer and tensor names. Where `tensors` names a tensor of the
    merged model, its sources have these weights instead of their blend's, in its order; where the side file `arrays`
    does, each of its columns or rows has its own.
    """

    format: Literal[1] = 1
    parents: dict[str, Parent]
    template: str
    dtype: Dtype
    seed: Seed = 0
    layers: tuple[Layer, ...] = Field(min_length=1, max_length=HOPS)
    outer: dict[str, Blend]
    tensors: dict[str, tuple[Weight, ...]] = Field(default_factory=dict)
    arrays: Arrays | None = None

    @model_validator(mode="after")
    def _knows_its_parents(self) -> Self:
        unknown = sorted((self.used() | {self.template}) - set(self.parents))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not among the parents ({', '.join(sorted(self.parents))})")
        return self

    @model_validator(mode="after")
    def _is_not_too_deep(self) -> Self:
        if self.nested() > RECIPES_NESTED:
            raise ValueError(
                f"parents are recipes of recipes, more than {RECIPES_NESTED} deep; export one, and name that"
            )
        return self

    def nested(self) -> int:
        """How many recipes there are within one another, this one counted."""
        return 1 + max((parent.nested() for parent in self.parents.values()), default=0)

    def blends(self) -> list[Blend]:
        """Every blend in it, layer by layer, then the outer groups."""
        inner = [layer.part(component) for layer in self.layers for component in COMPONENTS]
        return inner + list(self.outer.values())

    def used(self) -> set[str]:
        """Names of the parents whose weights it reads."""
        return set().union(*(blend.parents() for blend in self.blends()))

    def refined(self, coefficients: Coefficients) -> "Recipe":
        """This recipe with coefficients by tensor: written out, or, finer ones, in a side file that is to be kept.

        `arrays.path` is then the file's name by its content, in whatever folder it is kept.
        """
        grain, digest = coefficients.grain, coefficients.digest()
        if grain == "tensor":
            weights = {name: tuple(map(float, array[:, 0])) for name, array in coefficients.arrays.items()}
            return self.model_copy(update={"tensors": weights, "arrays": None})
        arrays = Arrays(path=f"{digest.removeprefix('sha256:')}{SUFFIX}", digest=digest, grain=grain)
        return self.model_copy(update={"tensors": {}, "arrays": arrays})

    def coefficients(self) -> Coefficients | None:
        """The coefficients by tensor that it has, those of its side file included.

        Raises:
            SpecError: that is missing, or not the one.
        """
        if not self.tensors and self.arrays is None:
            return None
        own = {name: np.array([weights], np.float32).T for name, weights in self.tensors.items()}
        if self.arrays is None:
            return Coefficients("tensor", own)
        found = Coefficients.read(self.arrays)
        return Coefficients(found.grain, {**own, **found.arrays})

    def gains(self) -> tuple[float, ...]:
        """What each layer's contribution to the residual stream is multiplied by (layers,), instead of scaling inputs.

        A layer's norm divides out any scale of its input, so that multiplying the stream by s_1 ... s_t before layer t
        is the same, up to the norms' epsilon and a factor that the final norm divides out, as leaving the stream and
        dividing what layer t adds by that product. So an ordinary checkpoint can hold it, and it is what is scored.
        """
        products = accumulate((layer.scale for layer in self.layers), mul)
        return tuple(1.0 / max(product, TINY) for product in products)

    def origins(self) -> tuple[int, ...]:
        """Which layer of the model folders each layer comes from (layers,): that one's conventions are its own."""
        found = []
        known = {name: parent.origins() for name, parent in self.parents.items()}
        for layer in self.layers:
            source = layer.blend.everything()[-1]
            index, inner = source.layer or 0, known[source.parent]
            found.append(index if inner is None else inner[index])
        return tuple(found)

    def content(self) -> str:
        """Content address, as `Folder.content`."""
        return self.digest()

    def shown(self) -> str:
        """What a reader knows it by: what it is made of."""
        return f"a merge of {', '.join(sorted(self.used()))}"

    def folders(self) -> list[Folder]:
        """The model folders that it is made of in the end, each once."""
        found: dict[str | None, Folder] = {}
        for parent in self.parents.values():
            for folder in parent.folders():
                found.setdefault(folder.digest or folder.path, folder)
        return list(found.values())

    def side_files(self) -> list[Arrays]:
        """Side files of it and of the recipes that it is made of."""
        own = [self.arrays] if self.arrays is not None else []
        return own + [arrays for parent in self.parents.values() for arrays in parent.side_files()]

    def with_side_files(self, place: Callable[[Arrays], str]) -> "Recipe":
        """The same, its side file and those of the recipes that it is made of at other places."""
        parents = {name: parent.with_side_files(place) for name, parent in self.parents.items()}
        arrays = self.arrays
        if arrays is not None:
            arrays = arrays.model_copy(update={"path": place(arrays)})
        return self.model_copy(update={"parents": parents, "arrays": arrays})

    def digest(self) -> str:
        """Content address: of the parents' files and what is done with them, never of paths or names."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True, exclude={"parents"})
        used = self.used() | {self.template}
        names = {name: self.parents[name].content() or f"name:{name}" for name in used}
        plain["parents"] = sorted(names.values())
        plain["template"] = names[self.template]
        if self.arrays is not None:
            plain["arrays"].pop("path")
        if not any(blend.operator.random for blend in self.blends()):
            plain.pop("seed", None)
        return digest_of(_renamed(plain, names))

    def walked(self, other: "str | Recipe", base: str | None = None, dtype: Dtype | None = None) -> "Recipe":
        """Another model, of a folder or a recipe, with the layers of the model folders that this one has, in order.

        In the folder there may be an adapter over this `base`. Without a `dtype` nothing is rounded.

        Raises:
            SpecError: the recipe has its layers in an order or number of its own.
        """
        if isinstance(other, Recipe) and other.origins() != tuple(range(len(other.layers))):
            raise SpecError(
                "an expert has layers in an order or number of its own, along which no path leads; leave it out"
            )
        name = "model"

        def there(layer: int | None) -> Blend:
            return Blend(operator=Linear(), sources=(Source(parent=name, layer=layer),))

        layers = [
            Layer(blend=there(index), scale=layer.scale)
            for index, layer in zip(self.origins(), self.layers, strict=True)
        ]
        over = Folder(path=base) if base is not None else None
        parent = Folder(path=other, base=over) if isinstance(other, str) else other
        return Recipe(
            parents={name: parent}, template=name, dtype="float32" if dtype is None else dtype, layers=tuple(layers),
            outer={group: there(None) for group in self.outer},
        )  # fmt: skip

    def only_used(self) -> "Recipe":
        """The recipe without the parents that it takes nothing from."""
        used = self.used() | {self.template}
        return self.model_copy(update={"parents": {name: p for name, p in self.parents.items() if name in used}})

    def over(self, parents: "Parents", names: dict[str, str]) -> "Recipe":
        """The same recipe over `parents`, where its models have other `names` (by the names here).

        Raises:
            SpecError: it makes a model that these parents cannot: with other outer groups, or from layers that are
                not there.
        """
        self._check_sources(parents, names)
        plain = {key: value for key, value in self.to_plain().items() if key != "parents"}
        plain = _renamed(plain, names)
        plain["parents"] = {name: parent.to_plain() for name, parent in parents.models.items()}
        plain["template"] = parents.template
        return Recipe.model_validate_json(json.dumps(plain))

    def _check_sources(self, parents: "Parents", names: dict[str, str]) -> None:
        _check_groups(self.outer.keys(), parents.outer)
        for place, source in ((f"layers.{i}", s) for i, layer in enumerate(self.layers) for s in layer.sources()):
            depth = parents.depth_of(names[source.parent])
            if source.layer is None or source.layer >= depth:
                shown = "no layer" if source.layer is None else f"layer {source.layer}"
                raise SpecError(f"{place}: {source.parent} gives {shown}; write a layer from 0 to {depth - 1}")
        for group, blend in self.outer.items():
            if any(source.layer is not None for source in blend.everything()):
                raise SpecError(f"outer.{group}: a source has a layer, and is outside the layers; leave it out")


def _check_groups(mine: Any, known: Sequence[str]) -> None:
    for group in sorted(set(mine) ^ set(known)):
        what = "is missing" if group in known else "is not there"
        raise SpecError(f"outer.{group} {what}; the models have {', '.join(known)}")


def _renamed(plain: Any, names: dict[str, str]) -> Any:
    if isinstance(plain, dict):
        # A tensor or a group may be called that too.
        return {k: names[v] if k == "parent" and isinstance(v, str) else _renamed(v, names) for k, v in plain.items()}
    if isinstance(plain, list):
        return [_renamed(item, names) for item in plain]
    return plain
