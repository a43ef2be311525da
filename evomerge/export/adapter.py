"""A merge as a PEFT adapter over its base: what it adds to each matrix, in as many products as the rank says."""

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from evomerge.checkpoint import ADAPTER, ADAPTER_PREFIX, ADAPTER_WEIGHTS, ParentFiles, blank_model, finite
from evomerge.errors import RunError, SpecError
from evomerge.export.weights import check_foldable, weights_of
from evomerge.recipe import BASE, Blend, Folder, Recipe
from evomerge.space import span_of

WHOLE = 2048
"""Sides up to which a matrix is decomposed whole; of larger ones the largest parts are found by random projections."""
BESIDE, ROUNDS = 32, 6
"""Directions beside the rank, and rounds, of random projections (Halko et al. 2011)."""
NOTHING = 1e-6
"""A tensor that is as near to the base's, as a share, is the base's."""


class AsAdapter(NamedTuple):
    """A merge written as an adapter of this rank; left out: of the one with which it is the merge."""

    rank: int | None = None


@dataclass(frozen=True)
class Adapted:
    """What was written: the rank, and how far what it adds is from what the merge adds, as a share of that."""

    rank: int
    error: float


def exact_rank(recipe: Recipe, files: ParentFiles) -> int | None:
    """The rank with which an adapter is the merge; None if its experts are no adapters, or not just added up."""
    adapters = [files.adapter(name) for name in recipe.used() - {BASE}]
    plain = [adapter for adapter in adapters if adapter is not None and not adapter.has_magnitudes]
    own = bool(recipe.tensors) or recipe.arrays is not None  # With other weights than the blend's it may not keep it.
    kept = all(_keeps_base(blend) and (blend.operator.needs_base or not own) for blend in recipe.blends())
    if len(plain) < len(adapters) or not kept or any(gain != 1.0 for gain in recipe.gains()):
        return None
    return sum(max(adapter.ranks, default=0) for adapter in plain)


def _keeps_base(blend: Blend) -> bool:
    """Whether a blend is the base, once, and what others add to it."""
    try:
        return abs(sum(span_of(blend).values()) - 1.0) < NOTHING
    except SpecError:
        return False


def write_adapter(folder: Path, recipe: Recipe, files: ParentFiles, rank: int | None = None) -> Adapted:
    """Write a merge as an adapter of this rank over the base; left out, of the one with which it is the merge.

    Norms and biases that differ are written whole.

    Raises:
        SpecError: there is no base, or none of the merge's depth; a rank is to be given; or what changes is no matter
            of an adapter: embeddings that the head is tied to.
        RunError: a tensor is not finite.
    """
    base = _checked_base(recipe, files)
    wanted = rank or exact_rank(recipe, files)
    if wanted is None:
        raise SpecError("--rank: this merge is no sum of adapters, so that a rank has to be given, such as --rank 16")
    model = blank_model(files.config, trusted=files.template.trusted)
    read = files.accounts[base].read
    shared = Counter(read.values())
    plan = _Plan(wanted, model, {name for name, disk in read.items() if shared[disk] > 1} | _ties(model))
    # Before it is rounded to the merge's dtype: an adapter has nothing to round.
    weights = weights_of(recipe.model_copy(update={"dtype": "float32"}), files)
    for place in weights.places():
        name = weights.source(place)
        plan.take(name, files.checkpoints[base].tensor(read[name]).float(), weights.tensor(place))
    found = files.models[base]
    assert isinstance(found, Folder), "it was checked to be one"
    plan.write(folder, found)
    return Adapted(wanted, plan.error)


def _ties(model: PreTrainedModel) -> set[str]:
    return {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}


def _checked_base(recipe: Recipe, files: ParentFiles) -> str:
    parents = files.parents
    if parents.base is None or parents.base not in files.checkpoints:
        raise SpecError("--format adapter: an adapter is over a base; name models.base, a model folder")
    if recipe.origins() != tuple(range(files.anatomy.layers)):
        raise SpecError(
            "--format adapter: the merge has its layers in another order or number than the base, which no adapter can"
            " say; export it as a model"
        )
    check_foldable(recipe, files)
    return parents.base


