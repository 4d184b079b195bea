"""The annotation page in a real browser: Debian's chromium, headless, driven by selenium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


def missing() -> str:
    """What is missing for a browser, and how to get it; empty if nothing is."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: pip install selenium"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install chromium chromium-driver (then: make browser)"
    return ""


@contextmanager
def annotating(project: Path, *options: str) -> Iterator[str]:
    """``sam2-ros annotate`` as a process of its own; gives the page's address."""
    command = [sys.executable, "-m", "sam2_ros.cli", "annotate", str(project), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            timer = threading.Timer(DEADLINE_S, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            assert line.startswith("Annotate at http://"), f"sam2-ros annotate said {line!r}"
            yield line.split()[-1]
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


class Page:
    """The page, as a person would use it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def state(self, expression: str) -> Any:
        """What a JavaScript expression gives, with ``state`` and ``masklet`` (the selected one) at hand."""
        at_hand = "const {state} = window.sam2Annotate; const masklet = state.masklets.get(state.selected);"
        return self.driver.execute_script(f"{at_hand} return {expression};")

    def wait(self, expression: str, what: str = "") -> Any:
        """Wait until an expression is true, and the page has nothing left to do."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with suppress(Exception):  # the page may not be there yet
                if value := self.state(expression):
                    return value
            time.sleep(0.02)
        messages = self.driver.execute_script("return document.getElementById('messages').innerText")
        raise AssertionError(f"waited {DEADLINE_S:.0f} s for {what or expression}; the page says {messages!r}")

    def pointer(self, x: int, y: int, act: Callable[[Any], Any]) -> None:
        """Move the real pointer to a source pixel and act there: ``act(actions)``."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver, duration=0)
        self._move(actions, x, y)
        act(actions)
        actions.perform()

    def _move(self, actions: Any, x: int, y: int) -> None:
        left, top = self.driver.execute_script(f"return window.sam2Annotate.screenPosition({x}, {y})")
        actions.w3c_actions.pointer_action.move_to_location(round(left), round(top))

    def click(self, x: int, y: int) -> None:
        """Left click on a source pixel."""
        self.pointer(x, y, lambda actions: actions.click())

    def right_click(self, x: int, y: int) -> None:
        self.pointer(x, y, lambda actions: actions.context_click())

    def drag(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Drag from one source pixel to another."""

        def act(actions: Any) -> None:
            actions.click_and_hold()
            self._move(actions, (x0 + x1) // 2, (y0 + y1) // 2)
            self._move(actions, x1, y1)
            actions.release()

        self.pointer(x0, y0, act)

    def outline(self, points: Sequence[tuple[int, int]]) -> None:
        """Drag with Shift from source pixel to source pixel, and back to the first."""
        from selenium.webdriver.common.keys import Keys

        def act(actions: Any) -> None:
            actions.key_down(Keys.SHIFT).click_and_hold()
            for x, y in (*points[1:], points[0]):
                self._move(actions, x, y)
            actions.release().key_up(Keys.SHIFT)

        self.pointer(*points[0], act)

    def wheel(self, x: int, y: int, delta_px: int) -> None:
        """Turn the wheel at a source pixel; up, to zoom in, is negative."""
        from selenium.webdriver.common.action_chains import ActionChains, ScrollOrigin

        left, top = self.driver.execute_script(f"return window.sam2Annotate.screenPosition({x}, {y})")
        origin = ScrollOrigin.from_viewport(round(left), round(top))
        ActionChains(self.driver, duration=0).scroll_from_origin(origin, 0, delta_px).perform()

    def keys(self, *keys: str) -> None:
        """Press keys, or chords such as Keys.SHIFT + "f"."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver, duration=0)
        for key in keys:
            for held in key[:-1]:
                actions.key_down(held)
            actions.send_keys(key[-1])
            for held in key[:-1]:
                actions.key_up(held)
        actions.perform()

    def press(self, command: str) -> None:
        """Press the button of a command."""
        self.driver.find_element("css selector", f"[data-command={command}]").click()

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))

    def mask_pixel(self, x: int, y: int) -> list[int]:
        """RGBA of the drawn masks at a source pixel."""
        left, top = self.driver.execute_script(f"return window.sam2Annotate.screenPosition({x}, {y})")
        return self.driver.execute_script(
            "const layer = document.getElementById('layer-masks'), rect = layer.getBoundingClientRect();"
            "const x = (arguments[0] - rect.left) / rect.width * layer.width;"
            "const y = (arguments[1] - rect.top) / rect.height * layer.height;"
            "return [...layer.getContext('2d').getImageData(Math.floor(x), Math.floor(y), 1, 1).data];",
            left,
            top,
        )


@contextmanager
def browsing(address: str, width: int = 1280, height: int = 720) -> Iterator[Page]:
    """The page at an address in a browser of its own, ready to use."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        os.environ.setdefault("SE_AVOID_STATS", "true")  # selenium would report its use to its makers
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
            )
            driver.get(address)
            page = Page(driver)
            page.wait("document.body.dataset.ready === 'true'", "the page to start")
            yield page
        finally:
            driver.quit()
