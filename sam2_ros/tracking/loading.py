"""From a model's name to a tracker or an image predictor that is ready for its first image.

Also chooses the floating-point types that the heavy parts of a network run in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam2_ros.model.checkpoint import CheckpointError, fill_model, infer_model_name, read_state_dict, some_names
from sam2_ros.model.config import MODELS, Approximations, EfficientNetLiteSpec, ModelConfig, approximate, model_config
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.official_weights import OFFICIAL_FILES, fetch_official_file, forget_official_file
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.prompts import STAMP_SLOP_S
from sam2_ros.tracking.rules.quality import Calibration, calibration_file, read_calibration
from sam2_ros.tracking.runtime.compiled import compile_network
from sam2_ros.tracking.runtime.encoder_engine import ENCODER_ENGINES, choose_encoder_engine, use_encoder_engine
from sam2_ros.tracking.state_io import fingerprint
from sam2_ros.tracking.tracker import Tracker

PRECISIONS = ("auto", "float32", "bfloat16")
_FAST_ON_CPU = ("amx_bf16", "avx512_bf16", "bf16")  # names of torch.cpu.get_capabilities, of x86 and Arm


@dataclass(frozen=True)
class Precision:
    """Types of the two parts that do nearly all of the work; the rest is float32."""

    image_encoder: torch.dtype
    memory_attention: torch.dtype

    def __str__(self) -> str:
        names = [str(dtype).removeprefix("torch.") for dtype in (self.image_encoder, self.memory_attention)]
        return names[0] if names[0] == names[1] else f"{names[0]}, memory attention in {names[1]}"


def choose_precision(precision: str, config: ModelConfig, device: torch.device) -> Precision:
    """The types that a ``precision`` setting selects for a network.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes it faster than float32 and the
            masks stay nearly the same, which rules out nano's image encoder (mean IoU with those of float32: 0.93).
            EdgeTAM's is computed in bfloat16 by its authors, too.
        config: of the network.
        device: where it runs.

    Raises:
        ValueError: any other ``precision``.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float32" or (precision == "auto" and not has_fast_bfloat16(device)):
        return Precision(torch.float32, torch.float32)
    if precision == "auto" and isinstance(config.trunk, EfficientNetLiteSpec):
        return Precision(torch.float32, torch.bfloat16)
    return Precision(torch.bfloat16, torch.bfloat16)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; else it is emulated, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older versions of torch
    return any(found.get(name, False) for name in _FAST_ON_CPU)


EMBEDDED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "nano.pt"


def load_tracker(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    postprocess: bool = True,
    weights: str = "embedded",
    image_size: int | None = None,
    lost_after_frames: int = 30,
    sha256: str | None = None,
    corrections_are_conditioning: bool = False,
    buffer_frames: int = 0,
    catchup_budget_ms: float | None = None,
    precision: str = "auto",
    approximations: Approximations | None = None,
    recover_after_frames: int = 1,
    compiled: bool = False,
    zoom: bool = False,
    memory_selection: str = "auto",
    crowd_suppression: bool = False,
    lookalike_doubt: bool = False,
    scene_changes: bool = False,
    lost_after_s: float = 0.0,
    recover_after_s: float = 0.0,
    stamp_slop_s: float = STAMP_SLOP_S,
    calibrated: bool = True,
    encoder_engine: str = "auto",
    follow_load: bool = True,
) -> Tracker:
    """A tracker ready for its first image.

    Args:
        calibrated: with the calibration of the mask quality that lies beside the weights, if one does.

    What ``load_network`` takes goes there, the rest to ``Tracker``; a compiled network keeps its threads.
    Raises ValueError and sam2_ros.model.checkpoint.CheckpointError as these do.
    """
    source = (model, checkpoint, device, postprocess, weights, image_size, sha256)
    how = (precision, approximations, compiled, encoder_engine)
    network = load_network(*source, False, *how)  # not for images only
    return Tracker(
        network,
        lost_after_frames=lost_after_frames,
        corrections_are_conditioning=corrections_are_conditioning,
        buffer_frames=buffer_frames,
        catchup_budget_ms=catchup_budget_ms,
        recover_after_frames=recover_after_frames,
        zoom=zoom,
        memory_selection=memory_selection,
        crowd_suppression=crowd_suppression,
        lookalike_doubt=lookalike_doubt,
        scene_changes=scene_changes,
        lost_after_s=lost_after_s,
        recover_after_s=recover_after_s,
        stamp_slop_s=stamp_slop_s,
        calibration=load_calibration(network, checkpoint) if calibrated else None,
        follow_load=follow_load and not compiled,
    )


def load_calibration(network: SAM2, checkpoint: str | Path | None) -> Calibration:
    """The calibration that lies beside a network's weights; without one, what changes nothing.

    Args:
        network: with its weights.
        checkpoint: their file; None: the embedded ones.

    Raises:
        ValueError: it is damaged.
    """
    source = EMBEDDED_WEIGHTS if checkpoint is None else Path(checkpoint).expanduser()
    return read_calibration(calibration_file(source), fingerprint(network))


def load_image_predictor(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    postprocess: bool = True,
    weights: str = "embedded",
    image_size: int | None = None,
    sha256: str | None = None,
    precision: str = "auto",
    encoder_engine: str = "auto",
) -> ImagePredictor:
    """An image predictor ready for ``set_image``; the checkpoint may lack the memory part.

    Args:
        model, checkpoint, device, postprocess, weights, image_size, sha256, precision, encoder_engine: see
            ``load_network``.

    Raises:
        ValueError, sam2_ros.model.checkpoint.CheckpointError: see ``load_network``.
    """
    network = load_network(
        model,
        checkpoint,
        device,
        postprocess=postprocess,
        weights=weights,
        image_size=image_size,
        sha256=sha256,
        image_only=True,
        precision=precision,
        encoder_engine=encoder_engine,
    )
    return ImagePredictor(network)


