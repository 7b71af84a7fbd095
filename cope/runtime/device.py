"""The device of a run, its native precision, and the processes that share a training run."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import torch
from torch import distributed

from cope.errors import UserError

# One process evaluates and writes checkpoints while the others wait for it: longer than the longest evaluation.
PATIENCE = timedelta(hours=2)
DEVICES = ("cpu", "cuda")


def choose(name: str) -> torch.device:
    """The device of a name: `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        UserError: It is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"COPE computes on {', '.join(DEVICES)}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the device {name!r} is not there ({reason}); use auto or cpu") from None
    return torch.device("cpu") if device.type == "cpu" else device  # there is one, whatever its number


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.10 and newer
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False


def autocast(device: torch.device, precision: Literal["auto", "float32"]) -> torch.autocast:
    """bfloat16 for matrix products where `precision` and the device have it; else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "auto" and native_bfloat16(device))


@contextlib.contextmanager
def processes(name: str) -> Iterator[torch.device]:
    """Joins the processes that `torchrun` has started, if it has, and gives this one's device.

    Raises:
        UserError: The device is not there, or there are more processes than GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        yield choose(name)
        return
    device = choose(name)
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(f"torchrun has started process {local + 1} for {there} GPUs; use --nproc-per-node={there}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield device
        distributed.barrier()  # no process leaves while another still communicates
    finally:
        distributed.destroy_process_group()
