"""Engines in PyTorch's place for the image encoder: the same maps, kept on disk, and PyTorch where there are none."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TINY_EDGETAM, noise_frames, tiny_model

from sam2_ros.model.config import MODELS, ModelConfig
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.loading import load_network
from sam2_ros.tracking.runtime import encoder_engine
from sam2_ros.tracking.runtime.encoder_engine import (
    cache_folder,
    choose_encoder_engine,
    is_installed,
    plain_encoders,
    use_encoder_engine,
)
from sam2_ros.tracking.tracker import Tracker

CPU, FLOAT32, BFLOAT16 = torch.device("cpu"), torch.float32, torch.bfloat16
SIZE = TINY_EDGETAM.image_size
ROUNDING = 1e-4  # of the largest value of a map
ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not is_installed(name), reason=f"needs the extra `{name}`: pip install '.[{name}]'"),
    )
    for name in ("onnxruntime", "openvino")
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2_ROS_CACHE", str(tmp_path / "cache"))


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def maps_of(network: SAM2, images_bchw: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        features = network.encode_image(images_bchw)
    return [features.stride4_bchw, features.stride8_bchw, features.top_bchw]


def assert_close(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == FLOAT32 and theirs.std() > 0
        assert (ours - theirs).abs().max() <= ROUNDING * theirs.abs().max()


class FakeEngine:
    """In place of a package: counts what is asked of it, and computes with ``network``'s PyTorch times ``factor``."""

    def __init__(self, network: SAM2, factor: float = 1.0) -> None:
        self.network, self.factor = copy.deepcopy(network), factor
        self.opened: list[dict[str, Any]] = []
        self.converted = self.calls = 0
        self.fails = False

    def convert(self, module: torch.nn.Module, size: int, folder: Path) -> None:
        self.converted += 1
        (folder / "encoder").write_text("whole")

    def open(self, folder: Path, **options: Any) -> encoder_engine.Run:
        if (folder / "encoder").read_text() != "whole":
            raise RuntimeError("damaged")
        self.opened.append(options)
        return self.run

    def run(self, image_1chw: np.ndarray) -> list[np.ndarray]:
        self.calls += 1
        if self.fails:
            raise RuntimeError("no such instruction\nand more")
        with torch.inference_mode():
            return [self.factor * each.numpy() for each in maps_of(self.network, torch.from_numpy(image_1chw))]


@pytest.fixture
def network() -> SAM2:
    return tiny_model(TINY_EDGETAM)


