"""RegMean before a search: experts rewritten so that, merged at equal weights, each suits its own inputs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evomerge.checkpoint import as_tied, read_config, write_config, write_model
from evomerge.device import free_memory
from evomerge.files import Target, new_folder, passing_folder
from evomerge.materialize import MAPPED, Grams, HeldParents, LiveModel, linear_maps, shares, suited
from evomerge.score import Lessons
from evomerge.space import unchanged

Places = Mapping[str, Sequence[int]]
"""Places of search items, by task."""
SHARE = 0.25
"""Of the host's free memory, for the Gram matrices of all layers that are watched in one round."""
EPS = (0.02, 0.2)
"""How much the diagonals of Gram matrices are raised, as parts of their mean: which is better, items must say."""


class RegMean:
    """Rewrites experts by what their linear maps read of items of their own; labels are not looked at.

    `owners` says for each expert which search items are its own, by task.
    """

    def __init__(self, live: LiveModel, lessons: Lessons, owners: Mapping[str, Places]) -> None:
        self._live = live
        self._lessons = lessons
        self._owners = owners
        self._read = HeldParents(live.files, MAPPED, torch.device("cpu")).read

    def write(self, folders: Mapping[float, Path]) -> None:
        """Write the rewritten experts, each a model folder by its name, into a folder for each eps.

        All of them at weights of one over their number are RegMean. What is no linear map of a layer is the expert's.
        They are in fp32: rounding to 16 bits would be a good part of what fine-tuning changed. A round reads all items
        once with every expert; there is one if memory is large enough.

        Raises:
            SpecError: a folder is there already, or a task gives no scores.
            RunError: the disk is full.
        """
        with passing_folder() as parts:
            for layers in self._rounds():
                grams = {name: self._grams(name, layers) for name in self._owners}
                for layer in layers:
                    for eps in folders:
                        self._solve(layer, eps, grams, parts)
            for eps, folder in folders.items():
                with new_folder(Target.folder(folder)) as fresh:
                    for name in self._owners:
                        self._write(fresh / name, name, eps, parts)

    def _rounds(self) -> Iterator[list[int]]:
        """Layers whose Gram matrices are in memory together."""
        anatomy, room = self._live.files.anatomy, SHARE * free_memory(self._live.device)[1]
        found: list[int] = []
        taken = 0
        for layer, places in enumerate(anatomy.inside):
            size = sum(4 * max(shape) ** 2 for name in places if len(shape := anatomy.shapes[name]) == 2)
            if found and (taken + size) * len(self._owners) > room:
                yield found
                found, taken = [], 0
            found.append(layer)
            taken += size
        yield found

    def _grams(self, expert: str, layers: Sequence[int]) -> Grams:
        """What the expert's maps in these layers read of its own items, on average over the items."""
        self._live.load(unchanged(self._live.files.parents, expert))
        grams = Grams()
        with grams.watching(self._maps(layers)):
            count = self._lessons.read(self._owners[expert], grams.begin)
        return grams.over(count)

    def _maps(self, layers: Sequence[int]) -> dict[str, torch.nn.Module]:
        anatomy, hops = self._live.files.anatomy, self._live.stack.hops
        found: dict[str, torch.nn.Module] = {}
        for layer in layers:
            names = {place.name: name for name, place in anatomy.inside[layer].items()}
            found |= {names[name]: each for name, each in linear_maps(hops[layer], list(names)).items()}
        return found

    def _solve(self, layer: int, eps: float, grams: Mapping[str, Grams], parts: Path) -> None:
        """Write the maps of one layer, as they are for one eps."""
        found: dict[str, dict[str, Tensor]] = {expert: {} for expert in grams}
        solved: dict[str, list[Tensor]] = {}
        for name, module in self._maps([layer]).items():
            read = [each[name] for each in grams.values()]
            if any(gram is None for gram in read):
                continue
            key = next(iter(grams.values())).stands_for(name)
            if key not in solved:
                solved[key] = shares([gram for gram in read if gram is not None], eps)
            for expert, share in zip(grams, solved[key], strict=True):
                weight, base = self._tensor(expert, name), self._base(name)
                found[expert][name] = suited(weight, base, share, len(grams), module)
        for expert, tensors in found.items():
            save_file(tensors, parts / _part(expert, eps, layer))

    def _write(self, folder: Path, expert: str, eps: float, parts: Path) -> None:
        files = self._live.files
        anatomy, account = files.anatomy, files.accounts[files.lender]
        names = {account.written(name): name for name in anatomy.places}
        plain = as_tied(files.template.config, read_config(files.template), files.config)
        folder.mkdir()
        config: dict[str, Any] = write_config(folder, plain, "float32")

        def tensor(written: str) -> Tensor:
            name = names[written]
            made = self._made(name, parts / _part(expert, eps, anatomy.places[name].layer or 0))
            return (self._tensor(expert, name) if made is None else made).float()

        shapes = {written: anatomy.shapes[name] for written, name in names.items()}
        write_model(folder, files.template, config, shapes, tensor)

    def _made(self, name: str, part: Path) -> Tensor | None:
        """A map that was solved for; None of anything else."""
        with safe_open(part, "pt") as stored:
            tensor: Tensor | None = stored.get_tensor(name) if name in stored.keys() else None  # noqa: SIM118
        return tensor

    def _tensor(self, parent: str, name: str) -> Tensor:
        return self._read(parent, None, name).view(self._live.files.anatomy.shapes[name])

    def _base(self, name: str) -> Tensor | float:
        """What is added to; nothing where there is no base."""
        base = self._live.files.parents.base
        return 0.0 if base is None else self._tensor(base, name)


def _part(expert: str, eps: float, layer: int) -> str:
    return f"{expert}-{eps:g}-{layer}.safetensors"
