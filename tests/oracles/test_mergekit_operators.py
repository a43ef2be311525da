"""The five operators against mergekit 0.1.5, tensor by tensor, in fp32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_family
from mergekit import sparsify
from mergekit.merge_methods import merge_tensors
from torch import Tensor

from evomerge.checkpoint import open_parents
from evomerge.materialize import MAPPED, HeldParents, Job, Merger, kernels
from evomerge.recipe import Blend, DareTies, Linear, Operator, Slerp, Source, TaskArithmetic, Ties

SHAPES = [(64, 48), (48, 64), (32, 32), (65,)]


class Tensors:
    """A merger over tensors that lie in memory, all under the name `t`."""

    def __init__(self, base: Tensor | None, experts: Sequence[Tensor], *, compiled: bool = False) -> None:
        self.merger = Merger(self.read, self.mask_key, torch.device("cpu"), compiled=compiled)
        self.flat = {f"e{i}": x.reshape(-1) for i, x in enumerate(experts)}
        if base is not None:
            self.flat["base"] = base.reshape(-1)
        self.shape = experts[0].shape

    def read(self, parent: str, layer: int | None, name: str) -> Tensor:
        return self.flat[parent]

    def mask_key(self, source: Source, name: str, seed: int) -> int:
        return hash((source.parent, seed)) % 2**31

    def merged(
        self,
        operator: Operator,
        weights: Sequence[float],
        densities: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
        seed: int = 5,
    ) -> Tensor:
        densities = densities or [1.0] * len(weights)
        pairs = zip(weights, densities, strict=True)
        sources = tuple(Source(parent=f"e{i}", weight=w, density=d) for i, (w, d) in enumerate(pairs))
        base = Source(parent="base") if operator.kind in ("task_arithmetic", "ties", "dare_ties") else None
        out = torch.empty(self.shape)
        blend = Blend(operator=operator, base=base, sources=sources)
        self.merger.write(Job(blend, "t", out.view(-1), dtype, seed))
        return out


def tensors(count: int, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator) * 0.02
    return base, [base + torch.randn(shape, generator=generator) * 5e-4 for _ in range(count)]


def close(ours: Tensor, theirs: Tensor, base: Tensor) -> None:
    """Relative Frobenius error of the merged delta, 1e-5 or less."""
    error = float((ours - theirs).double().norm())
    assert error <= 1e-5 * max(float((theirs - base).double().norm()), 1e-6 * float(base.double().norm()))


def theirs(method: str, base: Tensor, experts: Sequence[Tensor], **parameters: object) -> Tensor:
    merged: Tensor = merge_tensors([base, *experts], method, parameters=parameters, base_index=0, dtype=torch.float32)
    return merged


WEIGHTS = {2: [0.7, 1.1], 3: [0.5, 1.0, 0.3], 5: [0.2, 0.4, 0.9, 0.1, 0.6]}
DENSITIES = {2: [0.25, 0.5], 3: [0.2, 0.75, 1.0], 5: [0.1, 0.3, 0.5, 0.7, 0.9]}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear(shape: tuple[int, ...], count: int, normalize: bool) -> None:
    base, experts = tensors(count, shape)
    weights = WEIGHTS[count]
    expected = merge_tensors(
        experts, "linear", parameters={"weight": weights, "normalize": normalize}, dtype=torch.float32
    )
    ours = Tensors(None, experts).merged(Linear(normalize=normalize), weights)
    reference = base * (1.0 if normalize else sum(weights))
    close(ours, expected, reference)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [1e-6, 1e-3, 0.05])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp(shape: tuple[int, ...], spread: float, t: float) -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(shape, generator=generator) * 0.02
    second = first + torch.randn(shape, generator=generator) * spread
    expected = merge_tensors([first, second], "slerp", parameters={"t": t}, base_index=0, dtype=torch.float32)
    ours = Tensors(None, [first, second]).merged(Slerp(t=t), [1.0, 1.0])
    torch.testing.assert_close(ours, expected, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("negative", [False, True])
def test_task_arithmetic(count: int, normalize: bool, scale: float, negative: bool) -> None:
    weights = [-w if negative and i % 2 else w for i, w in enumerate(WEIGHTS[count])]
    for shape in SHAPES:
        base, experts = tensors(count, shape)
        parameters = {"weight": weights, "normalize": normalize, "lambda": scale}
        expected = theirs("task_arithmetic", base, experts, **parameters)
        ours = Tensors(base, experts).merged(TaskArithmetic(normalize=normalize, scale=scale), weights)
        close(ours, expected, base)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("negative", [False, True])
def test_ties(count: int, normalize: bool, scale: float, negative: bool) -> None:
    weights = [-w if negative and i % 2 else w for i, w in enumerate(WEIGHTS[count])]
    for shape in SHAPES:
        base, experts = tensors(count, shape)
        parameters = {"weight": weights, "density": DENSITIES[count], "normalize": normalize, "lambda": scale}
        expected = theirs("ties", base, experts, **parameters)
        ours = Tensors(base, experts).merged(Ties(normalize=normalize, scale=scale), weights, DENSITIES[count])
        close(ours, expected, base)


def test_ties_with_a_density_between_the_steps_of_the_table() -> None:
    base, experts = tensors(2, (64, 48))
    expected = theirs("ties", base, experts, weight=[1.0, 1.0], density=[0.3333, 0.0123])
    close(Tensors(base, experts).merged(Ties(), [1.0, 1.0], [0.3333, 0.0123]), expected, base)


def test_ties_when_masses_cancel() -> None:
    """Opposite values of one size: the mass is zero, and zero counts as positive."""
    base, (first, _) = tensors(2, (64, 48))
    delta = torch.round((first - base) * 2**20) / 2**20  # exact in every sum below
    base = torch.round(base * 2**20) / 2**20
    experts = [base + delta, base - delta]
    for normalize in (True, False):
        expected = theirs("ties", base, experts, weight=[1.0, 1.0], density=[1.0, 1.0], normalize=normalize)
        ours = Tensors(base, experts).merged(Ties(normalize=normalize), [1.0, 1.0], [1.0, 1.0])
        close(ours, expected, base)
        assert bool((expected - base >= 0).all())


def test_ties_when_magnitudes_tie_at_the_threshold() -> None:
    """mergekit keeps some of the elements that tie with the last one kept, we keep all; else they are equal."""
    base = torch.zeros(100)
    expert = torch.cat([torch.full((20,), 3.0), torch.full((30,), 2.0), torch.full((50,), 1.0)])
    for density, ties_kept in ((0.2, 20), (0.5, 50), (0.35, 50)):
        expected = theirs("ties", base, [expert], weight=[1.0], density=[density])
        ours = Tensors(base, [expert, expert]).merged(Ties(), [1.0, 1.0], [density, density])
        assert int((ours != 0).sum()) == ties_kept
        assert int((expected != 0).sum()) == round(density * 100)
        assert bool((ours[expected != 0] == expected[expected != 0]).all())


def test_tensors_without_any_change() -> None:
    """All-zero task vectors, one or all of them, and weights of zero."""
    base, (first, _) = tensors(2, (64, 48))
    for experts in ([base.clone(), base.clone()], [base.clone(), first]):
        for weights in ([1.0, 1.0], [0.0, 1.0], [0.0, 0.0]):
            for density in (0.3, 1.0):
                expected = theirs("ties", base, experts, weight=weights, density=[density, density])
                ours = Tensors(base, experts).merged(Ties(), weights, [density, density])
                torch.testing.assert_close(ours, expected, rtol=0, atol=2e-9)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rescale", ["l1", "none"])
def test_dare_ties_with_our_masks(count: int, normalize: bool, rescale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """mergekit's dare_ties with our masks for its random ones; `rescale: l1` is its rule, `none` turns it off."""
    base, experts = tensors(count, (64, 48))
    merger = Tensors(base, experts)
    keys = [merger.mask_key(Source(parent=f"e{i}"), "t", 5) for i in range(count)]
    places = torch.arange(base.numel(), dtype=torch.int32)
    drawn = [
        (kernels.hash24(places, torch.tensor(key, dtype=torch.int32)) < round(d * 2**24)).float().view(base.shape)
        for key, d in zip(keys, DENSITIES[count], strict=True)
        if d < 1
    ]
    queue = iter(drawn)
    monkeypatch.setattr(sparsify.torch, "bernoulli", lambda _: next(queue))
    weights = [w if i % 2 else -w for i, w in enumerate(WEIGHTS[count])]
    parameters = {"weight": weights, "density": DENSITIES[count], "normalize": normalize, "rescale": rescale == "l1"}
    expected = theirs("dare_ties", base, experts, **parameters)
    operator = DareTies.model_validate({"normalize": normalize, "rescale": rescale})
    close(merger.merged(operator, weights, DENSITIES[count]), expected, base)


