"""How sources become one tensor: the merge operators, with their constants."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from evomerge.values import Tagged


class Linear(Tagged):
    """Weighted sum of the sources, divided by the sum of the weights if `normalize` (Wortsman et al. 2022)."""

    kind: Literal["linear"] = "linear"
    normalize: bool = True


class Slerp(Tagged):
    """Spherical interpolation between two sources, the first at t = 0 (Shoemake 1985)."""

    kind: Literal["slerp"] = "slerp"
    t: float = 0.5


class TaskArithmetic(Tagged):
    """Base plus weighted task vectors (Ilharco et al. 2022)."""

    kind: Literal["task_arithmetic"] = "task_arithmetic"
    normalize: bool = False
    scale: float = Field(1.0, alias="lambda")


class Ties(Tagged):
    """Trim by magnitude, elect a sign by weighted mass, merge what agrees (Yadav et al. 2023; mergekit's meaning)."""

    kind: Literal["ties"] = "ties"
    normalize: bool = True
    scale: float = Field(1.0, alias="lambda")
    scope: Literal["tensor"] = "tensor"


class DareTies(Tagged):
    """Drop at random and rescale (Yu et al. 2023), then elect signs as TIES does.

    `rescale` names the rule: `density` multiplies what is kept by 1/density as the paper does, `l1` matches
    the L1 norm of the task vector as mergekit does.
    """

    kind: Literal["dare_ties"] = "dare_ties"
    normalize: bool = False
    scale: float = Field(1.0, alias="lambda")
    rescale: Literal["density", "l1", "none"] = "density"


Operator: TypeAlias = Annotated[Linear | Slerp | TaskArithmetic | Ties | DareTies, Field(discriminator="kind")]
NEEDS_BASE = ("task_arithmetic", "ties", "dare_ties")
