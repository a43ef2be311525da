"""Where the parents lie while candidates are made from them."""

from typing import Literal

from evomerge.values import Value

Where = Literal["mapped", "device", "streamed"]


class Placement(Value):
    """Parents mapped from disk, held on the device, or streamed to it layer by layer from host memory."""

    where: Where
    pinned: bool = False
    reason: str


ROOM = 0.15
"""Share of the device's memory that activations and the allocator need."""


def place_parents(models: int, model_bytes: int, live_bytes: int, device: str, memory: tuple[int, int]) -> Placement:
    """Choose by size. `memory` is free bytes (on the device, in the host); on a CPU the page cache does it all."""
    if device == "cpu":
        return Placement(where="mapped", reason="the page cache holds what is used")
    on_device, on_host = memory
    needed = models * model_bytes + live_bytes
    if needed <= on_device * (1 - ROOM):
        return Placement(where="device", reason=f"{_gb(needed)} of {_gb(on_device)} free on the device")
    fits = models * model_bytes <= on_host * (1 - ROOM)
    home = "pinned in host memory" if fits else "mapped from disk"
    return Placement(
        where="streamed",
        pinned=fits,
        reason=f"all models need {_gb(needed)}, {_gb(on_device)} are free on the device; parents are {home}",
    )


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
