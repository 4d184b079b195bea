"""From parameters to a warm tracker."""

from __future__ import annotations

import functools
import time
import weakref
from typing import Any

import numpy as np

from sam2_ros.session.parameters import NodeParameters

WARM_UP_HEIGHT_PX, WARM_UP_WIDTH_PX = 480, 640


class SharedNetworks:
    """One network for all trackers that ask for the same; freed together with the last of them."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()

    def load(self, parameters: NodeParameters) -> Any:
        """The network that the parameters name. Raises what ``load_network`` raises, which names path and reason."""
        from sam2_ros.model.config import Approximations
        from sam2_ros.tracking.loading import load_network

        wanted: dict[str, Any] = {
            "model": None if parameters.model == "auto" else parameters.model,
            "checkpoint": parameters.checkpoint or None,
            "device": resolve_device(parameters.device),
            "weights": parameters.weights,
            "precision": parameters.precision,
            "sha256": parameters.checkpoint_sha256 or None,
            "image_size": parameters.image_size or None,
            "approximations": Approximations(parameters.memory_pooling, parameters.recent_memories or None),
            "compiled": parameters.compile,
            "encoder_engine": parameters.encoder_engine,
        }
        key = tuple(wanted.values())
        network = self._known.get(key)
        if network is None:
            network = self._known[key] = load_network(**wanted)
        return network


def load_configured_tracker(parameters: NodeParameters, networks: SharedNetworks | None = None) -> Any:
    """A tracker with the model that the parameters name; a network that is in ``networks`` already is shared."""
    import torch

    from sam2_ros.tracking.loading import load_calibration
    from sam2_ros.tracking.tracker import Tracker

    default = _threads_by_default()  # before the first change
    if parameters.num_threads or networks is None:  # else another camera may have set its own number
        torch.set_num_threads(parameters.num_threads or default)
    network = (networks or SharedNetworks()).load(parameters)
    return Tracker(
        network,
        lost_after_frames=parameters.lost_after_frames,
        recover_after_frames=parameters.recover_after_frames,
        buffer_frames=parameters.buffer_frames,
        catchup_budget_ms=parameters.catchup_budget_ms,
        zoom=parameters.zoom,
        stamp_slop_s=parameters.prompt_slop_s,
        memory_selection=parameters.memory_selection,
        crowd_suppression=parameters.crowd_suppression,
        lookalike_doubt=parameters.lookalike_doubt,
        scene_changes=parameters.scene_changes,
        lost_after_s=parameters.lost_after_s,
        recover_after_s=parameters.recover_after_s,
        calibration=load_calibration(network, parameters.checkpoint or None),
        follow_load=not parameters.num_threads and not parameters.compile,
    )


@functools.cache
def _threads_by_default() -> int:
    """PyTorch's default number of threads, read before it is first changed."""
    import torch

    return torch.get_num_threads()


def describe_model(parameters: NodeParameters) -> str:
    """The model and its weights for people, before it is known which model an unnamed checkpoint is for."""
    if parameters.checkpoint:
        name = "the model" if parameters.model == "auto" else parameters.model
        return f"{name} of {parameters.checkpoint}"
    name = "nano" if parameters.model == "auto" else parameters.model
    is_official = name != "nano" and parameters.weights == "embedded"  # nano alone has weights in the package
    return f"{name} with {'its official' if is_official else parameters.weights} weights"


def resolve_device(device: str) -> str:
    """``auto`` becomes the first GPU, or the CPU without one."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def warm_up(tracker: Any) -> float:
    """Run every network once, so that the first image is not slow; resets the tracker. Returns seconds."""
    start_s = time.perf_counter()
    # Noise: an engine for the image encoder is compared with PyTorch in the first image, so it should have something.
    image_rgb = np.random.default_rng(0).integers(0, 256, (WARM_UP_HEIGHT_PX, WARM_UP_WIDTH_PX, 3), dtype=np.uint8)
    point = np.array([[WARM_UP_WIDTH_PX / 2, WARM_UP_HEIGHT_PX / 2]], dtype=np.float32)
    tracker.add_prompt("warm_up", points=point, labels=np.array([1], dtype=np.int32))
    for _ in range(2):  # with the prompt, then from memory
        tracker.step(image_rgb)
    tracker.reset()
    return time.perf_counter() - start_s
