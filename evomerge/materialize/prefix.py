"""Forward passes that begin behind the hops whose result is known."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from evomerge.materialize.stack import Stack
from evomerge.materialize.states import Chain, Key, Partings, States, tensors_of

SHARE = 4
"""One candidate may take the memory for states over this."""
TOGETHER = 16
"""Candidates whose states should fit together: with fewer, parents are forgotten before their children come."""
TOKENS = 16
"""Of the pass that finds out about a class."""
ODD = (RuntimeError, LookupError, AttributeError, TypeError, ValueError)
"""What a model class may raise whose layers miss what an earlier one leaves for them."""


class PrefixReuse:
    """Runs a model on fixed inputs, from the deepest hop whose output on them is known.

    Hops that are passed over give what the last of them gave; all else is the model's own forward pass, so that its
    result is the same bit for bit. `run` and `reused` count hops, once for every batch.
    """

    def __init__(self, model: PreTrainedModel, stack: Stack, room: int) -> None:
        """`room` is how many bytes of states are kept at most; with none, every hop is run."""
        self.states = States(room)
        self.run = 0
        self.reused = 0
        self._model = model
        self._stack = stack
        self._partings = Partings()
        self._chain: Chain = ()
        self._wanted: frozenset[int] = frozenset()
        self._width = 0
        """Bytes of the last candidate's states behind one hop, on all its inputs; of the present one so far."""
        self._width_so_far = 0
        self._stored = 0

    def begin(self, chain: Chain) -> None:
        """The model is the path of `chain` now; with an empty one it is not known what it is."""
        self._chain = chain if self.states.room else ()
        self._width, self._width_so_far, self._stored = self._width_so_far or self._width, 0, 0
        self._partings.note(self._chain)
        most = max(1, self.states.room // TOGETHER // self._width) if self._width else len(chain)
        self._wanted = self._partings.worth_keeping(len(self._chain), most)

    def __call__(self, batch: Hashable, inputs: Mapping[str, Any]) -> Any:
        """What the model gives for `inputs`, which are the same whenever `batch` is."""
        tokens, config = inputs["input_ids"].numel(), self._model.config.get_text_config()
        self._width_so_far += tokens * config.hidden_size * self._model.dtype.itemsize
        known = self._deepest(batch)
        self.run += len(self._stack.hops) - known
        self.reused += known
        state = self._taken(batch, known)
        try:
            with passed_over(self._stack.hops[:known], state), self._keeping(batch, known):
                return self._model(**inputs)
        except torch.OutOfMemoryError:
            self.states.clear()
            raise

    def _deepest(self, batch: Hashable) -> int:
        """After how many hops there is a state."""
        depths = range(len(self._chain), 0, -1)
        return next((depth for depth in depths if Key(self._chain[depth - 1], batch) in self.states), 0)

    def _taken(self, batch: Hashable, known: int) -> Any:
        """The state behind so many hops, None behind none."""
        keys = [Key(digest, batch) for digest in self._chain[:known]]
        state = self.states.take(keys[-1]) if keys else None
        for key in reversed(keys):  # They are this candidate's too: its relatives will ask for one of them.
            if key in self.states:
                self.states.take(key)
        return state

    @contextmanager
    def _keeping(self, batch: Hashable, known: int) -> Iterator[None]:
        """Keep the states that are worth it, behind the hops that are run."""
        with ExitStack() as hooks:
            for depth in self._wanted:
                if depth > known:
                    hook = self._keeper(Key(self._chain[depth - 1], batch))
                    hooks.callback(self._stack.hops[depth - 1].register_forward_hook(hook).remove)
            yield

    def _keeper(self, key: Key) -> Any:
        def keep(_: nn.Module, __: object, output: Any) -> None:
            if self._stored < self.states.room // SHARE:
                self._stored += self.states.put(key, output)

        return keep

    @torch.inference_mode()
    def before_hops(self, outside: Sequence[str]) -> frozenset[str]:
        """Of the tensors outside the layers those that the layers' states depend on."""
        found: set[str] = set()
        with ExitStack() as hooks:
            for name in outside:
                owner = self._model.get_submodule(name.rpartition(".")[0])
                # Bound early: the name of this turn of the loop.
                hooks.callback(owner.register_forward_pre_hook(lambda *_, name=name: found.add(name)).remove)
            after: list[frozenset[str]] = []
            last = self._stack.hops[-1]
            hooks.callback(last.register_forward_hook(lambda *_: after.append(frozenset(found))).remove)
            self._probe()
        return after[0]

    @torch.inference_mode()
    def why_not(self) -> str:
        """Why passes of this model class cannot begin behind a hop, empty if they can; finds out by trying."""
        hops, origins = self._stack.hops, self._stack.origins
        try:
            return self._oddity()
        except ODD:
            return "layers hand on more than hidden states"
        finally:
            self._stack.show(hops, origins)

    def _oddity(self) -> str:
        hops, origins = self._stack.hops, self._stack.origins
        logits, states, copies = self._probe_all()
        if len(states) < len(hops) or not all(map(tensors_of, states)):
            return "layers give something else than hidden states"
        if not all(map(_same, states, copies)):
            return "layers write into each other's states"
        some = sorted({1, len(hops) // 2, len(hops) - 1} - {0})
        for depth in some:
            self._probe(begin=2)  # What layers leave for others anywhere but in a state is now another's.
            with passed_over(hops[:depth], states[depth - 1]):
                if not torch.equal(self._probe(), logits):
                    return "layers hand on more than hidden states"
        self._stack.show(hops[: some[0]], origins[: some[0]])
        _, shorter, _ = self._probe_all()
        return "" if all(map(_same, states, shorter)) else "layers know how many there are"

    def _probe_all(self) -> tuple[Tensor, list[Any], list[Any]]:
        """Logits, what each hop gave, and copies of it as it was then."""
        states: list[Any] = []
        copies: list[Any] = []

        def take(_: nn.Module, __: object, output: Any) -> None:
            states.append(output)
            copies.append(tuple(tensor.clone() for tensor in tensors_of(output)))

        with ExitStack() as hooks:
            for hop in self._stack.hops:
                hooks.callback(hop.register_forward_hook(take).remove)
            return self._probe(), states, copies

    def _probe(self, begin: int = 1) -> Tensor:
        vocabulary = self._model.config.get_text_config().vocab_size
        tokens = torch.arange(begin, begin + TOKENS, device=self._model.device)[None] % vocabulary
        logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
        return logits


@contextmanager
def passed_over(hops: Sequence[nn.Module], state: Any) -> Iterator[None]:
    """Let these modules give `state` and compute nothing.

    They stay in their places, since model classes ask a layer, or its place, for its kind.
    """
    for hop in hops:
        vars(hop)["forward"] = lambda *_, **__: state
    try:
        yield
    finally:
        for hop in hops:
            del vars(hop)["forward"]


def _same(state: Any, other: Any) -> bool:
    return all(torch.equal(one, two) for one, two in zip(tensors_of(state), tensors_of(other), strict=True))
