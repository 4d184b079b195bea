"""Engines that compute the image encoder in PyTorch's place: ONNX Runtime and OpenVINO, on a CPU.

Depthwise convolutions, of which the trunks of nano and EdgeTAM are made, are slow in PyTorch there. The encoder is
converted once, from the network in memory, and kept on disk; the first image is computed in both ways and compared.
Everything else stays in PyTorch.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import importlib.util
import logging
import math
import os
import platform
import shutil
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sam2_ros.model.config import EfficientNetLiteSpec, ModelConfig, RepViTSpec
from sam2_ros.model.image_encoder import ImageEncoder, Maps
from sam2_ros.model.sam2 import SAM2

logger = logging.getLogger(__name__)

ENCODER_ENGINES = ("auto", "torch", "onnxruntime", "openvino")
# What each needs to convert and to run, by the name that it is imported under.
_PACKAGES = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino",)}
# What `auto` takes first, by the type of the products. Measured on x86-64, in turns (docs/speed.md): in float32 ONNX
# Runtime takes a tenth less processor time than OpenVINO; OpenVINO alone has bfloat16.
_PREFERRED = {torch.float32: ("onnxruntime", "openvino"), torch.bfloat16: ("openvino",)}
_FASTER_TRUNKS = (EfficientNetLiteSpec, RepViTSpec)
# Of the first image: the difference's root mean square over that of PyTorch's maps. Rounding is 1e-6, and 1e-2 where
# both round to bfloat16, each in its own places; a wrong conversion is of the order of 1.
_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
_FORMAT = "1"  # of what is on disk: a new one leaves older files alone
_KEPT_FOLDERS = 16  # of 10 to 20 MB
_CACHE_VARIABLE = "SAM2_ROS_CACHE"

Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]  # (1, 3, S, S) -> maps at strides 4, 8 and 16

_bypass = threading.local()


@contextlib.contextmanager
def plain_encoders() -> Iterator[None]:
    """Within it this thread's images are encoded by PyTorch, whatever was chosen: to count operations."""
    _bypass.is_on = True
    try:
        yield
    finally:
        _bypass.is_on = False


def is_installed(engine: str) -> bool:
    """Whether an engine of ``ENCODER_ENGINES`` can be used here."""
    return not _missing(engine)