def test_dare_rescales_by_density_as_its_paper_does() -> None:
    base, experts = tensors(2, (256, 256))
    ours = Tensors(base, experts).merged(DareTies(), [1.0, 0.0], [0.25, 0.25])
    delta, expert = ours - base, experts[0] - base
    kept = delta.abs() > 1e-9
    assert abs(float(kept.float().mean()) - 0.25) < 0.01
    torch.testing.assert_close(delta[kept], 4 * expert[kept], rtol=1e-3, atol=1e-8)


def test_hash_is_murmur3s_finaliser() -> None:
    """Against unsigned arithmetic in numpy."""
    places = np.arange(10_000, dtype=np.uint32)
    key = np.uint32(0x9ABCDEF1)
    with np.errstate(over="ignore"):
        h = (places * np.uint32(0x9E3779B9)) ^ key
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        h = (h ^ (h >> np.uint32(16))) & np.uint32(0xFFFFFF)
    ours = kernels.hash24(torch.arange(10_000, dtype=torch.int32), torch.tensor(np.int32(key.view(np.int32))))
    assert ours.tolist() == h.tolist()
    kept = [float((h < d * 2**24).mean()) for d in (0.05, 0.2, 0.5)]
    np.testing.assert_allclose(kept, [0.05, 0.2, 0.5], atol=0.015)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_compiled_kernels_give_the_same_bits_for_any_number_of_experts(dtype: torch.dtype) -> None:
    """Arities, dtypes and a tensor of one element: more forms of a kernel than torch keeps by its own choice."""
    operators = [Linear(), TaskArithmetic(), Ties(), DareTies(normalize=True)]
    for shape in ((30, 31), (1,)):
        for count, operator in [(3, operator) for operator in operators] + [(n, Linear()) for n in (1, 2, 4, 5, 6)]:
            base, experts = tensors(count, shape)
            base, experts = base.to(dtype), [x.to(dtype) for x in experts]
            densities = [0.5] * count if operator.kind in ("ties", "dare_ties") else None
            weights = [0.3 + 0.2 * i for i in range(count)]
            eager, compiled = (
                Tensors(base, experts, compiled=flag).merged(operator, weights, densities, dtype)
                for flag in (False, True)
            )
            assert torch.equal(eager, compiled), (operator.kind, count, shape)


