"""Does a tracker know whether its object is there? And does a negative click remove the region that was clicked?

An object is prompted in the first frame of a scene. From then on every object-frame (one object in one frame) that
clearly shows the object, or clearly does not, is counted by the state that the tracker reports. Frames that show only a
sliver of the object are not counted.

Where a scene has true masks, a negative click is tried as well: in the middle of the largest region that the mask
wrongly includes. It is applied to the next frame, as a user's click on a live view is, and the clicked pixel must not
be in the mask there. The click is given to a copy of the tracker, so that it does not affect the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.prompt_sampling import Click, center_click
from sam2_ros.evaluation.trackers import VideoTracker, add_clicks, fork, mask_of
from sam2_ros.tracking.types import FrameResult, ObjectState

MIN_SHOWN_SHARE = 0.15  # of the object's area in the first frame: with less it is not counted as shown
MIN_WRONG_SHARE = 0.001  # of the image: a smaller region is not clicked
MIN_WRONG_DEPTH_PX = 3  # likewise: a thin rim is wrong by a pixel or two, not about what the object is
MAX_CLICKS = 3  # of an object in a scene
FRAMES_BETWEEN_CLICKS = 4


class Shown(enum.IntEnum):
    """Whether a frame shows an object."""

    NO = 0
    YES = 1
    HARDLY = 2  # not counted


@dataclass(frozen=True)
class FirstPrompt:
    """How an object is pointed at in the first frame: by exactly one of these."""

    click: Click | None = None
    box_xyxy: tuple[float, float, float, float] | None = None  # px
    mask: NDArray[np.bool_] | None = None  # (H, W)


@dataclass(frozen=True)
class PresenceScene:
    """T frames with N objects, whose presence is known."""

    kind: str
    name: str
    frames: Sequence[NDArray[np.uint8]]  # T of (H, W, 3) RGB
    prompts: tuple[FirstPrompt, ...]  # N, for the first frame
    shown_tn: NDArray[np.int8]  # (T, N) of Shown
    masks_tnhw: NDArray[np.bool_] | None = None  # (T, N, H, W) where they are known


@dataclass(frozen=True)
class PresenceCounts:
    """Object-frames and clicks, added up over scenes."""

    without: int = 0  # object-frames that do not show the object
    without_tracked: int = 0  # of these, called TRACKED
    shown: int = 0  # object-frames that show it
    shown_not_tracked: int = 0
    clicks: int = 0  # negative ones
    excluded: int = 0  # of these, whose pixel is not in the next mask
    regions: int = 0  # object-frames that show the object and have a true mask
    region_sum: float = 0.0  # J of these, added up

    def __add__(self, other: PresenceCounts) -> PresenceCounts:
        return PresenceCounts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def false_tracked(self) -> float | None:
        """Share of the object-frames without the object that are called TRACKED; None without any."""
        return self.without_tracked / self.without if self.without else None

    @property
    def false_absent(self) -> float | None:
        """Share of the object-frames with the object that are not called TRACKED; None without any."""
        return self.shown_not_tracked / self.shown if self.shown else None

    @property
    def region(self) -> float | None:
        """J where the object shows; None without true masks."""
        return self.region_sum / self.regions if self.regions else None

    @property
    def negative_excluded(self) -> float | None:
        """Share of the negative clicks whose pixel is out of the next mask; None without any."""
        return self.excluded / self.clicks if self.clicks else None


@dataclass
class _Tally:
    """Counts and clicks of one scene so far."""

    counts: PresenceCounts = field(default_factory=PresenceCounts)
    last_click: dict[int, int] = field(default_factory=dict)  # frame, by object
    num_clicks: dict[int, int] = field(default_factory=dict)  # by object


def shown_in_masks(masks_tnhw: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(T, N) of Shown, from (T, N, H, W) true masks of objects that the first frame shows."""
    areas_tn = masks_tnhw.sum(axis=(2, 3))
    enough_n = np.maximum(1, MIN_SHOWN_SHARE * areas_tn[0])
    return np.where(areas_tn == 0, Shown.NO, np.where(areas_tn >= enough_n, Shown.YES, Shown.HARDLY)).astype(np.int8)


