"""Everything that a run needs to resume as if it had never been stopped, in one file."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam2_ros.model.sam2 import SAM2
from sam2_ros.regular_files import check_kind
from sam2_ros.torch_files import failed_writes_as_os_errors, why_unreadable
from sam2_ros.training.config import TrainConfig

_log = logging.getLogger(__name__)


class TrainingFailedError(RuntimeError):
    """A run that cannot give a useful result any more."""


@dataclass
class Run:
    """The content of a checkpoint. Clips and prompts depend on the step's number alone, so it has nothing of them."""

    model: SAM2
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    settings: dict[str, Any]  # of the config, to warn when a run is resumed with others
    step: int = 0
    seconds: float = 0.0
    failed_in_a_row: int = 0  # batches whose gradient was not finite

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

    def save(self, folder: Path, keep: bool = False) -> None:
        """Write ``last.pt`` to resume from and ``weights.pt``, the averaged weights in float16, a plain state dict.

        Each is written to a temporary file and renamed, so that a run killed while saving keeps the earlier file.

        Args:
            folder: of the run.
            keep: write the averaged weights once more under the step's number, where they stay.

        Raises:
            TrainingFailedError: a weight is not finite; nothing is written.
        """
        weights = self.model.state_dict()
        # Half precision: half as large to ship, and what the model card's scores were measured with.
        average = {name: value.half().cpu() for name, value in self.ema.items()}
        for kind, values in (("weights", weights), ("averaged weights", average)):
            broken = [name for name, value in values.items() if not torch.isfinite(value).all()]
            if broken:
                raise TrainingFailedError(
                    f"step {self.step}: the {kind} {', '.join(broken[:3])} are not finite and are not written; "
                    f"{folder} keeps the last good ones: go on from there with a lower lr"
                )
        state = {
            "model": weights,
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "settings": self.settings,
            "step": self.step,
            "seconds": self.seconds,
        }
        _write(state, folder / "last.pt")
        _write(average, folder / "weights.pt")
        if keep:
            _write(average, folder / f"weights_{self.step:08d}.pt")

    def resume(self, path: Path, device: torch.device) -> None:
        """Continue a saved run, if there is one; ValueError if it is damaged or another model's."""
        if not path.exists():
            return
        try:
            check_kind(path, path.stat().st_mode)
            state = torch.load(path, map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema = state["ema"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
        except (OSError, torch.cuda.OutOfMemoryError):
            raise  # the file itself may be good
        except Exception as error:  # of the file's reader, of the model, of the optimizer
            raise ValueError(
                f"{path} cannot be resumed: it is damaged or another model's; take another folder "
                f"({why_unreadable(error)})"
            ) from error
        before = state.get("settings", self.settings)
        changed = sorted(name for name, value in self.settings.items() if before.get(name) != value)
        if changed:
            _log.warning("resumed with other settings than before: %s", ", ".join(changed))
        _log.info("resumed at step %d from %s", self.step, path)


def _write(content: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file, failed_writes_as_os_errors(file) as target:
        torch.save(content, target)
    part.replace(path)


def _optimizer(model: SAM2, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that leaves norms and biases undecayed, in the trunk as elsewhere."""
    in_trunk = {id(p) for p in model.image_encoder.trunk.parameters()}
    groups: list[dict[str, Any]] = []
    for is_trunk in (False, True):
        members = [p for p in model.parameters() if (id(p) in in_trunk) is is_trunk]
        decayed, plain = [p for p in members if p.ndim > 1], [p for p in members if p.ndim <= 1]
        groups.append({"params": decayed, "weight_decay": config.weight_decay, "is_trunk": is_trunk})
        groups.append({"params": plain, "weight_decay": 0.0, "is_trunk": is_trunk})
    return torch.optim.AdamW(groups, lr=0.0)
