"""Merge kernels compiled by torch's inductor, where it has a compiler that works."""

import functools
import subprocess
from typing import Any

import torch
from torch import Tensor

from evomerge.materialize import kernels

WORTH_COMPILING = 20_000_000
"""Weights from which on compiling (half a minute) pays within a few candidates."""
VARIANTS = 1024
"""Compiled forms of one kernel that may be kept: one for each arity, mixture of dtypes and kind of tensor."""
LIKE_EAGER = {
    # Keeps the rounding to the recipe's dtype on a CPU, and turns off fused multiply-adds on a GPU.
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
}
"""Settings under which compiled kernels compute what eager ones do; older torch lacks some."""


SLOWER = "merging is several times slower than it could be"


def why_not(device: torch.device) -> str:
    """Why kernels cannot be compiled here, empty if they can; finds out by compiling one.

    Two seconds, most of it imports that compiled kernels need anyway; eight the first time on a machine.
    """
    x = torch.linspace(0.1, 1.0, 64, dtype=torch.bfloat16, device=device)
    tables = (torch.tensor([0.3, 0.6], device=device),)
    plain, compiled = torch.empty(2, 64, device=device)
    kernels.linear(plain, torch.bfloat16, [x, x * x], tables, False)
    try:
        run_compiled(kernels.linear, compiled, torch.bfloat16, [x, x * x], tables, False)
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        reason = str(error).strip().split("\n")[0]
        return f"{SLOWER}: torch cannot compile here ({reason})"
    if device.type == "cpu" and not torch.equal(plain, compiled):
        return f"{SLOWER}: compiled by this version of torch, it would round otherwise than the exported folder"
    return ""


def run_compiled(
    kernel: kernels.Kernel,
    out: Tensor,
    dtype: torch.dtype,
    xs: list[Tensor],
    tables: kernels.Tables,
    normalize: bool,
) -> None:
    """Call a kernel in its compiled form, compiled first if it is new."""
    # With torch's own limit of eight forms, a ninth would fail the candidate.
    with torch._dynamo.config.patch(recompile_limit=VARIANTS, accumulated_recompile_limit=VARIANTS):
        _compiled(kernel)(out, dtype, xs, tables, normalize)


@functools.cache
def _compiled(kernel: kernels.Kernel) -> kernels.Kernel:
    options = _known(LIKE_EAGER)
    return torch.compile(kernel, dynamic=True, fullgraph=True, options=options)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    from torch._inductor import config

    known = config.get_config_copy()
    return {name: value for name, value in options.items() if name in known}
