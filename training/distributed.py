"""Several processes training together, one for each GPU, started by torchrun; one alone needs nothing of this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

Item = TypeVar("Item")


def start() -> torch.device:
    """Join the other processes if torchrun started this one; the device to train on."""
    has_gpu = torch.cuda.is_available()
    if "WORLD_SIZE" in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    if not has_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def stop() -> None:
    """Leave the others."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process writes files and reports."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of the items."""
    if not torch.distributed.is_initialized():
        return items
    return items[torch.distributed.get_rank() :: torch.distributed.get_world_size()]


def add_up(module: nn.Module, loss: float) -> float:
    """Add the gradients of all processes, in place, and their losses. A parameter without a gradient has zeros."""
    if not torch.distributed.is_initialized():
        return loss
    for parameter in module.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
    total = torch.tensor(loss, device=next(module.parameters()).device, dtype=torch.float64)
    torch.distributed.all_reduce(total)
    return float(total)


def of_first(value: torch.Tensor, device: torch.device) -> float:
    """The first process's value, so that all of them go on alike."""
    if not torch.distributed.is_initialized():
        return float(value)
    shared = value.to(device)
    torch.distributed.broadcast(shared, 0)
    return float(shared)
