"""What models compute on: a device by its name, the cores, and the memory that is free there."""

import os
from pathlib import Path

import torch

from evomerge.errors import SpecError


def choose_device(name: str) -> torch.device:
    """The device a run file's `device` means.

    Raises:
        SpecError: torch knows no such device, or there is none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(f"device: {name!r} is not a device; write auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"device: {name!r} is not supported; write auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(f"device: {name!r} is not here; torch sees {torch.cuda.device_count()} GPUs")
    return device


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, macOS has not.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def take_share(device: torch.device, share: float) -> None:
    """Keep to so much of a GPU that others compute on as well."""
    if device.type == "cuda" and 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)


def free_on(device: torch.device) -> int:
    """Bytes that this process may still take on a device, in its share of it; none on a CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    return max(0, min(free, int(total * share) - torch.cuda.memory_reserved(device)))


def free_memory(device: torch.device, others: int = 0) -> tuple[int, int]:
    """Free bytes on the device, none on a CPU, and in the host, of which so many others take as much."""
    return free_on(device), free_host_memory() // (others + 1)


def free_host_memory() -> int:
    """Bytes that can be taken without swapping; where there is no `/proc`, half of all there is."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    facts = dict(line.split(":", 1) for line in table.read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024
