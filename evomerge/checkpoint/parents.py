"""The models of a search, opened together and checked against each other before anything runs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TypeAlias, assert_never

from transformers import PretrainedConfig

from evomerge.checkpoint.account import Account, Pairing, account_of, has_own, pair
from evomerge.checkpoint.adapter import AdapterFolder, is_adapter
from evomerge.checkpoint.anatomy import Anatomy, anatomy_of
from evomerge.checkpoint.configs import same_architecture
from evomerge.checkpoint.fit import same_shapes, same_tokenizer
from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.inspect import digest
from evomerge.checkpoint.read import TIED, read_config, read_model, understood, untied
from evomerge.checkpoint.shares import Shares
from evomerge.checkpoint.side import CODE, CONFIG, NOT_FETCHED
from evomerge.checkpoint.terms import USUAL, Terms
from evomerge.errors import SpecError
from evomerge.files import at_home, is_there
from evomerge.recipe import BASE, Folder, Parent, Parents, Recipe
from evomerge.values import digest_of

Source: TypeAlias = str | Folder | Recipe
"""A model to be opened: the path of a folder or a hub id, or the folder with its base, or a recipe."""
MOST_NAMES = 6
"""Tensors or files that are named."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class ParentFiles:
    """Parents that fit together: their checkpoints, the config and anatomy they share, and what each one's files are.

    Parents that are recipes are in `recipes`, over other names: those of `checkpoints` (which holds the folders that
    they are made of as well), and of other `recipes`. `models` says what each of these is.
    """

    parents: Parents
    checkpoints: dict[str, Checkpoint]
    config: PretrainedConfig
    anatomy: Anatomy
    accounts: dict[str, Account]
    models: dict[str, Parent]
    recipes: dict[str, Recipe]

    @property
    def lender(self) -> str:
        """Which of the checkpoints lends config, tokenizer and tensor names to a merged model."""
        name = self.parents.template
        while name in self.recipes:
            name = self.recipes[name].template
        adapter = self.adapter(name)
        return name if adapter is None else adapter.over

    @property
    def template(self) -> Checkpoint:
        """The folder that lends config, tokenizer and tensor names to a merged model."""
        return self.checkpoints[self.lender]

    def adapter(self, name: str) -> AdapterFolder | None:
        """The adapter that a model of this name is; None of any other."""
        found = self.checkpoints.get(name)
        return found if isinstance(found, AdapterFolder) else None

    def check_unchanged(self) -> None:
        """See that all weights on disk are those that were opened.

        Raises:
            SpecError: a file was changed, cut short or taken away.
        """
        for checkpoint in self.checkpoints.values():
            checkpoint.check_unchanged()

    def remarks(self) -> tuple[str, ...]:
        """What nobody reads of the models: tensors that their class does not load, files that stay where they are."""
        found = []
        for name, account in self.accounts.items():
            if account.ignored:
                found.append(
                    f"{self.checkpoints[name].at()}: {_some(account.ignored, 'tensor')} not loaded by the class"
                )
        template = self.accounts[self.lender]
        if self.template.trusted:
            found.append("models.trust_remote_code is true: code that comes with the models runs")
        if template.files:
            found.append(f"{self.template.at()}: {_some(template.files, 'file')} not taken along by a merge")
        return tuple(found)

    def read_again(self) -> None:
        """Read every file to its end, whatever is remembered of it, and see that it holds what it held.

        Raises:
            SpecError: a file holds something else, though it may look as it did.
        """
        for name, checkpoint in self.checkpoints.items():
            now = _address(checkpoint, self.accounts[name], self.models, fresh=True)
            if now != self.models[name].content():
                raise SpecError(f"{checkpoint.at()} has other content than when it was last read; restore it")

    def size(self) -> int:
        """Bytes of one model in the dtype it is merged to."""
        return self.anatomy.parameters * (4 if self.parents.dtype == "float32" else 2)


def _tying(config: PretrainedConfig) -> tuple[object, ...]:
    """What a config says of ties, at each of its levels."""
    return tuple(getattr(part, TIED, None) for part in (config, config.get_text_config()))


def _some(names: Sequence[str], kind: str) -> str:
    """The first of some names, and how many there are."""
    counted = f"1 {kind} is" if len(names) == 1 else f"{len(names)} {kind}s are"
    shown = ", ".join(names[:MOST_NAMES]) + (" ..." if len(names) > MOST_NAMES else "")
    return f"{shown}: {counted}"