def score_scene(tracker: VideoTracker, scene: PresenceScene) -> PresenceCounts:
    """Track a scene from its first frame to its last. The first frame, which has the prompts, is not counted."""
    tracker.reset()
    for number, prompt in enumerate(scene.prompts):
        _give(tracker, str(number), prompt)
    tally = _Tally()
    for t, image_rgb in enumerate(scene.frames):
        result = tracker.step(image_rgb)
        for number in range(len(scene.prompts)):
            if t > 0:
                tally.counts += _count_state(result, number, Shown(int(scene.shown_tn[t, number])))
            if scene.masks_tnhw is None:
                continue
            if t > 0 and scene.shown_tn[t, number] == Shown.YES:
                j = region_similarity(mask_of(str(number), result), scene.masks_tnhw[t, number])
                tally.counts += PresenceCounts(regions=1, region_sum=j)
            if t + 1 < len(scene.frames):
                tally.counts += _try_click(tracker, scene, t, number, result, tally)
    return tally.counts


def evaluate_presence(
    tracker: VideoTracker, scenes: Iterable[PresenceScene], progress: Callable[[str], None] | None = None
) -> dict[str, PresenceCounts]:
    """Counts by kind of scene, in the order in which the kinds come.

    Args:
        tracker: takes clicks, boxes and masks; it is reset before each scene.
        scenes: are taken one by one, so that they need not be in memory together.
        progress: called before each scene with its name.
    """
    table: dict[str, PresenceCounts] = {}
    for scene in scenes:
        if progress:
            progress(f"{scene.kind}, {scene.name}")
        table[scene.kind] = table.get(scene.kind, PresenceCounts()) + score_scene(tracker, scene)
    return table


def presence_report(table: Mapping[str, PresenceCounts], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as JSON: the settings, the shares over all scenes, and a row with shares and counts for each kind."""
    total = sum(table.values(), PresenceCounts())
    return {**settings, **_row(total), "kinds": {kind: _row(counts) for kind, counts in table.items()}}


def _row(counts: PresenceCounts) -> dict[str, Any]:
    def rounded(share: float | None) -> float | None:
        return None if share is None else round(share, 4)

    return {
        "false_tracked": rounded(counts.false_tracked),
        "false_absent": rounded(counts.false_absent),
        "negative_excluded": rounded(counts.negative_excluded),
        "J": rounded(counts.region),
        "frames_without": counts.without,
        "frames_with": counts.shown,
        "negative_clicks": counts.clicks,
    }


def _give(tracker: VideoTracker, object_id: str, prompt: FirstPrompt) -> None:
    if prompt.click is not None:
        add_clicks(tracker, object_id, [prompt.click])
    elif prompt.box_xyxy is not None:
        tracker.add_prompt(object_id, box=np.array(prompt.box_xyxy, np.float32))
    else:
        tracker.add_prompt(object_id, mask=prompt.mask)


def _count_state(result: FrameResult, number: int, shown: Shown) -> PresenceCounts:
    is_tracked = str(number) in result and result[str(number)].state == ObjectState.TRACKED
    if shown == Shown.NO:
        return PresenceCounts(without=1, without_tracked=int(is_tracked))
    if shown == Shown.YES:
        return PresenceCounts(shown=1, shown_not_tracked=int(not is_tracked))
    return PresenceCounts()


def _try_click(
    tracker: VideoTracker, scene: PresenceScene, t: int, number: int, result: FrameResult, tally: _Tally
) -> PresenceCounts:
    """Give a negative click on a region that the mask of frame ``t`` wrongly includes; count by the next frame."""
    assert scene.masks_tnhw is not None
    is_too_soon = t - tally.last_click.get(number, -FRAMES_BETWEEN_CLICKS) < FRAMES_BETWEEN_CLICKS
    if is_too_soon or tally.num_clicks.get(number, 0) >= MAX_CLICKS:
        return PresenceCounts()
    click = _click_on_wrong(mask_of(str(number), result), scene.masks_tnhw[t, number])
    if click is None or scene.masks_tnhw[t + 1, number, int(click.y), int(click.x)]:
        return PresenceCounts()  # nothing is wrong, or the object moves to where the click is
    tally.last_click[number] = t
    tally.num_clicks[number] = tally.num_clicks.get(number, 0) + 1
    copy = fork(tracker)
    add_clicks(copy, str(number), [click])
    after = mask_of(str(number), copy.step(scene.frames[t + 1]))
    return PresenceCounts(clicks=1, excluded=int(not after[int(click.y), int(click.x)]))


def _click_on_wrong(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Click | None:
    """A negative click in the middle of the largest connected region that is wrongly included, if any is large."""
    surplus = (predicted & ~truth).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(surplus)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    region = labels == largest
    click = center_click(region)
    depth_px = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 5).max()
    if stats[largest, cv2.CC_STAT_AREA] < MIN_WRONG_SHARE * region.size or depth_px < MIN_WRONG_DEPTH_PX:
        return None
    return Click(click.x, click.y, 0)
