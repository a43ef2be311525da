"""Which hidden states are worth keeping, and the memory they are kept in."""

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

Chain: TypeAlias = tuple[bytes, ...]
"""For every hop of a path, what it and all before it are: equal where the model up to there is the same."""

REMEMBERED = 256
"""Recipes that later ones are compared with."""
LATELY = 16
"""Where none of so many recipes shared a hop with one before it, nothing is kept."""


def chain_of(root: str, hops: Iterable[str]) -> Chain:
    """The chain of a path: `root` says what comes before the hops, and each hop what it is."""
    found = []
    digest = root.encode()
    for hop in hops:
        digest = hashlib.blake2b(digest + b"\n" + hop.encode(), digest_size=16).digest()
        found.append(digest)
    return tuple(found)


class Partings:
    """How deep recipes of late went along with one before them: there the next ones will go on from."""

    def __init__(self) -> None:
        self._chains: OrderedDict[Chain, None] = OrderedDict()
        self._seen: Counter[bytes] = Counter()
        self._depths: deque[int] = deque(maxlen=REMEMBERED)

    def note(self, chain: Chain) -> None:
        """Take a recipe in; one that is known says nothing new."""
        if not chain or chain in self._chains:
            return
        if self._chains:
            shared = next((depth for depth, digest in enumerate(chain) if digest not in self._seen), len(chain))
            self._depths.append(shared)
        self._chains[chain] = None
        self._seen.update(chain)
        if len(self._chains) > REMEMBERED:
            oldest, _ = self._chains.popitem(last=False)
            self._seen -= Counter(oldest)

    def worth_keeping(self, depth: int, most: int) -> frozenset[int]:
        """Numbers of hops, up to `depth`, after which states are worth keeping, `most` of them; none if none."""
        if not any(list(self._depths)[-LATELY:]):
            return frozenset()
        every = range(1, depth + 1)
        if most >= depth:
            return frozenset(every)
        # Where some parted others will; but any depth may be the next one.
        return spread(Counter(every) + Counter(parted for parted in self._depths if 0 < parted <= depth), most)


def spread(counts: Mapping[int, int], most: int) -> frozenset[int]:
    """Depths that together save most hops to recipes that part where `counts` says, taken one by one."""
    reached = dict.fromkeys(counts, 0)
    chosen: set[int] = set()
    for _ in range(most):
        gains = {
            depth: sum(count * max(0, depth - reached[parted]) for parted, count in counts.items() if parted >= depth)
            for depth in counts.keys() - chosen
        }
        best = max(sorted(gains), key=gains.__getitem__)
        chosen.add(best)
        reached = {parted: max(deep, best) if parted >= best else deep for parted, deep in reached.items()}
    return frozenset(chosen)


class Key(NamedTuple):
    """What a state is: the path up to it, the inputs."""

    path: bytes
    batch: Hashable


class States:
    """What hops gave, the latest used, as far as `room` bytes go.

    States on items that are drawn no more were used before all others, so they are the first to go.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.bytes = 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        """Whether a state is there."""
        return key in self._kept

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    def take(self, key: Key) -> Any:
        """A state that is there."""
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Key, state: Any) -> int:
        """Keep a state that is not there; returns its bytes."""
        size = bytes_of(state)
        while self._kept and self.bytes + size > self.room:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed
        if size <= self.room:
            self._kept[key] = (state, size)
            self.bytes += size
        return size

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.bytes = 0


def tensors_of(state: Any) -> list[Tensor]:
    """The tensors in what a layer gave."""
    parts = state if isinstance(state, tuple) else (state,)
    return [part for part in parts if isinstance(part, Tensor)]


def bytes_of(state: Any) -> int:
    """Memory that a state holds on to."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors_of(state))
