"""What every operator keeps to: one suite, run on all that a recipe can name."""

from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import DEMO_MODELS, ROOT
from torch import Tensor
from unions import kinds_of

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.errors import SpecError
from evomerge.export import from_mergekit, read_mergekit, to_mergekit
from evomerge.materialize import Job, Merger
from evomerge.recipe import Blend, DareTies, Layer, Linear, Operator, Recipe, Slerp, Source, TaskArithmetic, Ties
from evomerge.space import BlendSpec, bind, fixed_recipes

KINDS = kinds_of(Operator)
CASES: dict[str, Operator] = {
    "linear": Linear(),
    "slerp": Slerp(t=0.3),
    "task_arithmetic": TaskArithmetic(scale=0.9),
    "ties": Ties(scale=1.2),
    "dare_ties": DareTies(rescale="l1"),
}
"""An operator of each kind. A kind without one fails."""
WEIGHTS, DENSITIES = (0.7, 0.5), (0.5, 0.8)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(96, generator=generator)
    return {"base": base} | {name: base + torch.randn(96, generator=generator) for name in ("maths", "lists")}


def blend(
    operator: Operator,
    weights: Sequence[float] = WEIGHTS,
    densities: Sequence[float] = (1.0, 1.0),
    layer: int | None = None,
) -> Blend:
    """Of both models, with what the operator reads of weights and densities."""
    names = ("maths", "lists")
    weights = (1.0, 1.0) if operator.pair else weights
    densities = densities if operator.takes_density else (1.0, 1.0)
    sources = tuple(
        Source(parent=name, weight=weight, density=density, layer=layer)
        for name, weight, density in zip(names, weights, densities, strict=True)
    )
    return Blend(
        operator=operator, base=Source(parent="base", layer=layer) if operator.needs_base else None, sources=sources
    )


def merged(blend: Blend, of: dict[str, Tensor], seed: int = 5) -> Tensor:
    merger = Merger(
        lambda parent, _, __: of[parent], lambda source, _, seed: len(source.parent) + seed, torch.device("cpu")
    )
    out = torch.empty(96)
    merger.write(Job(blend, "t", out, torch.float32, seed))
    return out


def elected(deltas: Sequence[Tensor], operator: Ties | DareTies) -> Tensor:
    parts = torch.stack([weight * delta for weight, delta in zip(WEIGHTS, deltas, strict=True)])
    sign = torch.where(parts.sum(0) >= 0, 1.0, -1.0)
    agree = parts * sign > 0
    divisor = (agree * torch.tensor(WEIGHTS)[:, None]).sum(0) if operator.normalize else torch.ones(96)
    return operator.scale * (parts * agree).sum(0) / torch.where(divisor == 0, 1.0, divisor)


def trimmed(delta: Tensor, density: float) -> Tensor:
    kept = delta.abs().topk(int(density * len(delta))).indices
    return torch.zeros_like(delta).index_copy(0, kept, delta[kept])


def closed_form(operator: Operator, base: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Sequence[float]]:
    """What the paper says, and with which densities."""
    first, second = WEIGHTS
    match operator:
        case Linear():
            return (first * one + second * two) / (first + second), (1.0, 1.0)
        case Slerp(t=t):
            angle = torch.acos(one @ two / one.norm() / two.norm())
            return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle), (1.0, 1.0)
        case TaskArithmetic(scale=scale):
            return base + scale * (first * (one - base) + second * (two - base)), (1.0, 1.0)
        case Ties():
            deltas = [trimmed(x - base, density) for x, density in zip((one, two), DENSITIES, strict=True)]
            return base + elected(deltas, operator), DENSITIES
        case DareTies():
            return base + elected([one - base, two - base], operator), (1.0, 1.0)


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    return open_parents(str(DEMO_MODELS / "base"), {name: str(DEMO_MODELS / name) for name in ("maths", "lists")}, 0)


def recipe(files: ParentFiles, made: Callable[[int | None], Blend], seed: int = 0) -> Recipe:
    layers = tuple(Layer(blend=made(layer)) for layer in range(files.parents.layers))
    whole = files.parents.recipe(layers, {group: made(None) for group in files.parents.outer})
    return whole.model_copy(update={"seed": seed})


