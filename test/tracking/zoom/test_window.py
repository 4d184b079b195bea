"""Windows are about twice the object, inside the image, and still while the object only trembles."""

from __future__ import annotations

import itertools

import pytest

from sam2_ros.tracking.zoom.window import Window, WindowRules, next_window, place_window

HEIGHT, WIDTH = 100, 200
IMAGE = (HEIGHT, WIDTH)
MIDDLE = Window(80, 30, 120, 70, IMAGE)  # of an object of 20 px with its middle at (100, 50)


def box_round(x: float, y: float, width: float, height: float | None = None) -> tuple[float, float, float, float]:
    height = width if height is None else height
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


@pytest.mark.parametrize(
    ("box", "previous", "expected"),
    [
        pytest.param(box_round(100, 50, 20), None, (80, 30, 120, 70), id="twice the object"),
        pytest.param(box_round(100, 50, 20, 8), None, (80, 30, 120, 70), id="twice its longer side"),
        pytest.param(box_round(100, 50, 4), None, (91, 41, 109, 59), id="not smaller than 0.18 of the image"),
        pytest.param(box_round(10, 92, 20), None, (0, 60, 40, 100), id="moved into the image"),
        pytest.param(box_round(100, 50, 70), None, (30, 0, 170, 100), id="as high as the image has pixels"),
        pytest.param(box_round(100, 50, 101, 60), None, (0, 0, 200, 100), id="all of the image for a large object"),
        pytest.param(box_round(102, 48, 20), MIDDLE, (80, 30, 120, 70), id="still while the object trembles"),
        pytest.param(box_round(103, 50, 20), MIDDLE, (83, 30, 123, 70), id="moves where the object moves"),
        pytest.param(box_round(100, 50, 21.9), MIDDLE, (80, 30, 120, 70), id="as large while it is large enough"),
        pytest.param(box_round(100, 50, 30), MIDDLE, (70, 20, 130, 80), id="grows at once"),
        pytest.param(box_round(100, 50, 17), MIDDLE, (80, 30, 120, 70), id="as small while it is not far too large"),
        pytest.param(box_round(100, 50, 10), MIDDLE, (82, 32, 118, 68), id="shrinks slowly"),
        pytest.param((110, 45, 120, 55), MIDDLE, (85, 20, 145, 80), id="opens where it cuts the object"),
    ],
)
def test_where_the_object_is_looked_for_next(
    box: tuple[float, ...], previous: Window | None, expected: tuple[int, ...]
) -> None:
    window = next_window(box, IMAGE, previous)
    assert window.box_xyxy == expected
    assert window.is_whole == (expected == (0, 0, WIDTH, HEIGHT))


def test_an_object_at_the_image_edge_is_not_cut_by_its_window() -> None:
    corner = Window(0, 60, 40, 100, IMAGE)
    assert not corner.cuts((0, 80, 20, 100))
    assert corner.cuts((0, 60, 20, 80)) and corner.cuts((30, 80, 40, 100))


def test_a_shrunken_object_gets_its_window_after_some_frames() -> None:
    window, sides = MIDDLE, []
    for _ in range(20):
        window = next_window(box_round(100, 50, 10), IMAGE, window)
        sides.append(window.side)
    assert sides == sorted(sides, reverse=True)
    assert all(later >= 0.88 * side for side, later in itertools.pairwise(sides))
    assert 20 <= sides[-1] <= 25 and sides[-2] == sides[-1]


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (199, 99, 200, 100), (-30, 20, -10, 40), (0, 0, 200, 100), (3, 3, 3, 3)])
def test_it_is_never_empty_and_inside_the_image(box: tuple[float, ...]) -> None:
    for previous in (None, MIDDLE, Window(0, 0, 10, 10, IMAGE)):
        window = next_window(box, IMAGE, previous)
        assert Window.whole(IMAGE).contains(window.box_xyxy) and window.width >= 18 and window.height >= 18


@pytest.mark.parametrize("image_hw", [(1, 1), (3, 500), (7, 7)])
def test_tiny_images_are_looked_at_in_whole_height(image_hw: tuple[int, int]) -> None:
    window = place_window((1, 1), 1, image_hw)
    assert window.height == image_hw[0] and window.width == min(8, image_hw[1])


def test_the_zoom_can_be_another() -> None:
    assert next_window(box_round(100, 50, 20), IMAGE, None, WindowRules(zoom=3.0)).side == 60