def open_parents(
    base: Source | None,
    experts: Mapping[str, Source],
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    terms: Terms = USUAL,
) -> ParentFiles:
    """Open base and experts, check that they fit, and address them by content.

    Each is a folder, a hub id, or a recipe, whose folders are opened too. An expert may be an adapter over the base.

    Raises:
        SpecError: one cannot be read, or differs from the first in architecture, shapes or tokenizer; a recipe was
            written for other models, or takes layers that are not there.
    """
    if BASE in experts:
        raise SpecError(f"models.experts: {BASE!r} is the base's own name; choose another")
    sources = {**({BASE: base} if base is not None else {}), **experts}
    if terms.template is not None and terms.template not in sources:
        raise SpecError(f"models.template: {terms.template!r} is none of the models; write one of {', '.join(sources)}")
    if terms.trusted:
        progress("code that comes with the models may run (models.trust_remote_code)")
    opening, called = _Opening(set(sources), progress, trusted=terms.trusted), terms.called
    folders = {
        name: _locate(source, called(name), terms.trusted)
        for name, source in sources.items()
        if not isinstance(source, Recipe)
    }
    opening.add({name: folder for name, folder in folders.items() if not is_adapter(Path(folder.path))}, called)
    for name, folder in folders.items():
        if is_adapter(Path(folder.path)):
            opening.add_adapter(name, folder, called(name))
    recipes = {name: source for name, source in sources.items() if isinstance(source, Recipe)}
    for name, source in recipes.items():
        opening.add_folders(name, source, called(name))  # All of them first: one may untie what the others tie.
    for name, source in recipes.items():
        opening.add_recipe(name, source, called(name))
    return opening.opened(tuple(sources), seed, terms.template)


class _Opening:
    """Models being opened: all fit the first folder, and each is there once, by what is in it."""

    def __init__(self, taken: set[str], progress: Callable[[str], None], *, trusted: bool) -> None:
        self.checkpoints: dict[str, Checkpoint] = {}
        self.accounts: dict[str, Account] = {}
        self.models: dict[str, Parent] = {}
        self.recipes: dict[str, Recipe] = {}
        self._configs: dict[str, PretrainedConfig] = {}
        self._pairings: dict[str, Pairing] = {}
        self._taken = taken
        self._progress = progress
        self._trusted = trusted
        self._ties: dict[object, Mapping[str, str]] = {}

    def add(self, folders: Mapping[str, Folder], called: Callable[[str], str]) -> None:
        """Open folders under these names, and read them whole once they are seen to fit."""
        if not folders:
            return
        new = {
            name: Checkpoint(Path(folder.path), called(name), trusted=self._trusted) for name, folder in folders.items()
        }
        self.checkpoints |= new
        self._configs |= {name: read_config(checkpoint) for name, checkpoint in new.items()}
        first, *_ = self.checkpoints.values()
        config, *_ = self._configs.values()
        if not self._pairings:
            self.config = config
            self._build(first, config)
        for name, checkpoint in new.items():
            if checkpoint is not first:
                same_architecture(first, config, checkpoint, self._configs[name])
                same_tokenizer(first, checkpoint)
        self._fit(first, new)
        for name, checkpoint in new.items():
            same_shapes(self.anatomy, checkpoint, self.accounts[name].read)
        for name, folder in folders.items():
            address = _address(new[name], self.accounts[name], self.models, self._progress)
            self.models[name] = folder.model_copy(update={"digest": address, "base": None})

    def _fit(self, first: Checkpoint, new: Mapping[str, Checkpoint]) -> None:
        """Find the anatomy that all share, in which nothing is tied that one of them does not tie."""
        for name, checkpoint in new.items():
            with understood(checkpoint.at(CONFIG), checkpoint.config):
                self._pairings[name] = pair(self._model, checkpoint)
        ties = {name: self._ties_of(self.checkpoints[name], config) for name, config in self._configs.items()}
        apart = [
            checkpoint
            for name, checkpoint in self.checkpoints.items()
            if not ties[name] or has_own(checkpoint, self._pairings[name], ties[name])
        ]
        if apart and self._model.all_tied_weights_keys:
            self._untie(first, apart[0])
        self.accounts = {
            name: account_of(checkpoint, self._pairings[name], ties[name], self.anatomy)
            for name, checkpoint in self.checkpoints.items()
        }
        for name, checkpoint in self.checkpoints.items():
            if isinstance(checkpoint, AdapterFolder):  # What it changes is fp32, whatever it is merged to.
                self.accounts[name] = replace(self.accounts[name], dtype=self.accounts[checkpoint.over].dtype)

    def _build(self, first: Checkpoint, config: PretrainedConfig) -> None:
        self._model = read_model(first, config)
        self._ties.setdefault(_tying(config), dict(self._model.all_tied_weights_keys))
        with understood(first.at(CONFIG), first.config):
            self.anatomy = anatomy_of(self._model)

    def _untie(self, first: Checkpoint, apart: Checkpoint) -> None:
        self.config = untied(self.config)
        self._build(first, self.config)
        if self.recipes or self._model.all_tied_weights_keys:
            raise SpecError(
                f"{apart.at()} has tensors of its own where the models before it have one for two places"
                f" ({TIED}); name it before recipes, or leave it out"
            )

    def _ties_of(self, checkpoint: Checkpoint, config: PretrainedConfig) -> Mapping[str, str]:
        """What stock loading ties in the class of models, if their config says so: the copy, and what it copies."""
        if _tying(config) not in self._ties:
            self._ties[_tying(config)] = dict(read_model(checkpoint, config).all_tied_weights_keys)
        return self._ties[_tying(config)]

    def add_adapter(self, name: str, folder: Folder, label: str) -> None:
        """Open an adapter over its base, which is opened first if it is not yet."""
        if folder.base is not None:
            over = self._add_inner(f"{name}/base", folder.base, f"{label}, its base")
        elif BASE in self.checkpoints and name != BASE:
            over = BASE
        else:
            raise SpecError(
                f"{label}: {folder.path} is an adapter; let models.base be the model folder that it is for"
                " (evomerge score takes a recipe over both)"
            )
        adapter = AdapterFolder(Path(folder.path), label, self.checkpoints[over], over, self._pairings[over].places)
        first, *_ = self.checkpoints.values()
        self.checkpoints[name], self._configs[name] = adapter, self._configs[over]
        self._fit(first, {name: adapter})
        same_shapes(self.anatomy, adapter, self.accounts[name].read)
        address = _address(adapter, self.accounts[name], self.models, self._progress)
        self.models[name] = folder.model_copy(update={"digest": address, "base": self.models[over]})

    def add_folders(self, name: str, recipe: Recipe, label: str) -> None:
        """Open the folders that a recipe is made of in the end."""
        for inner, parent in recipe.only_used().parents.items():
            match parent:
                case Recipe():
                    self.add_folders(f"{name}/{inner}", parent, f"{label}.parents.{inner}")
                case Folder():
                    self._add_inner(f"{name}/{inner}", parent, f"{label}.parents.{inner}")
                case _:
                    assert_never(parent)

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
            Shares(self.recipes[name], self.anatomy)  # It refuses weights that do not fit.
        except SpecError as error:
            raise SpecError(f"{label}: {error}") from None
        return name

    def opened(self, names: tuple[str, ...], seed: int, template: str | None) -> ParentFiles:
        """All of them, those of these names being the parents."""
        parents = self._parents(names, seed, template)
        depths = {parents.depth_of(name) for name in names}
        if len(depths) == 1:  # All may be recipes of models that are deeper, or less deep, than the folders.
            tensors = self.anatomy.parts(self.models[names[0]].origins())
            parents = parents.model_copy(update={"layers": depths.pop(), "tensors": tensors})
        return ParentFiles(
            parents, self.checkpoints, self.config, self.anatomy, self.accounts, self.models, self.recipes
        )

    def _add_inner(self, name: str, parent: Parent, label: str) -> str:
        """A model that a recipe merges, under the name that it has already, or else under a new one."""
        known = self._called(parent.content())
        if known:
            return known[0]
        new = next(free for i in count(1) if (free := name if i == 1 else f"{name} {i}") not in self._taken)
        self._taken.add(new)
        if isinstance(parent, Recipe):
            return self.add_recipe(new, parent, label)
        folder = _locate(parent, label, self._trusted)
        if is_adapter(Path(folder.path)):
            self.add_adapter(new, folder, label)
        else:
            self.add({new: folder}, lambda _: label)
        content = self.models[new].content()
        if parent.digest is not None and parent.digest != content:
            raise SpecError(f"{label}: {parent.shown()} is not the model this recipe was written for (digests differ)")
        first, *again = self._called(content)
        for other in again:
            for known_as in (self.models, self.checkpoints, self.accounts, self._configs, self._pairings):
                del known_as[other]
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
            dtype=first.dtype if isinstance(first, Recipe) else self.accounts[names[0]].dtype,
            seed=seed,
            lender=template,
            tensors=self.anatomy.parts(),
        )


