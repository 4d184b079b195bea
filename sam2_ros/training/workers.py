"""Training in one or several processes: which clips each process takes, and how all make the same update."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import distributed as dist
from torch import nn


@dataclass(frozen=True)
class Workers:
    """This process among those that train together (``torchrun``); alone without it."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: str) -> Workers:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    def device(self, wanted: str) -> torch.device:
        """Where this process computes: of several GPUs each process has its own.

        Raises:
            ValueError: torch knows no such device, or a GPU is asked for and torch has none.
        """
        if not wanted.startswith("cuda"):
            if wanted != "cpu":
                raise ValueError(f"device: expected cpu, cuda, or cuda:0, cuda:1, ..., got {wanted!r}")
            return torch.device(wanted)
        if not torch.cuda.is_available():
            raise ValueError(f"device: got {wanted!r}, but torch finds no CUDA device here; expected cpu")
        if wanted == "cuda":
            wanted = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(wanted)
        return torch.device(wanted)

    def share(self, clips_per_batch: int) -> range:
        """Which of a batch's clips are this process's.

        Raises:
            ValueError: the clips cannot be divided equally.
        """
        if clips_per_batch % self.count:
            raise ValueError(
                f"clips_per_batch: expected a multiple of the number of processes, got {clips_per_batch} "
                f"for {self.count}"
            )
        size = clips_per_batch // self.count
        return range(self.rank * size, (self.rank + 1) * size)

    def average_gradients(self, model: nn.Module, num_objects: int) -> None:
        """One exchange a step: the gradient of the mean over the objects of all processes.

        A parameter that no process used keeps no gradient, as with one process, so that weight decay leaves it alone.

        Args:
            num_objects: over which this process's loss is the mean.
        """
        if self.count == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad * num_objects).flatten() for p in parameters]
        used = torch.tensor([float(p.grad is not None) for p in parameters] + [float(num_objects)])
        flat = torch.cat([*parts, used.to(parts[0])])
        dist.all_reduce(flat)
        *parts, used = flat.split([*(p.numel() for p in parameters), len(parameters) + 1])
        total = used[-1]
        for parameter, part, uses in zip(parameters, parts, used[:-1].tolist(), strict=True):
            parameter.grad = (part / total).view_as(parameter) if uses else None
