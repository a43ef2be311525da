"""What becomes of every tensor of a model folder: what stock transformers would load from where, and what it leaves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from evomerge.checkpoint.anatomy import Anatomy
from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.side import left_behind
from evomerge.errors import SpecError
from evomerge.recipe import Dtype

DTYPES: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}
"""The dtype that a model is merged to, by the one that most of its weights are stored in; F64 is read as fp32."""
CHUNK = 1 << 24
"""Elements that are compared at once."""
ARRANGED = "of the model; load it with transformers and save_pretrained(..., save_original_format=False)"


@dataclass(frozen=True)
class Pairing:
    """Names on disk by names in memory, as stock loading pairs them, ties aside; and names that it has no use for."""

    places: Mapping[str, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """Where each tensor of the model is read from, by its name in memory, and what nobody reads.

    `filled` are those that the folder lacks and that are read from what they are tied to. `ignored` are tensors on disk
    that the class does not load, `files` are files that do not go along with a merge, each with the reason. `dtype` is
    the one that most weights are stored in.
    """

    read: Mapping[str, str]
    filled: frozenset[str]
    ignored: tuple[str, ...]
    files: tuple[str, ...]
    dtype: Dtype

    def written(self, name: str) -> str:
        """What a tensor is called on disk where a model like this one is written."""
        return name if name in self.filled else self.read[name]


def pair(model: PreTrainedModel, checkpoint: Checkpoint) -> Pairing:
    """Which tensor on disk stock transformers would load as which tensor of the model.

    Raises:
        SpecError: two of them are the same one, or one is stored in another arrangement than the class has.
    """
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    places: dict[str, str] = {}
    ignored = []
    for disk in checkpoint.names:
        name, arranged = rename_source_key(disk, renamings, converters, prefix, state)
        if name not in state and disk in state:
            name, arranged = rename_source_key(disk, [], [], prefix, state)
        if name not in state:
            ignored.append(disk)
        elif arranged is not None:
            raise SpecError(f"{checkpoint.file_of(disk)}: {disk} is in another arrangement than {name} {ARRANGED}")
        elif name in places:
            raise SpecError(
                f"{checkpoint.file_of(disk)}: {disk} and {places[name]} both are {name} of the model; remove the one"
                " that is not meant"
            )
        else:
            places[name] = disk
    return Pairing(places, tuple(sorted(ignored)))


def has_own(checkpoint: Checkpoint, pairing: Pairing, ties: Mapping[str, str]) -> bool:
    """Whether a folder has other numbers for a tensor than for what it is tied to, so that stock loading unties it."""
    places = pairing.places
    return any(
        target in places and source in places and not _same(checkpoint, places[target], places[source])
        for target, source in ties.items()
    )


def account_of(checkpoint: Checkpoint, pairing: Pairing, ties: Mapping[str, str], anatomy: Anatomy) -> Account:
    """What stock transformers would do with each tensor of a folder whose config has these ties (target to source).

    Raises:
        SpecError: a tensor is missing, or stored as something else than plain floating-point numbers.
    """
    places = _filled(pairing.places, ties)
    missing = [name for name in anatomy.places if name not in places]
    if missing:
        raise SpecError(_missing(checkpoint, missing, pairing.ignored))
    read = {name: places[name] for name in anatomy.places}
    sizes: Counter[Dtype] = Counter()
    for disk in read.values():
        stored = checkpoint.dtype(disk)
        if stored not in DTYPES:
            raise SpecError(
                f"{checkpoint.file_of(disk)}: {disk} is stored as {stored}, and evomerge cannot know what its numbers"
                " stand for; give the model with this tensor in F32, F16 or BF16"
            )
        sizes[DTYPES[stored]] += torch.Size(checkpoint.shape(disk)).numel()
    filled = frozenset(name for name in read if name not in pairing.places)
    left = left_behind(checkpoint.path, checkpoint.weight_files, trusted=checkpoint.trusted)
    return Account(read, filled, pairing.ignored, left, max(sizes, key=lambda dtype: sizes[dtype]))


def _filled(places: Mapping[str, str], ties: Mapping[str, str]) -> dict[str, str]:
    """Where each tensor is read from: of tied ones the half that is there stands for the one that is missing."""
    groups: dict[str, list[str]] = {}
    for target, source in ties.items():
        groups.setdefault(source, [source]).append(target)
    filled = dict(places)
    for members in groups.values():
        there = [places[name] for name in members if name in places]
        filled |= {name: there[0] for name in members if there and name not in places}
    return filled


def _missing(checkpoint: Checkpoint, missing: Sequence[str], ignored: Sequence[str]) -> str:
    text = f"{checkpoint.at()} has no tensor for {missing[0]} ({len(missing)} missing in all)"
    odd = next((disk for disk in ignored if checkpoint.dtype(disk) not in DTYPES), None)
    if odd is not None:
        return f"{text}, but {odd} as {checkpoint.dtype(odd)}, as quantised models have; give the full-precision model"
    return f"{text}; copy it anew, or, if it is there in another arrangement {ARRANGED.partition('; ')[2]}"


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    if checkpoint.shape(one) != checkpoint.shape(other):
        return False
    left, right = checkpoint.tensor(one).view(-1), checkpoint.tensor(other).view(-1)
    pieces = (slice(start, start + CHUNK) for start in range(0, left.numel(), CHUNK))
    return all(torch.equal(left[piece].float(), right[piece].float()) for piece in pieces)