@pytest.fixture
def fake(network: SAM2, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine(network)
    monkeypatch.setitem(encoder_engine._PACKAGES, "onnxruntime", ("torch",))
    monkeypatch.setitem(encoder_engine._CONVERTERS, "onnxruntime", engine.convert)
    monkeypatch.setitem(encoder_engine._OPENERS, "onnxruntime", engine.open)
    return engine


@pytest.mark.numeric
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_from_disk_has_the_maps_and_masks_of_pytorch(
    engine: str, network: SAM2, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_encoder_engine(copy.deepcopy(network), engine, threads=1)
    monkeypatch.setitem(encoder_engine._CONVERTERS, engine, None)  # the second time it comes from disk
    by_engine = copy.deepcopy(network)
    use_encoder_engine(by_engine, engine, threads=1)
    assert by_engine.image_encoder.engine is not None, caplog.text
    maps_of(by_engine, image(0))  # the first is PyTorch's own, and compared
    batch = torch.cat((image(1), image(2)))
    expected = maps_of(network, batch)
    monkeypatch.setattr(type(by_engine.image_encoder), "plain", None)  # from here on PyTorch is not asked
    assert_close(maps_of(by_engine, batch), expected)
    monkeypatch.undo()
    trackers = [Tracker(each) for each in (network, by_engine)]
    ious = []
    for index, picture in enumerate(noise_frames(4)):
        for tracker in trackers:
            if index == 0:
                tracker.add_prompt("a", box=(10, 8, 60, 40))
        ours, theirs = (tracker.step(picture)["a"].mask for tracker in reversed(trackers))
        ious.append((ours & theirs).sum() / max((ours | theirs).sum(), 1))
    assert min(ious) > 0.99, ious
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_other_weights_sizes_and_types_are_other_files(network: SAM2, fake: FakeEngine) -> None:
    use_encoder_engine(network, "onnxruntime")
    use_encoder_engine(copy.deepcopy(network), "onnxruntime")
    assert fake.converted == 1
    use_encoder_engine(tiny_model(TINY_EDGETAM, seed=1), "onnxruntime")
    assert fake.converted == 2
    network.compute_in(BFLOAT16, FLOAT32)
    use_encoder_engine(network, "onnxruntime")
    assert fake.converted == 3
    assert [options["dtype"] for options in fake.opened] == [FLOAT32, FLOAT32, FLOAT32, BFLOAT16]
    assert len(list(cache_folder().iterdir())) == 3


def test_a_damaged_file_is_made_anew(network: SAM2, fake: FakeEngine) -> None:
    use_encoder_engine(network, "onnxruntime")
    (kept,) = cache_folder().iterdir()
    (kept / "encoder").write_text("half")
    use_encoder_engine(network, "onnxruntime")
    assert fake.converted == 2 and (kept / "encoder").read_text() == "whole"


def test_only_the_newest_files_stay(network: SAM2, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_engine, "_KEPT_FOLDERS", 2)
    for seed in range(4):
        use_encoder_engine(tiny_model(TINY_EDGETAM, seed=seed), "onnxruntime")
    assert len(list(cache_folder().iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    network: SAM2, fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAM2_ROS_CACHE", str(tmp_path / "file"))
    use_encoder_engine(network, "onnxruntime")
    assert network.image_encoder.engine is not None


@pytest.mark.parametrize(
    ("factor", "fails", "said"),
    [
        (1.01, False, "differs from PyTorch in the first image, by 0.01 of it (allowed: 0.001)"),
        (float("nan"), False, "differs from PyTorch in the first image, by nan of it (allowed: 0.001)"),
        (1.0, True, "failed at the first image (no such instruction)"),
    ],
)
def test_what_differs_in_the_first_image_is_not_used(
    factor: float, fails: bool, said: str, network: SAM2, fake: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    fake.factor, fake.fails = factor, fails
    expected = [maps_of(network, image(seed)) for seed in range(2)]
    use_encoder_engine(network, "onnxruntime")
    for seed in range(2):
        assert_close(maps_of(network, image(seed)), expected[seed])
    assert fake.calls == 1
    (record,) = caplog.records
    assert record.getMessage() == f"encoder_engine: onnxruntime {said}; PyTorch encodes the images"


def test_what_cannot_be_converted_is_left_to_pytorch(
    network: SAM2, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(encoder_engine._CONVERTERS, "onnxruntime", lambda *_: 1 / 0)
    use_encoder_engine(network, "onnxruntime")
    assert network.image_encoder.engine is None
    assert "onnxruntime could not be prepared (division by zero); PyTorch encodes" in caplog.text


def test_only_the_encoder_with_those_weights_is_replaced(network: SAM2, fake: FakeEngine) -> None:
    use_encoder_engine(network, "onnxruntime", threads=3)
    assert fake.opened[0]["threads"] == 3
    maps_of(network, image(0))
    assert fake.calls == 1
    network.encode_image(image(0))  # with gradients
    with plain_encoders():
        maps_of(network, image(0))
    maps_of(copy.deepcopy(network), image(0))
    assert fake.calls == 1
    maps_of(network, image(0))
    assert fake.calls == 2
    other = tiny_model(TINY_EDGETAM, seed=1)
    network.load_state_dict(other.state_dict())
    assert_close(maps_of(network, image(0)), maps_of(other, image(0)))
    assert fake.calls == 2
    use_encoder_engine(network, "torch")
    assert network.image_encoder.engine is None


@pytest.mark.parametrize(
    ("model", "dtype", "device", "installed", "expected"),
    [
        ("nano", FLOAT32, "cpu", ("onnxruntime", "openvino"), "onnxruntime"),
        ("nano", FLOAT32, "cpu", ("onnxruntime",), "onnxruntime"),
        ("edgetam", BFLOAT16, "cpu", ("onnxruntime",), "torch"),  # it would compute in float32
        ("edgetam", BFLOAT16, "cpu", ("openvino",), "openvino"),
        ("nano", FLOAT32, "cpu", (), "torch"),
        ("nano", FLOAT32, "cuda", ("openvino",), "torch"),
        ("sam2.1_hiera_tiny", FLOAT32, "cpu", ("openvino",), "torch"),
    ],
)
def test_auto_takes_what_is_installed_and_faster(
    model: str,
    dtype: torch.dtype,
    device: str,
    installed: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder_engine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(encoder_engine, "is_installed", lambda engine: engine in installed)
    assert choose_encoder_engine("auto", MODELS[model], torch.device(device), dtype) == expected


def test_auto_stays_with_pytorch_where_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_engine, "is_installed", lambda engine: True)
    monkeypatch.setattr(encoder_engine.platform, "machine", lambda: "aarch64")
    assert choose_encoder_engine("auto", MODELS["nano"], CPU, FLOAT32) == "torch"


def test_an_impossible_engine_is_a_value_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    config: ModelConfig = MODELS["nano"]
    with pytest.raises(ValueError, match="expected one of auto, torch, onnxruntime, openvino, got 'tensorrt'"):
        load_network("nano", encoder_engine="tensorrt")
    with pytest.raises(ValueError, match="encoder_engine openvino and compile both want the image encoder"):
        load_network("nano", encoder_engine="openvino", compiled=True)
    monkeypatch.setitem(encoder_engine._PACKAGES, "openvino", ("not_there",))
    with pytest.raises(ValueError, match=r"openvino needs not_there, .*: pip install not_there \(the extra `openvino`"):
        choose_encoder_engine("openvino", config, CPU, FLOAT32)
    monkeypatch.setitem(encoder_engine._PACKAGES, "openvino", ())
    with pytest.raises(ValueError, match="openvino runs on the CPU, the device is cuda: use auto or torch"):
        choose_encoder_engine("openvino", config, torch.device("cuda"), FLOAT32)


def test_random_weights_are_not_converted_unless_asked(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_engine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(encoder_engine, "is_installed", lambda engine: engine == "onnxruntime")
    load_network("nano", weights="random", image_size=64, encoder_engine="auto")
    assert fake.converted == 0
    load_network("nano", weights="random", image_size=64, encoder_engine="onnxruntime")
    assert fake.converted == 1
    load_network("nano", image_size=64, encoder_engine="auto")
    assert fake.converted == 2