def load_network(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    postprocess: bool = True,
    weights: str = "embedded",
    image_size: int | None = None,
    sha256: str | None = None,
    image_only: bool = False,
    precision: str = "auto",
    approximations: Approximations | None = None,
    compiled: bool = False,
    encoder_engine: str = "torch",
) -> SAM2:
    """The network with its weights, on its device and ready to run.

    Args:
        model: a name from the model table: "nano", "sam2.1_hiera_tiny", ...; None selects the checkpoint's model, or
            "nano" without a checkpoint.
        checkpoint: file or folder with weights (docs/checkpoints.md lists the formats); None selects the embedded ones
            of "nano", and of another model the official file, which is fetched once (``official_weights``).
        device: "cpu", "cuda", "cuda:1", ...
        postprocess: the official builder's default settings (stability fallback, binarised prompted masks); "nano" has
            no fallback. False gives the official benchmark's.
        weights: "embedded", or "random" for dry runs without meaningful masks.
        image_size: side of the model's square input in px; None: that of the model table.
        sha256: expected hash of the checkpoint, in hexadecimal.
        image_only: the network is for single images, so the checkpoint may lack the memory part.
        precision: of the image encoder and the memory attention: "float32", "bfloat16", or "auto", see
            ``choose_precision``.
        approximations: of the memory; None is exact.
        compiled: with ``torch.compile``, for streams; takes minutes. See ``sam2_ros.tracking.runtime.compiled``.
        encoder_engine: what encodes images: "torch", "onnxruntime", "openvino" (each an extra), or "auto", which is
            PyTorch for a compiled network and for random weights; see ``sam2_ros.tracking.runtime.encoder_engine``.

    Raises:
        ValueError: unknown model, size, precision, engine or kind of weights, no such device, contradicting arguments,
            no compiler, or an engine that is not installed.
        sam2_ros.model.checkpoint.CheckpointError: the weights do not fit or cannot be read.
    """
    _check_request(weights, checkpoint, sha256, encoder_engine, compiled)
    config = None if model is None else model_config(model, image_size)  # reject a wrong name before reading a file
    check_device(device)
    source, state = EMBEDDED_WEIGHTS if checkpoint is None else Path(checkpoint).expanduser(), None
    if checkpoint is None and weights == "embedded" and config is not None and config.name != "nano":
        source, state = _official_weights(config.name)
    elif weights == "embedded":
        state = read_state_dict(source, sha256)
    if config is None:
        config = model_config("nano" if state is None else _model_of(state, source), image_size)
    config = config if approximations is None else approximate(config, approximations)
    # Nano's outlines shift with the threshold: it would nearly always fall back to its three candidates, which are
    # trained with single points only, so corrections would have no effect.
    fallback = StabilityFallback() if postprocess and config.name != "nano" else None
    network = SAM2(config, fallback, binarize_prompted_masks=postprocess)
    if state is not None:
        fill_model(network, state, source, image_only)
    left_to_torch = encoder_engine == "auto" and (compiled or weights == "random")
    _put_to_work(network, device, precision, "torch" if left_to_torch else encoder_engine)
    return compile_network(network) if compiled else network


def _put_to_work(network: SAM2, device: str, precision: str, encoder_engine: str) -> None:
    """Device, types, memory layout and engine of a network that has its weights."""
    network.to(device).eval()
    chosen = choose_precision(precision, network.config, torch.device(device))
    engine = choose_encoder_engine(encoder_engine, network.config, torch.device(device), chosen.image_encoder)
    network.compute_in(chosen.image_encoder, chosen.memory_attention)
    # Depthwise convolutions are several times faster with channels last, and Hiera works on (B, H, W, C).
    network.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    use_encoder_engine(network, engine)


def _official_weights(model: str) -> tuple[Path, dict[str, Tensor]]:
    """The official file of a model and its tensors; a damaged file is removed."""
    if model not in OFFICIAL_FILES:
        raise ValueError(f"{model} has no published weights: name a checkpoint file, or use the model nano")
    fetched = fetch_official_file(model)
    try:
        return fetched.path, read_state_dict(fetched.path, fetched.sha256)
    except CheckpointError as error:
        forget_official_file(fetched)
        raise CheckpointError(f"{error}; it was removed: try again") from error


def _check_request(
    weights: str, checkpoint: str | Path | None, sha256: str | None, encoder_engine: str, compiled: bool
) -> None:
    if weights not in ("embedded", "random"):
        raise ValueError(f'weights: expected "embedded" or "random", got {weights!r}')
    if checkpoint is not None and weights == "random":
        raise ValueError(f'weights is "random" and a checkpoint is given ({checkpoint}): use one of them')
    if checkpoint is None and sha256 is not None:
        raise ValueError("sha256 is given without a checkpoint to compare it with")
    if encoder_engine not in ENCODER_ENGINES:
        raise ValueError(f"encoder_engine: expected one of {', '.join(ENCODER_ENGINES)}, got {encoder_engine!r}")
    if compiled and encoder_engine not in ("auto", "torch"):
        raise ValueError(f"encoder_engine {encoder_engine} and compile both want the image encoder: use one of them")


def check_device(device: str) -> None:
    """Raise ValueError if PyTorch finds no such device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has no single exception type for this
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: expected cpu, or a cuda device that torch finds here, got {device!r} ({reason})"
        ) from error


def _model_of(state: dict[str, Tensor], source: Path) -> str:
    name = infer_model_name(state, source.stem)
    if name is None:
        found = some_names(sorted(state))
        raise CheckpointError(f"{source} looks like none of the models {', '.join(MODELS)}; it has {found}")
    return name
