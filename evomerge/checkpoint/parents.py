"""The models of a search, opened together and checked against each other before anything runs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from evomerge.checkpoint.anatomy import Anatomy, anatomy_of, blank_model, disk_names, read_config
from evomerge.checkpoint.fit import same_architecture, same_shapes, same_tokenizer
from evomerge.checkpoint.folder import GENERATION, TOKENIZER_FILES, Checkpoint
from evomerge.checkpoint.inspect import digest
from evomerge.errors import SpecError
from evomerge.files import at_home, is_there
from evomerge.recipe import BASE, Folder, Parent, Parents, Recipe

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class ParentFiles:
    """Parents that fit together: their checkpoints, the anatomy they share, and each one's names on disk.

    Parents that are recipes are in `recipes`, over other names: those of `checkpoints` (which holds the folders that
    they are made of as well), and of other `recipes`. `models` says what each of these is.
    """

    parents: Parents
    checkpoints: dict[str, Checkpoint]
    anatomy: Anatomy
    disk: dict[str, dict[str, str]]
    models: dict[str, Parent]
    recipes: dict[str, Recipe]

    @property
    def lender(self) -> str:
        """Which of the checkpoints lends config, tokenizer and tensor names to a merged model."""
        name = self.parents.template
        while name in self.recipes:
            name = self.recipes[name].template
        return name

    @property
    def template(self) -> Checkpoint:
        """The folder that lends config, tokenizer and tensor names to a merged model."""
        return self.checkpoints[self.lender]

    def check_unchanged(self) -> None:
        """See that all weights on disk are those that were opened.

        Raises:
            SpecError: a file was changed, cut short or taken away.
        """
        for checkpoint in self.checkpoints.values():
            checkpoint.check_unchanged()

    def size(self) -> int:
        """Bytes of one model in the dtype it is merged to."""
        return self.anatomy.parameters * (4 if self.parents.dtype == "float32" else 2)


def in_run_file(name: str) -> str:
    """Where a run file names a parent."""
    return "models.base" if name == BASE else f"models.experts.{name}"


def open_parents(
    base: str | Recipe | None,
    experts: Mapping[str, str | Recipe],
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    template: str | None = None,
    called: Callable[[str], str] = in_run_file,
) -> ParentFiles:
    """Open base and experts, check that they fit, and address them by content.

    Each is a folder, a hub id, or a recipe, whose folders are opened too. `template` names the one that lends config
    and tokenizer, if not the first; `called` says where the user named a parent, for messages.

    Raises:
        SpecError: one cannot be read, or differs from the first in architecture, shapes or tokenizer; a recipe was
            written for other models, or takes layers that are not there.
    """
    if BASE in experts:
        raise SpecError(f"models.experts: {BASE!r} is the base's own name; choose another")
    sources = {**({BASE: base} if base is not None else {}), **experts}
    if template is not None and template not in sources:
        raise SpecError(f"models.template: {template!r} is none of the models; write one of {', '.join(sources)}")
    opening = _Opening(set(sources), progress)
    folders = {name: source for name, source in sources.items() if isinstance(source, str)}
    opening.add({name: _locate(source, called(name)) for name, source in folders.items()}, called)
    for name, source in sources.items():
        if isinstance(source, Recipe):
            opening.add_recipe(name, source, called(name))
    return opening.opened(tuple(sources), seed, template)


class _Opening:
    """Models being opened: all fit the first folder, and each is there once, by what is in it."""

    def __init__(self, taken: set[str], progress: Callable[[str], None]) -> None:
        self.checkpoints: dict[str, Checkpoint] = {}
        self.disk: dict[str, dict[str, str]] = {}
        self.models: dict[str, Parent] = {}
        self.recipes: dict[str, Recipe] = {}
        self._taken = taken
        self._progress = progress

    def add(self, folders: Mapping[str, Folder], called: Callable[[str], str]) -> None:
        """Open folders under these names, and read them whole once they are seen to fit."""
        fresh = {name: Checkpoint(Path(folder.path), called(name)) for name, folder in folders.items()}
        self.checkpoints |= fresh
        if fresh and not self.disk:
            self._config = read_config(self._first)
            self._model = blank_model(self._config)
            self.anatomy = anatomy_of(self._model)
        for other in fresh.values():
            if other is not self._first:
                same_architecture(self._first, self._config, other)
                same_tokenizer(self._first, other)
        self.disk |= {name: disk_names(self._model, other, self.anatomy) for name, other in fresh.items()}
        for name, other in fresh.items():
            same_shapes(self.anatomy, other, self.disk[name])
        for name, folder in folders.items():
            self.models[name] = folder.model_copy(update={"digest": digest(fresh[name], self._progress)})

    def add_recipe(self, name: str, recipe: Recipe, label: str) -> str:
        """Open what a recipe is made of, and take it in under this name."""
        recipe = recipe.only_used()
        names = {
            inner: self._add_inner(f"{name}/{inner}", parent, f"{label}.parents.{inner}")
            for inner, parent in recipe.parents.items()
        }
        self.models[name] = recipe.model_copy(
            update={"parents": {inner: self.models[other] for inner, other in names.items()}}
        )
        try:
            self.recipes[name] = recipe.over(self._parents(tuple(self.models), 0, names[recipe.template]), names)
        except SpecError as error:
            raise SpecError(f"{label}: {error}") from None
        return name

    def opened(self, names: tuple[str, ...], seed: int, template: str | None) -> ParentFiles:
        """All of them, those of these names being the parents."""
        parents = self._parents(names, seed, template)
        return ParentFiles(parents, self.checkpoints, self.anatomy, self.disk, self.models, self.recipes)

    @property
    def _first(self) -> Checkpoint:
        return next(iter(self.checkpoints.values()))

    def _add_inner(self, name: str, parent: Parent, label: str) -> str:
        """A model that a recipe merges, under the name that it has already, or else under a new one."""
        known = self._called(parent.content())
        if known:
            return known[0]
        new = next(free for i in count(1) if (free := name if i == 1 else f"{name} {i}") not in self._taken)
        self._taken.add(new)
        if isinstance(parent, Recipe):
            return self.add_recipe(new, parent, label)
        self.add({new: _locate(parent.shown(), label)}, lambda _: label)
        content = self.models[new].content()
        if parent.digest is not None and parent.digest != content:
            raise SpecError(f"{label}: {parent.shown()} is not the model this recipe was written for (digests differ)")
        first, *again = self._called(content)
        for other in again:
            del self.models[other], self.checkpoints[other], self.disk[other]
        return first

    def _called(self, content: str | None) -> list[str]:
        """Names of the models of this content."""
        return [name for name, model in self.models.items() if content and model.content() == content]

    def _parents(self, names: tuple[str, ...], seed: int, template: str | None) -> Parents:
        first = self.models[names[0]]
        return Parents(
            models={name: self.models[name] for name in names},
            base=BASE if BASE in names else None,
            experts=tuple(name for name in names if name != BASE),
            layers=self.anatomy.layers,
            outer=self.anatomy.outer,
            dtype=first.dtype if isinstance(first, Recipe) else self.checkpoints[names[0]].main_dtype,
            seed=seed,
            lender=template,
        )


def _locate(source: str, label: str) -> Folder:
    """The folder a parent lies in, fetched from the hub if it is a hub id."""
    path = at_home(source)
    there = is_there(path)
    if there or not HUB_ID.fullmatch(source):
        if not there:
            raise SpecError(f"{label}: {source} does not exist; give a model folder or a hub id like owner/name")
        return Folder(path=str(path.absolute()))
    from huggingface_hub import snapshot_download

    repo, _, revision = source.partition("@")
    patterns = ["*.safetensors", "*.safetensors.index.json", "config.json", GENERATION, *TOKENIZER_FILES]
    try:
        found = snapshot_download(repo, revision=revision or None, allow_patterns=patterns)
    except Exception as error:  # noqa: BLE001  The hub library's own errors vary from release to release.
        reason = str(error).strip().split("\n")[0]
        raise SpecError(
            f"{label}: there is no folder {source}, and it could not be fetched as a hub id either ({reason})"
        ) from None
    return Folder(path=found, hub=source)