def same_model(one: Recipe, other: Recipe) -> None:
    """Of a layer and an outer group, over tensors that are told apart by their model alone."""
    for mine, theirs in zip(
        one.blends()[:: len(one.blends()) - 1], other.blends()[:: len(other.blends()) - 1], strict=True
    ):
        torch.testing.assert_close(merged(mine, tensors()), merged(theirs, tensors()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_is_what_its_closed_form_says(kind: str) -> None:
    of = tensors()
    expected, densities = closed_form(CASES[kind], *of.values())
    torch.testing.assert_close(merged(blend(CASES[kind], WEIGHTS, densities), of), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_of_one_model_with_itself_is_that_model(kind: str) -> None:
    one = tensors()["maths"]
    found = merged(blend(CASES[kind], densities=DENSITIES), dict.fromkeys(("base", "maths", "lists"), one))
    torch.testing.assert_close(found, one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1])
def test_all_of_one_parent_and_nothing_of_the_other_is_that_parent_to_the_bit(kind: str, place: int) -> None:
    of, weights = tensors(), (float(place == 0), float(place == 1))
    changes = {"t": float(place)} if CASES[kind].pair else {"scale": 1.0} if CASES[kind].needs_base else {}
    operator = CASES[kind].model_copy(update=changes)
    assert torch.equal(merged(blend(operator, weights), of), of[("maths", "lists")[place]])


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_recipe_only_where_chance_has_a_part(kind: str, files: ParentFiles) -> None:
    of = tensors()
    made = [merged(blend(CASES[kind], densities=DENSITIES), of, seed) for seed in (1, 2)]
    digests = {recipe(files, lambda layer: blend(CASES[kind], layer=layer), seed).digest() for seed in (1, 2)}
    assert torch.equal(*made) == (not CASES[kind].random)
    assert len(digests) == 1 + CASES[kind].random


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_changes_a_merge_or_is_refused(kind: str) -> None:
    of, whole = tensors(), blend(CASES[kind])
    sparse = tuple(source.model_copy(update={"density": 0.5}) for source in whole.sources)
    if CASES[kind].takes_density:
        assert not torch.equal(merged(whole, of), merged(whole.model_copy(update={"sources": sparse}), of))
    else:
        with pytest.raises(ValueError, match=f"{kind} reads no density"):
            Blend(operator=whole.operator, base=whole.base, sources=sparse)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blend_has_a_base_if_and_only_if_it_works_on_task_vectors(kind: str) -> None:
    plain = blend(CASES[kind]).to_plain()
    wrong = {key: value for key, value in plain.items() if key != "base"} | (
        {} if CASES[kind].needs_base else {"base": {"parent": "base"}}
    )
    with pytest.raises(ValueError, match=f"{kind} .* base"):
        Blend.model_validate(wrong, strict=False)


@pytest.mark.parametrize("kind", KINDS)
def test_mergekit_gets_it_in_its_own_words_or_is_refused(kind: str, files: ParentFiles) -> None:
    whole = recipe(files, lambda layer: blend(CASES[kind], layer=layer))
    try:
        plain = to_mergekit(whole, files)
    except SpecError as refused:
        assert kind in str(refused)
        return
    assert plain["merge_method"] == kind
    if not CASES[kind].pair:  # Of which mergekit calls the first the base.
        same_model(from_mergekit(read_mergekit(plain, "it"), ROOT, files), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_space_takes_in_it_gives_back(kind: str, files: ParentFiles) -> None:
    """A recipe by another operator is in the space only if one of its genomes makes the same model."""
    spec = BlendSpec(
        operator=CASES[kind].model_copy(update={"t": 0.5} if CASES[kind].pair else {}),
        weight=(0.0, 3.0) if not CASES[kind].pair else None,
    )
    space = bind(spec, files.parents)
    taken = 0
    for each in fixed_recipes(files.parents).values():
        try:
            again = space.decode(space.encode(each))
        except SpecError:
            continue
        taken += 1
        same_model(again, each)
    assert taken


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_files_page_names_it(kind: str) -> None:
    assert f"| `{kind}` |" in (ROOT / "docs/run-file.md").read_text()
