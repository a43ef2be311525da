"""Layers that candidates share are run once, and nothing but the time shows it."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS
from families import FAMILIES, make_family
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.materialize import LiveModel, Merger
from evomerge.materialize.states import Partings, chain_of
from evomerge.recipe import Blend, Layer, Linear, Recipe, Source
from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.rows import Request

CPU = torch.device("cpu")
ROOM = 1 << 26
STATE = 2 * 16 * 32 * 4
"""Bytes of what a layer of a tiny model gives for `BATCHES[0]`."""
BATCHES: dict[str, dict[str, Any]] = {
    "plain": {"input_ids": torch.arange(3, 35).view(2, 16), "use_cache": False},
    "another": {"input_ids": torch.arange(103, 127).view(1, 24), "use_cache": False},
}


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    return open_parents(str(DEMO_MODELS / "base"), experts, 0)


@pytest.fixture
def tiny(tmp_path: Path) -> ParentFiles:
    return opened("llama", tmp_path)


def opened(family: str, folder: Path) -> ParentFiles:
    paths = make_family(family, folder)
    return open_parents(str(paths["base"]), {"one": str(paths["one"]), "two": str(paths["two"])}, 0)


def hop(parent: str, layer: int, scale: float = 1.0) -> Layer:
    return Layer(blend=Blend(sources=(Source(parent=parent, layer=layer),)), scale=scale)


def mix(files: ParentFiles, layer: int, weight: float) -> Layer:
    shares = zip(files.parents.experts, (weight, 1 - weight), strict=True)
    sources = tuple(Source(parent=name, layer=layer, weight=share) for name, share in shares)
    return Layer(blend=Blend(operator=Linear(normalize=False), sources=sources))


def recipe(files: ParentFiles, layers: Sequence[Layer], norm: str = "base") -> Recipe:
    outer = {
        group: Blend(sources=(Source(parent=norm if group == "norm" else "base"),)) for group in files.parents.outer
    }
    return files.parents.recipe(tuple(layers), outer)


def mutants(files: ParentFiles, count: int, *, scales: bool = True) -> list[Recipe]:
    """Paths with repeats, gains and blends, each a local change of one before it."""
    rng = random.Random(5)
    one, two = files.parents.experts
    depth = files.parents.layers

    def some() -> Layer:
        layer = rng.randrange(depth)
        blend = Blend(sources=(Source(parent=one, layer=layer), Source(parent=two, layer=rng.randrange(depth))))
        return rng.choice(
            [hop(one, layer), hop(two, layer, rng.uniform(0.5, 2) if scales else 1.0), Layer(blend=blend)]
        )

    found = [[hop(one, i) for i in range(depth)]]
    for _ in range(count - 1):
        layers, place = list(rng.choice(found)), rng.randrange(depth)
        change = rng.randrange(4)
        if change == 0:
            layers.insert(place, some())
        elif change == 1 and len(layers) > 2:
            layers.pop()
        elif change == 2:
            layers += layers[-2:]
        else:
            layers[min(place, len(layers) - 1)] = some()
        found.append(layers[: depth + 3])
    return [recipe(files, layers, norm=rng.choice(["base", one])) for layers in found]


def same(live: LiveModel, name: str) -> bool:
    """Whether the next pass gives what a plain one gives, to the last bit."""
    with torch.inference_mode():
        return torch.equal(live.forward(name, BATCHES[name]).logits, live.model(**BATCHES[name]).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("room", [ROOM, 3 * STATE])
def test_what_is_gone_on_from_gives_what_a_whole_pass_gives(family: str, room: int, tmp_path: Path) -> None:
    """Also with memory for so little that something is let go of all the time."""
    files = opened(family, tmp_path)
    live = LiveModel(files, CPU, reuse=room)
    assert not live.notes
    for candidate in mutants(files, 40, scales=family != "olmo2"):  # Which cannot have any.
        live.load(candidate)
        assert all(same(live, name) for name in BATCHES)
        assert live.prefix.states.bytes <= room
    assert live.prefix.reused > (live.prefix.run / 4 if room == ROOM else 0)


def test_log_likelihoods_of_branching_prompts_are_the_same_numbers(files: ParentFiles) -> None:
    """Where only late layers change, as in a search that has genes for these alone."""
    live = LiveModel(files, CPU, reuse=ROOM)
    rng = random.Random(2)
    contexts = [tuple(rng.randrange(3, 500) for _ in range(rng.randint(12, 20))) for _ in range(8)]
    asked = [Request(context, tuple(rng.randrange(3, 500) for _ in range(5))) for context in contexts for _ in range(4)]
    plan = LikelihoodPlan([*asked, *(Request((7 + i,), (9, 8)) for i in range(9))], live.model, 128, 256, share=True)
    assert plan.together
    early = [mix(files, layer, 0.5) for layer in range(4)]
    for turn in range(12):
        live.load(recipe(files, [*early, mix(files, 4, rng.random()), mix(files, 5, rng.random())]))
        before = live.prefix.reused
        assert plan.run(live.model, live.forward) == plan.run(live.model)
        assert live.prefix.reused - before == (4 * len(plan._batches) if turn > 1 else 0)


def test_hops_are_counted_once_for_every_batch(tiny: ParentFiles) -> None:
    """The first candidate is not known to share anything; what the second shares with it, the third is spared."""
    live = LiveModel(tiny, CPU, reuse=ROOM)
    paths = [
        [hop("one", 0), hop("one", 1), hop("one", 2)],
        [hop("one", 0), hop("one", 1), hop("two", 2)],
        [hop("one", 0), hop("one", 1), hop("one", 1), hop("two", 2)],
        [hop("one", 0), hop("one", 1, scale=2), hop("two", 2)],
        [hop("two", 0), hop("one", 1), hop("two", 2)],
    ]
    counted = []
    for path in paths:
        live.load(recipe(tiny, path))
        run, reused = live.prefix.run, live.prefix.reused
        assert same(live, "plain")
        assert same(live, "another")
        counted.append((live.prefix.run - run, live.prefix.reused - reused))
    assert counted == [(6, 0), (6, 0), (4, 4), (4, 2), (6, 0)]


def test_another_norm_behind_the_layers_spares_them_all_and_other_embeddings_none(tiny: ParentFiles) -> None:
    live = LiveModel(tiny, CPU, reuse=ROOM)
    path = [hop("one", 0), hop("two", 1), hop("one", 2)]
    for last, norm in ((0, "base"), (2, "base"), (2, "one")):
        live.load(recipe(tiny, [*path[:2], hop("one", last)], norm))
        before = live.prefix.reused
        assert same(live, "plain")
    assert live.prefix.reused - before == 3
    other = recipe(tiny, path)
    live.load(other.model_copy(update={"outer": dict.fromkeys(other.outer, Blend(sources=(Source(parent="one"),)))}))
    before = live.prefix.reused
    assert same(live, "plain")
    assert live.prefix.reused == before


def test_nothing_is_kept_where_no_layer_is_shared(files: ParentFiles) -> None:
    live = LiveModel(files, CPU, reuse=ROOM)
    rng = random.Random(0)
    for _ in range(10):
        live.load(recipe(files, [mix(files, layer, rng.random()) for layer in range(6)]))
        assert same(live, "plain")
    assert len(live.prefix.states) == 0
    assert live.prefix.reused == 0


def test_one_candidate_takes_no_more_than_its_part_of_the_memory(tiny: ParentFiles) -> None:
    live = LiveModel(tiny, CPU, reuse=64 * STATE)
    for turn in range(5):
        path = [hop("one", i % 3) for i in range(20 + turn)]
        live.load(recipe(tiny, path))
        before = live.prefix.states.bytes
        assert same(live, "plain")
        assert live.prefix.states.bytes - before <= 4 * STATE
    assert live.prefix.states.bytes > 4 * STATE


def test_no_memory_means_no_states(tiny: ParentFiles) -> None:
    live = LiveModel(tiny, CPU, reuse=0)
    for candidate in mutants(tiny, 6):
        live.load(candidate)
        assert same(live, "plain")
    assert (len(live.prefix.states), live.prefix.reused) == (0, 0)
    assert live.prefix.run > 0


def test_states_on_items_of_an_older_draw_go_first(tiny: ParentFiles) -> None:
    live = LiveModel(tiny, CPU, reuse=8 * STATE)
    inputs = BATCHES["plain"]
    for draw in range(6):
        for turn in range(3):
            live.load(recipe(tiny, [hop("one", 0), hop("one", 1), mix(tiny, 2, 0.1 + draw / 50 + turn / 7)]))
            before = live.prefix.reused
            live.forward(draw, inputs)
            assert live.prefix.reused - before == (2 if turn > (draw == 0) else 0)


def test_trouble_in_between_leaves_nothing_that_is_stale(tiny: ParentFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel(tiny, CPU, reuse=ROOM)
    first = [hop("one", 0), hop("one", 1), mix(tiny, 2, 0.3)]
    for weight in (0.3, 0.4):
        live.load(recipe(tiny, [*first[:2], mix(tiny, 2, weight)]))
        assert same(live, "plain")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="half-way"):
        patch.setattr(Merger, "write", failing(3))
        live.load(recipe(tiny, [mix(tiny, 0, 0.5), mix(tiny, 1, 0.5), mix(tiny, 2, 0.5)]))
    before = live.prefix.reused
    assert same(live, "plain")
    assert live.prefix.reused == before, "of a model half made nothing is known"
    live.load(recipe(tiny, first))
    assert same(live, "plain")
    assert live.prefix.reused == before + 2

    live.load(recipe(tiny, [*first[:2], mix(tiny, 2, 0.5)]))

    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(LlamaDecoderLayer, "forward", no_room)
        live.forward("plain", BATCHES["plain"])
    assert live.prefix.states.bytes == 0, "memory that is needed is given back"
    assert same(live, "plain")


def failing(left: int) -> Callable[..., None]:
    plain = Merger.write

    def write(self: Merger, *arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("half-way")
        plain(self, *arguments)

    return write


@pytest.mark.parametrize("oddity", ["hands on", "writes"])
def test_a_class_that_cannot_be_gone_on_with_is_found_out(
    oddity: str, tiny: ParentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LlamaDecoderLayer.forward
    left: dict[str, torch.Tensor] = {}

    def odd(self: LlamaDecoderLayer, hidden_states: torch.Tensor, **given: Any) -> torch.Tensor:
        if oddity == "writes":
            hidden_states *= 1.25
            return plain(self, hidden_states, **given)
        place = self.self_attn.layer_idx
        found = plain(self, hidden_states + left["first"] if place == 2 else hidden_states, **given)
        if place == 0:
            left["first"] = found * 0.1 * (1 + len(left))
        return found

    monkeypatch.setattr(LlamaDecoderLayer, "forward", odd)
    live = LiveModel(tiny, CPU, reuse=ROOM)
    assert any("are run for each: LlamaForCausalLM" in note for note in live.notes), live.notes
    for candidate in mutants(tiny, 4):
        live.load(candidate)
        live.forward("plain", BATCHES["plain"])
    assert live.prefix.reused == 0


def test_depths_worth_keeping_are_where_recipes_part() -> None:
    partings = Partings()
    hops = [[str(i) for i in range(20)]]
    for turn in range(40):
        hops.append([*hops[0][: 5 if turn % 3 else 15], f"other {turn}", *hops[0][:4]])
    for path in hops:
        partings.note(chain_of("root", path))
    assert partings.worth_keeping(20, 20) == set(range(1, 21)), "there is memory for all"
    assert partings.worth_keeping(20, 2) == {5, 15}
    assert partings.worth_keeping(12, 1) == {5}
    for turn in range(20):
        partings.note(chain_of(f"root {turn}", hops[0]))
    assert not partings.worth_keeping(20, 20), "nothing was shared lately"
