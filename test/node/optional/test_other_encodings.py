"""Encodings that only cv_bridge reads: with a stand-in that has its interface, without the package, and broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from image_messages import image_message

from sam2_ros.image_io.encodings import ImageError, image_to_rgb
from sam2_ros.node.optional.other_encodings import OtherEncodings

GRAY = np.arange(24, dtype=np.uint8).reshape(4, 6)
RGB = np.stack([GRAY, GRAY + 1, GRAY + 2], axis=2)


class CvBridgeError(TypeError):
    pass


def install(monkeypatch: pytest.MonkeyPatch, convert: Callable[[Any], Any]) -> None:
    """A cv_bridge whose conversion to rgb8 is ``convert``."""

    class CvBridge:
        def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> Any:
            assert desired_encoding == "rgb8"
            return convert(img_msg)

    module: Any = ModuleType("cv_bridge")
    module.CvBridge, module.CvBridgeError = CvBridge, CvBridgeError
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def test_an_encoding_that_is_not_ours_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda message: RGB[:, ::-1][:, ::-1] if message.encoding == "nv24" else None)
    np.testing.assert_array_equal(image_to_rgb(image_message(GRAY, "nv24"), OtherEncodings()), RGB)


def test_our_own_encodings_do_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    np.testing.assert_array_equal(image_to_rgb(image_message(RGB, "rgb8"), OtherEncodings()), RGB)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            CvBridgeError("[32FC1] is not a color format"),
            r"convert it either \(CvBridgeError: .32FC1. is not",
        ),
        (ImportError("numpy.core.multiarray failed to import"), r"either \(ImportError: numpy.core"),
        (GRAY, r"cv_bridge made uint8 of shape \(4, 6\) of it, expected uint8 of \(4, 6, 3\)"),
        (RGB.astype(np.uint16), "cv_bridge made uint16 of shape"),
        (None, "cv_bridge made object of shape"),
    ],
)
def test_what_it_cannot_convert_is_an_error_of_the_image(
    monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    def convert(message: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    install(monkeypatch, convert)
    with pytest.raises(ImageError, match=rf"'32FC1' is not supported; expected one of rgb8, .*{reason}"):
        image_to_rgb(image_message(GRAY, "32FC1"), OtherEncodings())


def test_without_cv_bridge_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # makes its import fail
    reason = OtherEncodings()(image_message(GRAY, "nv24"))
    assert isinstance(reason, str) and "cv_bridge" in reason and "ModuleNotFoundError" in reason


@pytest.mark.parametrize("error", ["AttributeError('_ARRAY_API not found')", "SystemError('initialization failed')"])
def test_a_broken_one_is_imported_once_and_its_error_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    log = tmp_path / "log"
    (tmp_path / "cv_bridge.py").write_text(f"open({str(log)!r}, 'a').write('x')\nraise {error}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # so that it is gone again afterwards
    monkeypatch.delitem(sys.modules, "cv_bridge")
    read = OtherEncodings()
    reasons = {read(image_message(GRAY, "nv24")) for _ in range(3)}
    (reason,) = reasons
    assert error.partition("(")[0] in reason and "is not usable here" in reason
    assert log.read_text() == "x", "an import that fails takes long, and images come 30 times a second"
