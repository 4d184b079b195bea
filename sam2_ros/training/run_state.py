"""Everything that a run needs to go on as if it had never been stopped, in one file."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    settings: dict[str, Any]  # of the config, to tell a run that goes on with others
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, model: SAM2, config: TrainConfig) -> Run:
        ema = {name: value.clone() for name, value in model.state_dict().items()}
        settings = {name: value for name, value in asdict(config).items() if name != "source"}
        return cls(model, ema, _optimizer(model, config), settings)

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
            "settings": self.settings,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path, device: torch.device) -> None:
        """Take over a saved run where there is one; ValueError when it is damaged, or another model's."""
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema = state["ema"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
        except (OSError, torch.cuda.OutOfMemoryError):
            raise  # the file itself may be good
        except Exception as error:  # of the file's reader, of the model, of the optimizer
            what = str(error).partition("\n")[0]
            raise ValueError(
                f"{path} cannot be gone on from, it is damaged or another model's; take another folder ({what})"
            ) from error
        before = state.get("settings", self.settings)
        changed = sorted(name for name, value in self.settings.items() if before.get(name) != value)
        if changed:
            _log.warning("going on with other settings than before: %s", ", ".join(changed))
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
