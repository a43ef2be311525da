"""How sources become one tensor: the merge operators, with their constants.

How an operator behaves it says itself, in class variables without a default, and nobody has a list of those that do.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from evomerge.limits import Weight
from evomerge.values import Tagged

Sums: TypeAlias = Literal["always", "alone", "never"]
"""When a blend is a weighted sum of its parents: always, where there is one source that is kept whole, or never."""


class Weighted(Tagged):
    """What operators have in common whose sources have weights.

    As every operator does, each of them says whether it works on task vectors (`needs_base`), whether sources have a
    density (`takes_density`), whether its result depends on the recipe's seed (`random`) and when it is a weighted sum.
    """

    pair: ClassVar[bool] = False

    def shares(self, weights: Sequence[float]) -> tuple[float, ...]:
        """The part that each source has in the result (sources,): its weight."""
        return tuple(weights)


class Linear(Weighted):
    """Weighted sum of the sources, divided by the sum of the weights if `normalize` (Wortsman et al. 2022)."""

    kind: Literal["linear"] = "linear"
    needs_base: ClassVar[bool] = False
    takes_density: ClassVar[bool] = False
    random: ClassVar[bool] = False
    sums: ClassVar[Sums] = "always"
    scale: ClassVar[float] = 1.0
    normalize: bool = True


class Slerp(Tagged):
    """Spherical interpolation between two sources, the first at t = 0 (Shoemake 1985).

    A `pair`, and no weights: a constant of its own says where between its sources it stands.
    """

    kind: Literal["slerp"] = "slerp"
    needs_base: ClassVar[bool] = False
    takes_density: ClassVar[bool] = False
    pair: ClassVar[bool] = True
    random: ClassVar[bool] = False
    sums: ClassVar[Sums] = "never"
    scale: ClassVar[float] = 1.0
    normalize: ClassVar[bool] = False
    t: Weight = 0.5

    def shares(self, weights: Sequence[float]) -> tuple[float, ...]:  # noqa: ARG002  A pair's have no meaning.
        """The part that each of the two sources has in the result."""
        return (1 - self.t, self.t)


class TaskArithmetic(Weighted):
    """Base plus weighted task vectors (Ilharco et al. 2022)."""

    kind: Literal["task_arithmetic"] = "task_arithmetic"
    needs_base: ClassVar[bool] = True
    takes_density: ClassVar[bool] = False
    random: ClassVar[bool] = False
    sums: ClassVar[Sums] = "always"
    normalize: bool = False
    scale: Weight = Field(1.0, alias="lambda")


class Ties(Weighted):
    """Trim by magnitude, elect a sign by weighted mass, merge what agrees (Yadav et al. 2023; mergekit's meaning)."""

    kind: Literal["ties"] = "ties"
    needs_base: ClassVar[bool] = True
    takes_density: ClassVar[bool] = True
    random: ClassVar[bool] = False
    sums: ClassVar[Sums] = "alone"
    normalize: bool = True
    scale: Weight = Field(1.0, alias="lambda")
    scope: Literal["tensor"] = "tensor"


class DareTies(Weighted):
    """Drop at random and rescale (Yu et al. 2023), then elect signs as TIES does.

    `rescale` names the rule: `density` multiplies what is kept by 1/density as the paper does, `l1` matches
    the L1 norm of the task vector as mergekit does.
    """

    kind: Literal["dare_ties"] = "dare_ties"
    needs_base: ClassVar[bool] = True
    takes_density: ClassVar[bool] = True
    random: ClassVar[bool] = True
    sums: ClassVar[Sums] = "alone"
    normalize: bool = False
    scale: Weight = Field(1.0, alias="lambda")
    rescale: Literal["density", "l1", "none"] = "density"


Operator: TypeAlias = Annotated[Linear | Slerp | TaskArithmetic | Ties | DareTies, Field(discriminator="kind")]
