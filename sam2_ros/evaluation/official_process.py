"""The official code of EdgeTAM or EfficientTAM in a process of its own, for comparisons of latency.

Its package has the name of SAM 2's own, so a process can have one of them. The other process measures itself; it works
only while it is asked to, so that the two take turns.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from sam2_ros.evaluation.contenders import Task, official_contenders, random_official
from sam2_ros.evaluation.latency import Contender, Masks
from sam2_ros.evaluation.official_relatives import environment, family_of
from sam2_ros.model.config import ModelConfig, model_config

_WEIGHTS = "official.pt"


@dataclass(frozen=True)
class RemoteContender:
    """A contender of that process."""

    name: str
    process: OfficialProcess
    compile_s: float | None = None

    def step(self, index: int) -> Masks:
        found: Masks = self.process.ask("step", self.name, index)
        return found

    def timed(self, index: int, device: torch.device) -> tuple[float, Masks]:
        found: tuple[float, Masks] = self.process.ask("timed", self.name, index, device)
        return found

    def by_stage(self, index: int, device: torch.device) -> dict[str, float]:
        found: dict[str, float] = self.process.ask("by_stage", self.name, index, device)
        return found

    def count_gflop(self, index: int) -> float:
        return float(self.process.ask("count_gflop", self.name, index))


class OfficialProcess:
    """Starts it with random weights, which it writes to ``weights`` for us to load. To be closed.

    Args:
        config: an EdgeTAM or EfficientTAM.
        task, device, dtypes: as for ``official_contenders``.
        folder: for the weights.

    Raises:
        ImportError: the official code is not installed.
        RuntimeError: the process has ended; the message has what it said last.
    """

    def __init__(
        self, config: ModelConfig, task: Task, device: torch.device, dtypes: Sequence[torch.dtype], folder: Path
    ) -> None:
        family = family_of(config.name)
        assert family is not None, f"{config.name} needs no process of its own"
        self.weights = folder / _WEIGHTS
        self._log = (folder / "official.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sam2_ros.evaluation.official_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(family),
        )
        threads = torch.get_num_threads()
        names = self.ask(config.name, config.image_size, task, device, tuple(dtypes), str(self.weights), threads)
        self.contenders = [RemoteContender(name, self) for name in names]

    def ask(self, *question: Any) -> Any:
        """One answer of the process to one question."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _send(self._process.stdin, question)
            return pickle.load(self._process.stdout)
        except (EOFError, OSError) as error:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"the process with the official code ended: {' / '.join(said[-3:])}") from error

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()
        self._log.close()


def _send(stream: IO[bytes], value: Any) -> None:
    pickle.dump(value, stream)
    stream.flush()


def main() -> None:
    """Answer questions on standard input until it is closed; what the official code prints goes to standard error."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    name, image_size, task, device, dtypes, weights, threads = pickle.load(questions)
    torch.set_num_threads(threads)
    config = model_config(name, image_size)
    predictor = random_official(config, device)
    torch.save({"model": predictor.state_dict()}, weights)
    contenders: dict[str, Contender] = {c.name: c for c in official_contenders(predictor, config, task, device, dtypes)}
    _send(answers, list(contenders))
    with torch.inference_mode():
        while True:
            try:
                method, contender, *arguments = pickle.load(questions)
            except EOFError:
                return
            _send(answers, getattr(contenders[contender], method)(*arguments))


if __name__ == "__main__":
    main()