def test_rescaling_by_norms_follows_the_seed() -> None:
    base, experts = tensors(2, (64, 48))
    one = Tensors(base, experts)
    operator = DareTies.model_validate({"rescale": "l1"})
    for seed in (1, 2):
        fresh = Tensors(base, experts).merged(operator, [1.0, 0.5], [0.3, 0.3], seed=seed)
        assert torch.equal(one.merged(operator, [1.0, 0.5], [0.3, 0.3], seed=seed), fresh)


def test_masks_depend_on_seed_expert_and_tensor_alone(tmp_path: Path) -> None:
    paths = make_family("llama", tmp_path)
    files = open_parents(str(paths["base"]), {"one": str(paths["one"]), "two": str(paths["two"])}, 0)
    renamed = open_parents(str(paths["base"]), {"zwei": str(paths["two"]), "eins": str(paths["one"])}, 0)
    keys = {}
    for label, opened in (("as is", files), ("renamed", renamed)):
        held = HeldParents(opened, MAPPED, torch.device("cpu"))
        names = {"as is": ("one", "two"), "renamed": ("eins", "zwei")}[label]
        keys[label] = [held.mask_key(Source(parent=n, layer=1), "model.layers.1.mlp.up_proj.weight", 3) for n in names]
    assert keys["as is"] == keys["renamed"]
    assert keys["as is"][0] != keys["as is"][1]
    held = HeldParents(files, MAPPED, torch.device("cpu"))
    here = Source(parent="one", layer=1)
    assert held.mask_key(here, "model.layers.1.mlp.up_proj.weight", 4) != keys["as is"][0]
    assert held.mask_key(here, "model.layers.1.mlp.gate_proj.weight", 3) != keys["as is"][0]
