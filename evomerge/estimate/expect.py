"""What was expected of every candidate before its items were drawn: response models, refitted draw by draw."""

from functools import cached_property

import numpy as np

from evomerge.estimate.calibration import Calibration
from evomerge.estimate.designs import uncertainty
from evomerge.estimate.evidence import Floats
from evomerge.estimate.history import History
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.ledger import Ledger, Piece
from evomerge.estimate.models import SIBLING_WEIGHT, Stack, stacked
from evomerge.values import Genome

LATEST = 4000
"""Answers by which the mixture of response models is judged."""


class Expectation:
    """Response models of one metric of one task. Those of a draw know earlier draws and the parents, nothing else.

    Where draws do not differ (`rotates` is off), what came of earlier ones came of the very same items: they know the
    parents alone.
    """

    def __init__(
        self, ledger: Ledger, key: str, metric: str, *, calibration: Calibration | None = None, rotates: bool = True
    ) -> None:
        self.ledger = ledger
        self.key = key
        self.metric = metric
        self.calibration = calibration
        self._rotates = rotates
        self._stacks: dict[int, Stack] = {}
        self._foretold: dict[int, tuple[Floats, Floats]] = {}
        self._latest: tuple[int, History] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The task's search items."""
        return self.ledger.table.tasks[self.key].search.ids

    @cached_property
    def items(self) -> ItemParameters | None:
        """Calibrated parameters of the task's search items.

        Raises:
            SpecError: the calibration does not know them.
        """
        if self.calibration is None:
            return None
        return self.calibration.parameters_for(self.ids)

    def stack(self, generation: int) -> Stack:
        """The models before a draw."""
        generation = generation if self._rotates else 0
        for draw in range(generation + 1):  # From the first on: each needs what its forerunners foretold.
            if draw not in self._stacks:
                history = self._history(draw)
                self._stacks[draw] = stacked(history, self._guesses(draw), self.items)
        return self._stacks[generation]

    def predict(self, genome: Genome, generation: int) -> Floats:
        """The mark expected of a genome on every item (items,)."""
        return self.stack(generation).predict(genome)

    def siblings(self, generation: int) -> Floats:
        """What candidates of earlier draws got on every item, shrunk to the parents' pattern (items,)."""
        return self.stack(generation).models[1].predict(())

    def sizes(self, generation: int, weights: Floats) -> Floats:
        """How much there is to learn from every item before a draw (items,): its weight times its mark's deviation."""
        history = self._history(generation if self._rotates else 0)
        middle = self.siblings(generation)
        if history.unit:
            return uncertainty(weights, middle)
        every = max(float(np.var(history.marks)) if len(history.marks) else float(np.var(middle)), 1e-12)
        gaps = history.by_item(history.recency * (history.marks - middle[history.places]) ** 2)
        return np.asarray(
            weights * np.sqrt((gaps + SIBLING_WEIGHT * every) / (history.by_item(history.recency) + SIBLING_WEIGHT))
        )

    def _history(self, generation: int) -> History:
        if self._latest is None or self._latest[0] != generation:
            self._latest = generation, self.ledger.history(self.key, self.metric, generation)
        return self._latest[1]

    def _guesses(self, generation: int) -> tuple[Floats, Floats]:
        """What earlier draws' models expected (models, answers) and what came (answers,), the latest."""
        found = [self._of_draw(draw) for draw in range(generation)]
        kept, count = [], 0
        for guessed, came in reversed(found):
            kept.append((guessed, came))
            count += len(came)
            if count >= LATEST:
                break
        columns = [pair for pair in kept if len(pair[1])]
        if not columns:
            return np.empty((0, 0)), np.empty(0)
        return np.concatenate([one for one, _ in columns], axis=1), np.concatenate([came for _, came in columns])

    def _of_draw(self, draw: int) -> tuple[Floats, Floats]:
        """The same of one earlier draw. It is complete by the time that anything asks for a later one."""
        if draw not in self._foretold:
            pieces = [p for p in self.ledger.before(draw + 1) if p.draw.generation == draw]
            pairs = [self._foretell(piece) for piece in pieces if self.key in (piece.draw.places or {})]
            empty = (np.empty((len(self._stacks[draw].models), 0)), np.empty(0))
            self._foretold[draw] = (
                (np.concatenate([a for a, _ in pairs], axis=1), np.concatenate([b for _, b in pairs]))
                if pairs
                else empty
            )
        return self._foretold[draw]

    def _foretell(self, piece: Piece) -> tuple[Floats, Floats]:
        assert piece.draw.places is not None
        assert piece.marks is not None
        places = list(piece.draw.places[self.key])
        guessed = self._stacks[piece.draw.generation or 0].each(piece.genome)[:, places]
        return guessed, np.asarray(piece.marks[self.key][self.metric])