class _Plan:
    """An adapter as it grows, tensor by tensor; `tied` are tensors of the base that stand for several."""

    def __init__(self, rank: int, model: PreTrainedModel, tied: Collection[str]) -> None:
        self._rank = rank
        self._model = model
        self._tied = tied
        self._tensors: dict[str, Tensor] = {}
        self._ranks: dict[str, int] = {}
        self._saved: dict[str, dict[str, Tensor]] = {}
        self._whole: set[str] = set()
        self._biases: dict[str, Tensor] = {}
        self._matrix: tuple[str, torch.Size] | None = None
        self._lost = self._all = 0.0

    @property
    def error(self) -> float:
        """How much of what the merge adds is not there, as a share (Frobenius)."""
        return math.sqrt(max(0.0, self._lost) / self._all) if self._all else 0.0

    def take(self, name: str, before: Tensor, after: Tensor) -> None:
        """One tensor of the base, and what the merge has in its place, in fp32.

        Raises:
            RunError: that is not finite.
        """
        if not finite(after):
            raise RunError(f"nothing was written: {name} holds NaN or infinity; give smaller weights or scales")
        added = after - before
        size = float(added.double().square().sum())
        changed = size > (NOTHING**2) * float(before.double().square().sum())
        self._all += size if changed else 0.0
        module, _, part = name.rpartition(".")
        owner = self._model.get_submodule(module)
        if part == "weight" and isinstance(owner, nn.Linear | Conv1D | nn.Embedding):
            if self._matrix is None and isinstance(owner, nn.Linear | Conv1D):
                self._matrix = module, before.T.shape if isinstance(owner, Conv1D) else before.shape
            if changed:
                self._factorise(module, owner, added, tied=name in self._tied)
        elif part == "bias" and isinstance(owner, nn.Linear | Conv1D):
            if changed:
                self._biases[module] = after
        else:
            self._saved.setdefault(module, {})[part] = after
            self._whole |= {module} if changed else set()

    def _factorise(self, module: str, owner: nn.Module, added: Tensor, *, tied: bool) -> None:
        if tied:
            raise SpecError(
                f"--format adapter: {module} is changed, and embeddings and head are one tensor, of which an adapter"
                " changes one half; search with outer: base, or export a model"
            )
        turned = isinstance(owner, Conv1D | nn.Embedding)
        up, down = _factors(added.T if turned else added, self._rank)
        self._put(module, up, down, embeds=isinstance(owner, nn.Embedding))
        product = up @ down
        self._lost += float((added - (product.T if turned else product)).double().square().sum())

    def _put(self, module: str, up: Tensor, down: Tensor, *, embeds: bool = False) -> None:
        kinds = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A.weight", "lora_B.weight")
        for kind, factor in zip(kinds, (down, up), strict=True):
            self._tensors[f"{ADAPTER_PREFIX}{module}.{kind}"] = factor.contiguous()
        self._ranks[module] = len(down)

    def write(self, folder: Path, base: Folder) -> None:
        """Both files of the adapter.

        Raises:
            SpecError: there is nothing to write.
        """
        if not (self._ranks or self._biases or self._whole):
            raise SpecError("--format adapter: the candidate is the base, unchanged, to which an adapter adds nothing")
        if not self._ranks and self._matrix is not None:  # PEFT wants one module at least.
            module, shape = self._matrix
            self._put(module, torch.zeros(shape[0], 1), torch.zeros(1, shape[1]))
        saved = {
            f"{ADAPTER_PREFIX}{module}.{part}": tensor
            for module in self._whole
            for part, tensor in self._saved[module].items()
        }
        biases = {
            f"{ADAPTER_PREFIX}{module}.{'base_layer.' if module in self._ranks else ''}bias": bias
            for module, bias in self._biases.items()
        }
        save_file({**self._tensors, **biases, **saved}, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (folder / ADAPTER).write_text(json.dumps(self._config(base), indent=2) + "\n", encoding="utf-8")

    def _config(self, base: Folder) -> Mapping[str, Any]:
        odd = {module: rank for module, rank in self._ranks.items() if rank != self._rank}
        turned = any(isinstance(self._model.get_submodule(module), Conv1D) for module in self._ranks)
        name, _, revision = base.shown().partition("@") if base.hub is not None else (base.path, "", "")
        return {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": name,
            "revision": revision or None, "inference_mode": True,
            "r": self._rank, "lora_alpha": self._rank, "lora_dropout": 0.0, "fan_in_fan_out": turned,
            "rank_pattern": odd, "alpha_pattern": odd, "target_modules": sorted(self._ranks),
            "bias": "all" if self._biases else "none", "modules_to_save": sorted(self._whole) or None,
        }  # fmt: skip


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest product (outputs, rank) @ (rank, inputs) to a matrix (Eckart & Young 1936), both parts as large."""
    count = min(rank, *matrix.shape)
    if max(matrix.shape) <= WHOLE or count + BESIDE >= min(matrix.shape):
        left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            left, sizes, turned = torch.svd_lowrank(matrix, q=count + BESIDE, niter=ROUNDS)
        right = turned.T
    roots = sizes[:count].clamp_min(0).sqrt()
    return left[:, :count] * roots, right[:count] * roots[:, None]
