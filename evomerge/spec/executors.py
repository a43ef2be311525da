"""The executors of a run file: who evaluates candidates."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator

from evomerge.limits import Amount, Copies
from evomerge.values import Tagged

GiB: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]


class InlineSpec(Tagged):
    """In this process, one candidate at a time; `reuse` is how many GiB of hidden states are kept.

    They are those of layers that candidates share. As every executor does, it says whether candidates
    are evaluated `apart`, by other processes than this one.
    """

    kind: Literal["inline"] = "inline"
    apart: ClassVar[bool] = False
    reuse: GiB | None = None


class RaySpec(Tagged):
    """By workers on Ray, each of which holds a live model.

    There are `workers`, or as many as the cluster has room for at any time. Each takes `cpus` cores and `gpus`
    accelerators, perhaps a fraction of one; left out: one, if the cluster has any. `address` is a cluster's; left out:
    RAY_ADDRESS, or else, as with `local`, Ray is started on this machine. A work that takes longer than `deadline`
    seconds, and ten times as long as others took, counts as hung; a candidate that `deaths` workers died of is given
    up. `reuse` is as in `InlineSpec`, for each worker.
    """

    kind: Literal["ray"] = "ray"
    apart: ClassVar[bool] = True
    workers: Copies | None = None
    gpus: Annotated[float, Field(ge=0, le=1)] | None = None
    cpus: Copies = 1
    address: str | None = None
    deadline: Amount = 60.0
    deaths: Copies = 3
    reuse: GiB | None = None

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"is {address!r}, a Ray client's; give auto or HOST:PORT on a machine of the cluster, or hand the"
                " search to it: ray job submit"
            )
        return address


ExecutorKind: TypeAlias = Literal["inline", "ray"]
ExecutorSpec: TypeAlias = Annotated[InlineSpec | RaySpec, Field(discriminator="kind")]
