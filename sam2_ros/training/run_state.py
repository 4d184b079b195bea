"""Everything that a run needs to go on as if it had never been stopped, in one file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sam2_ros.model.sam2 import SAM2
from sam2_ros.training.config import TrainConfig

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """What a checkpoint holds. Clips and prompts are drawn from the step's number, so they need no place in it."""

    model: SAM2
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, model: SAM2, config: TrainConfig) -> Run:
        return cls(
            model, {name: value.clone() for name, value in model.state_dict().items()}, _optimizer(model, config)
        )

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones."""
        # A young average would remember the random start for long.
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.ema[name].lerp_(value, 1 - decay)

    def save(self, path: Path) -> None:
        """Written aside and renamed, so that a run killed while saving keeps the earlier file."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path, device: torch.device) -> None:
        """Take over a saved run where there is one."""
        if not path.exists():
            return
        state = torch.load(path, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        _log.info("going on at step %d from %s", self.step, path)


def _optimizer(model: SAM2, config: TrainConfig) -> torch.optim.AdamW:
    trunk = list(model.image_encoder.trunk.parameters())
    in_trunk = {id(p) for p in trunk}
    decayed = [p for p in model.parameters() if id(p) not in in_trunk and p.ndim > 1]
    plain = [p for p in model.parameters() if id(p) not in in_trunk and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": trunk, "weight_decay": config.weight_decay, "is_trunk": True},
    ]
    return torch.optim.AdamW(groups, lr=0.0)