def _address(
    checkpoint: Checkpoint,
    account: Account,
    models: Mapping[str, Parent],
    progress: Callable[[str], None] = lambda _: None,
    *,
    fresh: bool = False,
) -> str:
    """Content address of a model folder, or of an adapter over its base, one of the `models`."""
    if not isinstance(checkpoint, AdapterFolder):
        return digest(checkpoint, account.read.values(), progress, fresh=fresh)
    own = digest(checkpoint, checkpoint.parts, progress, fresh=fresh)
    return digest_of({"adapter": own, "base": models[checkpoint.over].content()})


def _locate(given: str | Folder, label: str, trusted: bool) -> Folder:
    """The folder a parent lies in, fetched from the hub if it is a hub id."""
    source, base = (given, None) if isinstance(given, str) else (given.shown(), given.base)
    path = at_home(source)
    there = is_there(path)
    if there or not HUB_ID.fullmatch(source):
        if not there:
            raise SpecError(f"{label}: {source} does not exist; give a model folder or a hub id like owner/name")
        return Folder(path=str(path.absolute()), base=base)
    from huggingface_hub import snapshot_download

    repo, _, revision = source.partition("@")
    try:
        ignored = [pattern for pattern in NOT_FETCHED if not (trusted and pattern == f"*{CODE}")]
        found = snapshot_download(repo, revision=revision or None, ignore_patterns=ignored)
    except Exception as error:  # noqa: BLE001  The hub library's own errors vary from release to release.
        reason = str(error).strip().split("\n")[0]
        raise SpecError(
            f"{label}: there is no folder {source}, and it could not be fetched as a hub id either ({reason})"
        ) from None
    return Folder(path=found, hub=source, base=base)
