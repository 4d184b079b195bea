"""The annotation page in a real browser, from the first click to the export; screenshots go to $BROWSER_SHOTS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import browser_rig
import numpy as np
import pytest
from annotate_rig import add_recording
from browser_rig import Page, annotating, browsing
from synthetic_frames import synthetic_frames

from sam2_ros.annotate.masklets import MaskSource, Verdict
from sam2_ros.annotate.project import Project

WIDTH, HEIGHT, FRAMES = 320, 240, 10
DISC = (82, 120)  # of the first frame: on the disc

pytestmark = pytest.mark.skipif(bool(browser_rig.missing()), reason=browser_rig.missing() or "a browser is here")


@pytest.fixture(scope="module")
def project_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("projects") / "disc project ä"
    with Project.create(path) as project:
        add_recording(project, synthetic_frames(FRAMES, HEIGHT, 3, WIDTH), "disc")
        add_recording(project, synthetic_frames(FRAMES, HEIGHT, 4, WIDTH), "other")
    return path


@pytest.fixture(scope="module")
def address(project_path: Path) -> Iterator[str]:
    with annotating(project_path) as address:
        yield address


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    with browsing(address) as page:
        yield page
        complaints = [each["message"] for each in page.driver.get_log("browser") if each["level"] == "SEVERE"]
        assert not complaints, complaints


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("BROWSER_SHOTS"):
        page.screenshot(Path(folder) / f"{name}.png")


def show_frame(page: Page, frame: int) -> None:
    page.state(f"window.sam2Annotate.setFrame({frame})")
    page.wait(f"document.getElementById('layer-frame').dataset.frame === '{frame}'")


def new_object(page: Page) -> str:
    before = page.state("state.selected")
    page.press("new-object")
    return str(page.wait(f"state.selected !== {before!r} && state.selected" if before else "state.selected"))


def test_a_click_on_a_scaled_and_scrolled_canvas_reaches_the_server_as_its_source_pixel(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    show_frame(page, 0)
    expected: list[list[list[int]]] = []  # the first click, with no object selected, makes one
    for width, height, scroll, wheel_px in (
        (1280, 720, 0, 0),
        (1280, 720, 0, -600),
        (760, 420, 55, 0),
        (760, 420, 55, -900),
    ):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.driver.execute_script(f"window.scrollTo(0, {scroll})")
        page.keys("0")
        if wheel_px:
            page.wheel(*DISC, wheel_px)
        assert page.state("window.scrollY") == scroll
        for pixel in (DISC, (DISC[0] + 7, DISC[1] - 9)):
            page.click(*pixel)
            expected.append([list(pixel)])
            points = page.wait(
                f"(masklet?.frames.get(0)?.prompts ?? []).length === {len(expected)} && "
                "masklet.frames.get(0).prompts.map((prompt) => prompt.points)"
            )
            assert points == expected, f"at {width}x{height}, scrolled by {scroll}, wheel {wheel_px}"
    metrics = {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.keys("0")
    page.keys(Keys.SHIFT + Keys.DELETE)
    page.wait("!masklet?.frames.get(0)")


def verify_and_export(page: Page, out: Path) -> None:
    """The selected object by keyboard, and the page of shortcuts on the way."""
    from selenium.webdriver.common.keys import Keys

    page.keys("v")
    page.wait("document.getElementById('verify').dataset.shown === state.selected", "the contact sheet")
    shoot(page, "4-verify")
    page.keys("a")
    page.wait("masklet.verdict === 'accepted'")
    page.keys("v")
    page.wait("state.mode === 'annotate'")
    page.keys("?")
    page.wait("document.getElementById('help').open && document.querySelectorAll('#shortcuts dt').length > 40")
    shoot(page, "5-help")
    page.keys(Keys.ESCAPE)
    page.wait("!document.getElementById('help').open")
    page.keys(Keys.CONTROL + "e")
    page.driver.find_element("css selector", "#export [name=out]").send_keys(str(out) + Keys.ENTER)
    page.wait("document.querySelector('#export .message').textContent.includes('exported to')")
    shoot(page, "6-export")
    assert any(out.rglob("*.json"))
    page.keys(Keys.ESCAPE)


def test_from_the_first_click_to_a_verified_export(page: Page, project_path: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    # Its mask is drawn, undone and made again.
    new_object(page)
    show_frame(page, 0)
    page.click(*DISC)
    page.wait("masklet?.frames.get(0)?.state === 'TRACKED'")
    page.wait("document.getElementById('layer-masks').dataset.masks > 0")
    assert page.mask_pixel(*DISC)[3] > 0 and page.mask_pixel(300, 20)[3] == 0
    shoot(page, "1-click")
    page.keys(Keys.CONTROL + "z")
    page.wait("!masklet?.frames.get(0)")
    assert page.mask_pixel(*DISC)[3] == 0
    page.keys(Keys.CONTROL + Keys.SHIFT + "z")
    page.wait("masklet.frames.get(0)")

    # Propagated through the clip; the disc is still the object at its end.
    page.keys("f")
    page.wait(f"masklet.frames.size === {FRAMES} && document.body.dataset.job === 'done'", "the propagation to end")
    show_frame(page, FRAMES - 1)
    page.wait("document.getElementById('layer-masks').dataset.frame === '9'")
    assert page.mask_pixel(round(WIDTH * 0.7), 120)[3] > 0
    assert page.driver.find_elements("css selector", "#rows .track canvas")
    shoot(page, "2-propagated")

    # Corrected: a click that is not on it, then the brush; the frame is locked, and takes no more clicks.
    show_frame(page, 5)
    page.right_click(20, 220)
    page.wait("masklet.frames.get(5).by === 'click' && masklet.frames.get(5).prompts[0].labels[0] === 0")
    page.keys("p")
    page.drag(20, 220, 60, 220)
    page.wait("masklet.frames.get(5).by === 'brush'")
    assert page.mask_pixel(40, 220)[3] > 0
    page.keys("e")
    page.drag(20, 220, 60, 220)
    page.wait("document.body.dataset.busy === '0'")
    page.keys("c", "l")
    page.wait("masklet.frames.get(5).locked")
    page.click(40, 220)
    page.wait("document.getElementById('messages').innerText.includes('locked')")
    shoot(page, "3-corrected")

    verify_and_export(page, tmp_path / "out ö")
    with Project.open(project_path, read_only=True) as project:
        accepted = [each for each in project.recording("disc").masklets.all() if each.verdict is Verdict.ACCEPTED]
        assert accepted and accepted[0].frames[5].source is MaskSource.BRUSH and accepted[0].frames[5].locked


def test_what_was_answered_is_there_when_the_page_is_opened_again(page: Page, address: str) -> None:
    new_object(page)
    expected = page.state("[...state.masklets.values()].map((each) => [each.name, each.verdict, each.frames.size])")
    page.driver.get(address)
    page.wait("document.body.dataset.ready === 'true'")
    assert (
        page.state("[...state.masklets.values()].map((each) => [each.name, each.verdict, each.frames.size])")
        == expected
    )


def test_a_box_by_mouse_a_click_by_keyboard_and_names(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    new_object(page)
    show_frame(page, 2)
    page.keys("b")
    page.drag(60, 80, 160, 170)
    box = page.wait("masklet.frames.get(2)?.prompts?.[0].box")
    assert np.abs(np.array(box) - (60.5, 80.5, 160.5, 170.5)).max() <= 1
    page.keys("c", Keys.CONTROL + Keys.ARROW_RIGHT, Keys.ENTER)
    page.wait("masklet.frames.get(2).prompts.length === 2")
    page.keys(Keys.F2, *"Teller", Keys.ENTER)
    page.wait("masklet.name === 'Teller'")
    assert page.driver.find_element("css selector", "#rows .selected .name").text == "Teller"
    page.keys("h")
    page.wait("masklet.hidden")
    page.keys("h", Keys.SHIFT + Keys.DELETE)
    page.wait("![...state.masklets.values()].some((each) => each.name === 'Teller')")


def test_an_outline_is_filled_and_a_frame_is_held_over_a_range(page: Page) -> None:
    new_object(page)
    show_frame(page, 3)
    page.keys("p")
    page.outline([(200, 40), (280, 40), (280, 100), (240, 60), (200, 100)])  # a roof
    page.wait("masklet.frames.get(3)?.by === 'brush'")
    inside, outside = ((210, 50), (270, 50), (240, 50), (205, 90), (275, 90)), ((240, 80), (190, 50), (290, 50))
    assert all(page.mask_pixel(*at)[3] for at in inside) and not any(page.mask_pixel(*at)[3] for at in outside)
    page.keys("e")
    page.outline([(195, 35), (240, 35), (240, 120), (195, 120)])
    page.wait("document.body.dataset.busy === '0'")
    assert not page.mask_pixel(210, 50)[3] and page.mask_pixel(270, 50)[3]

    page.keys("c", "g")
    page.wait("document.getElementById('messages').innerText.includes('with I and O')")
    page.keys("i")
    show_frame(page, 6)
    page.keys("o")
    show_frame(page, 3)
    page.keys("g")
    page.wait("[4, 5, 6].every((index) => masklet.frames.get(index)?.by === 'brush') && masklet.frames.size === 4")
    show_frame(page, 6)
    page.wait("document.getElementById('layer-masks').dataset.frame === '6'")
    assert page.mask_pixel(270, 50)[3]
    show_frame(page, 3)
    page.keys("i")
    show_frame(page, 6)
    page.keys("o")
    assert page.state("state.range") == [None, None]


def test_the_image_stays_where_it_is_when_an_object_is_added(page: Page) -> None:
    position = "window.sam2Annotate.screenPosition(0, 0)"
    before = page.state(position)
    for _ in range(3):
        new_object(page)
        page.wait("document.querySelectorAll('#rows .track').length === state.masklets.size")
        assert page.state(position) == before


def test_another_recording_has_its_own_objects(page: Page) -> None:
    new_object(page)
    page.driver.find_element("css selector", "#recording option[value=other]").click()
    page.wait("state.recording.id === 'other' && state.masklets.size === 0")
    page.driver.find_element("css selector", "#recording option[value=disc]").click()
    page.wait("state.recording.id === 'disc' && state.masklets.size > 0")


def test_nothing_is_cut_off_in_a_small_window(page: Page) -> None:
    overlapping = page.driver.execute_script(
        "return [...document.querySelectorAll('header *, aside *, #transport *')].filter((each) => {"
        "  const box = each.getBoundingClientRect();"
        "  return box.width && (box.right > innerWidth + 1 || box.bottom > innerHeight + 1);"
        "}).map((each) => each.outerHTML.slice(0, 80));"
    )
    assert overlapping == []
