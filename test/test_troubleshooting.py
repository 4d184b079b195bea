"""What the troubleshooting page quotes is what the node says, as far as the fixed parts of it go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sam2_ros.node.diagnostics import IMAGE_TYPES, ImageTopic, Publisher, explain_silence, profile_advice

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CAMERA, RELIABLE_CAMERA = Publisher("camera", "best_effort"), Publisher("camera", "reliable")


def sources() -> str:
    """The text of the code that speaks: what stands in its strings, with the line breaks of the code taken out."""
    layers = ("node", "session", "perception", "image_io", "tracking")
    files = [path for layer in layers for path in (ROOT / "sam2_ros" / layer).glob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_quote_of_the_page_is_checked_here() -> None:
    assert len(re.findall(r"^> ", PAGE, re.M)) == 19


@pytest.mark.parametrize(
    ("topic", "silent_s"),
    [
        (ImageTopic("/image", "best_effort", (), ("/camera/color/image_raw",)), 5.0),
        (ImageTopic("/image", "best_effort", (), ()), 5.0),
        (ImageTopic("/image", "reliable", (CAMERA,), ()), 5.0),
        (ImageTopic("/image", "best_effort", (), (), other_types=(("camera", IMAGE_TYPES["compressed"]),)), 5.0),
        (ImageTopic("/image", "best_effort", (RELIABLE_CAMERA,), ()), 5.0),
    ],
)
def test_the_doctor_says_what_is_quoted(topic: ImageTopic, silent_s: float) -> None:
    said = explain_silence(topic, silent_s)
    quotes = [quote.split("...")[0].strip() for quote in re.findall(r"^> (.*)$", PAGE, re.M)]
    assert any(quote and quote in said for quote in quotes), said


def test_the_advice_on_lost_images_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    start = "Fast DDS loses large images with its default settings: set FASTRTPS_DEFAULT_PROFILES_FILE="
    assert profile_advice().startswith(start)
    assert start in PAGE


@pytest.mark.parametrize(
    "fragment",
    [
        "of the images on ",
        " are lost on the way. ",
        " is not supported; expected one of ",
        "Correct the parameters and configure again",
        "waiting to be configured (autostart is false)",
        " and this node reads ",
        ": nothing is received.",
        "images are published on ",
        ", so it ignores them: ",
        ": takes effect when the node is configured; deactivate and clean it up first",
        "weights is 'random': the masks will mean nothing",
        "image stamps went back by ",
        " than those around: not believed, tracking goes on",
        "are there two publishers on the ",
        "their images are taken for those of one camera, one after the other",
        " this node's clock, so ages are not known: a bag or a simulation needs use_sim_time: true and /clock",
        "use_sim_time is true and no /clock has come: ages are not known; ros2 bag play needs --clock",
        " s (a bag that starts again?): tracking is reset",
        "could not load ",
        " (the image is ",
        " in this ROS domain: services answer from either and outputs come twice",
        "no parameters of this node, so without effect: ",
    ],
)
def test_fixed_parts_of_quotes_are_in_the_code(fragment: str) -> None:
    assert fragment in PAGE, "no longer quoted: take it off this list"
    assert fragment in sources(), "nobody says this any more"