def choose_encoder_engine(asked: str, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> str:
    """The engine that a setting selects: "torch", "onnxruntime" or "openvino".

    Args:
        asked: one of ``ENCODER_ENGINES``. "auto" takes an engine that is installed and that was measured to be faster:
            for nano and EdgeTAM, on x86-64, on the CPU; else PyTorch.
        config, device: of the network.
        dtype: that the encoder's products are computed in.

    Raises:
        ValueError: no such engine, not installed, or not for this device.
    """
    if asked not in ENCODER_ENGINES:
        raise ValueError(f"encoder_engine: expected one of {', '.join(ENCODER_ENGINES)}, got {asked!r}")
    if asked == "auto":
        measured = platform.machine() in ("x86_64", "AMD64") and isinstance(config.trunk, _FASTER_TRUNKS)
        candidates = _PREFERRED.get(dtype, ()) if measured and device.type == "cpu" else ()
        return next((engine for engine in candidates if is_installed(engine)), "torch")
    if missing := _missing(asked):
        raise ValueError(
            f"encoder_engine: {asked} needs {' and '.join(missing)}, which is not installed: pip install "
            f"{' '.join(missing)} (the extra `{asked}` of this package), or use auto"
        )
    if asked != "torch" and device.type != "cpu":
        raise ValueError(f"encoder_engine: {asked} runs on the CPU, the device is {device}: use auto or torch")
    return asked


def use_encoder_engine(network: SAM2, engine: str, threads: int | None = None) -> None:
    """Let an engine encode the images of a network, from now on and where nothing is to be trained or traced.

    The weights must be final: an encoder whose weights change later is PyTorch's again, and so is a copy. Where the
    engine cannot be had, or its maps of the first image differ from PyTorch's, one line is logged and PyTorch encodes.

    Args:
        network: on the CPU, in eval mode.
        engine: from ``choose_encoder_engine``; "torch" gives the encoder back to PyTorch.
        threads: of the engine; None: as many as PyTorch has now. They do not wait actively.
    """
    network.image_encoder.engine = None
    if engine == "torch":
        return
    dtype = _dtype_of(network)
    try:
        run = _load(network, engine, dtype, threads or torch.get_num_threads())
    except Exception as error:  # each package has its own kinds, and a robot is to go on without
        _fall_back(engine, f"could not be prepared ({_one_line(error)})")
        return
    network.image_encoder.engine = _Engine(engine, run, network, _TOLERANCES[dtype])


class _Engine:
    """What ``ImageEncoder.engine`` is: maps of images by another engine, or None where PyTorch must make them."""

    def __init__(self, name: str, run: Run, network: SAM2, tolerance: float) -> None:
        self._name, self._run, self._tolerance = name, run, tolerance
        self._encoder = weakref.ref(network.image_encoder)  # which holds this: no cycle, it is to be freed at once
        self._weights = tuple((p, p._version) for p in EncoderMaps(network).parameters() if not p.is_inference())
        self._is_compared = self._is_wrong = False

    def __call__(self, encoder: ImageEncoder, images_bchw: Tensor, laterals: Sequence[nn.Conv2d]) -> Maps | None:
        if self._is_wrong or getattr(_bypass, "is_on", False) or not self._has_weights_of(encoder):
            return None
        if not self._is_compared:
            return self._compared(encoder, images_bchw, laterals)
        return self._maps(images_bchw)

    def __deepcopy__(self, memo: dict[int, object]) -> _Engine:
        return self  # useless to another encoder, which it recognises

    def _has_weights_of(self, encoder: ImageEncoder) -> bool:
        """Whether they are still those that the engine was made from."""
        if self._encoder() is not encoder or any(p._version != version for p, version in self._weights):
            return False
        return not self._weights or next(encoder.parameters()) is self._weights[0][0]

    def _maps(self, images_bchw: Tensor) -> Maps:
        rows = [self._run(image_1chw.float().contiguous().numpy()) for image_1chw in images_bchw.split(1)]
        stride4, stride8, top = (torch.cat(list(map(torch.from_numpy, each))) for each in zip(*rows, strict=True))
        return stride4, stride8, top

    def _compared(self, encoder: ImageEncoder, images_bchw: Tensor, laterals: Sequence[nn.Conv2d]) -> Maps:
        """PyTorch's maps of the first image, after a look whether the engine has the same."""
        expected = encoder.plain(images_bchw, *laterals)
        try:
            pairs = zip(self._maps(images_bchw), expected, strict=True)
            difference = max(_difference(actual, wanted) for actual, wanted in pairs)
            reason = (
                f"differs from PyTorch in the first image, by {difference:.2g} of it (allowed: {self._tolerance:g})"
            )
        except Exception as error:  # of any kind, see use_encoder_engine
            difference, reason = math.inf, f"failed at the first image ({_one_line(error)})"
        self._is_compared, self._is_wrong = True, not difference <= self._tolerance  # NaN is wrong
        if self._is_wrong:
            _fall_back(self._name, reason)
        return expected


def _difference(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of what was expected; infinite where the shapes differ."""
    if actual.shape != expected.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    return float((actual - expected.float()).norm() / expected.float().norm().clamp(min=1e-12))


def _fall_back(engine: str, reason: str) -> None:
    logger.warning("encoder_engine: %s %s; PyTorch encodes the images", engine, reason)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _missing(engine: str) -> list[str]:
    return [name for name in _PACKAGES.get(engine, ()) if importlib.util.find_spec(name) is None]


# What the encoder is made of ------------------------------------------------------------------------------------------


class EncoderMaps(nn.Module):
    """The image encoder with the mask decoder's lateral convolutions: one module, one tensor in, three maps out."""

    def __init__(self, network: SAM2) -> None:
        super().__init__()
        self.encoder = network.image_encoder
        self.laterals = nn.ModuleList(network.sam_mask_decoder.laterals)

    def forward(self, images_bchw: Tensor) -> Maps:
        maps: Maps = self.encoder(images_bchw, *self.laterals)
        return maps


def _dtype_of(network: SAM2) -> torch.dtype:
    """The type of the encoder's products: the lowest of its parameters."""
    types = {parameter.dtype for parameter in network.image_encoder.trunk.parameters()}
    return torch.bfloat16 if torch.bfloat16 in types else torch.float32


def _float32_on_its_own(network: SAM2) -> EncoderMaps:
    """A copy to convert, without an engine, in float32 and in the usual layout."""
    maps: EncoderMaps = copy.deepcopy(EncoderMaps(network)).float().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return maps


# On disk --------------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where converted encoders are kept: below ``$SAM2_ROS_CACHE``, else below ``sam2_ros`` in the user's cache."""
    chosen = os.environ.get(_CACHE_VARIABLE)
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sam2_ros")
    return Path(chosen).expanduser() / "encoders" if chosen else users / "encoders"


def _key(network: SAM2, engine: str, dtype: torch.dtype) -> str:
    """Changes with whatever changes what the conversion gives."""
    config = network.config
    versions = [importlib.metadata.version(name) for name in ("torch", *_PACKAGES[engine])]
    digest = hashlib.sha256(repr((_FORMAT, engine, versions, config.trunk, config.image_size, str(dtype))).encode())
    for name, tensor in EncoderMaps(network).state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return f"{engine}-{config.name}-{config.image_size}-{digest.hexdigest()[:24]}"


def _load(network: SAM2, engine: str, dtype: torch.dtype, threads: int) -> Run:
    """The engine at work, from disk or converted; a file that cannot be read is made anew."""
    opener, converter, size = _OPENERS[engine], _CONVERTERS[engine], network.config.image_size
    options = {"threads": threads, "dtype": dtype}
    folder = cache_folder() / _key(network, engine, dtype)
    if folder.is_dir():
        try:
            return opener(folder, **options)
        except Exception as error:
            logger.info("encoder_engine: %s is made anew: %s", folder, _one_line(error))
            shutil.rmtree(folder, ignore_errors=True)
    logger.info("encoder_engine: converting the image encoder for %s, once", engine)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sam2_ros_") as scratch:
        made = Path(scratch, folder.name)
        made.mkdir()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters about PyTorch's and their own code
            converter(_float32_on_its_own(network), size, made)
        run = opener(made, **options)
        _keep(made, folder)
    logger.info("encoder_engine: converted in %.1f s", time.perf_counter() - started)
    return run


def _keep(made: Path, folder: Path) -> None:
    """Put a finished folder into the cache in one step, since another process may do the same; the oldest ones go.

    A full or read-only disk is no error: the next start converts again.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new_") as beside:
            copied = shutil.copytree(made, Path(beside, folder.name))
            with contextlib.suppress(FileExistsError):
                copied.rename(folder)
        kept = sorted(folder.parent.glob("*-*-*"), key=lambda path: path.stat().st_mtime)
        for old in kept[:-_KEPT_FOLDERS]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        logger.info("encoder_engine: not kept for the next start: %s", _one_line(error))


# The engines ----------------------------------------------------------------------------------------------------------


def write_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: dict[str, dict[int, Any]] | None = None,
) -> None:
    """A module as an ONNX file of its own, with names for what goes in and comes out."""
    with torch.no_grad(), warnings.catch_warnings(), _quiet("onnx_ir", "onnxscript"):
        # Of PyTorch's exporter about its own code and about axes that it names by itself: a page of them at each graph,
        # and nothing that a user could act on. What fails raises.
        warnings.simplefilter("ignore")
        module(*example)  # tables that are kept for later must be made of numbers, not while it is traced
        torch.onnx.export(
            module,
            example,
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Let loggers say warnings alone."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _convert_to_onnx(module: nn.Module, size: int, folder: Path) -> None:
    write_onnx(
        module, (torch.zeros(1, 3, size, size),), folder / "encoder.onnx", ["image"], ["stride4", "stride8", "top"]
    )


def _open_onnx(folder: Path, threads: int, dtype: torch.dtype) -> Run:
    """Computes in float32 whatever ``dtype`` is: ONNX Runtime has no bfloat16 convolutions on a CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait actively would hold the cores that PyTorch's threads need next, and the neighbours' too.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "encoder.onnx", options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def _convert_to_openvino(module: nn.Module, size: int, folder: Path) -> None:
    """By the parts of ``openvino.convert_model`` that do the work; the whole also sends telemetry."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = (torch.zeros(1, 3, size, size),)
    module(*example)  # see write_onnx
    decoder = TorchScriptPythonDecoder(module, example_input=example)  # the frontend does not keep it alive
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape([1, 3, size, size])
    openvino.save_model(model, folder / "encoder.xml", compress_to_fp16=False)


def _open_openvino(folder: Path, threads: int, dtype: torch.dtype) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(
        folder / "encoder.xml",
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "ENABLE_CPU_PINNING": False,  # else its threads keep cores on which others wait
        },
    )
    request, lock = compiled.create_infer_request(), threading.Lock()

    def run(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with lock:  # a request is for one caller at a time
            return [value.copy() for value in request.infer({0: image}, share_inputs=True, share_outputs=True).values()]

    return run


_CONVERTERS: dict[str, Callable[[nn.Module, int, Path], None]] = {
    "onnxruntime": _convert_to_onnx,
    "openvino": _convert_to_openvino,
}
_OPENERS: dict[str, Callable[..., Run]] = {"onnxruntime": _open_onnx, "openvino": _open_openvino}
