"""Scenes in which objects are hidden, leave, or are gone after a cut: what ``sam2-ros eval presence`` measures on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.clip import MIN_FIRST_AREA_PX, Clip
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.photos import PhotoLibrary
from sam2_ros.data.clips.synthetic import SyntheticClips
from sam2_ros.data.files.video import open_source
from sam2_ros.demo.tabletop import Tabletop
from sam2_ros.evaluation.limit_clips import limit_clip
from sam2_ros.evaluation.presence import FirstPrompt, PresenceScene, Shown, shown_in_masks
from sam2_ros.evaluation.prompt_sampling import Click, center_click

FRAMES_BEFORE, FRAMES_AWAY, FRAMES_BACK = 8, 20, 6
_BACK_UNCOUNTED = 2  # frames after the cut back that are not counted: finding the object again may take one or two
_TAKEN_EVERY = 2  # every second frame of a real clip is used
_SIZE_PX = 320  # of drawn scenes
_SYNTHETIC_FRAMES, _SYNTHETIC_OBJECTS = 16, 3
_SYNTHETIC = ClipConfig(visible_at_start_prob=1.0, absence_prob=0.5)
_CUT_SEED = 10_000  # offset of the seeds of clips with cuts, which are to differ from those without
_TABLETOP_HZ, _TABLETOP_FRAMES = 30.0, range(84, 140)  # the ball is hidden from the middle of these on, and comes back


@dataclass(frozen=True)
class _Pointed:
    """A thing in the first frame of a real clip, in shares of its width and height."""

    click_xy: tuple[float, float] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None

    def prompt(self, image_rgb: NDArray[np.uint8]) -> FirstPrompt:
        height, width = image_rgb.shape[:2]
        if self.click_xy is not None:
            return FirstPrompt(click=Click(self.click_xy[0] * width, self.click_xy[1] * height, 1))
        assert self.box_xyxy is not None
        x0, y0, x1, y1 = self.box_xyxy
        return FirstPrompt(box_xyxy=(x0 * width, y0 * height, x1 * width, y1 * height))


# Things that are visible in all frames before the cut.
REAL_CLIPS: Mapping[str, tuple[_Pointed, ...]] = {
    "02_cups": (_Pointed(click_xy=(0.512, 0.583)), _Pointed(click_xy=(0.716, 0.583))),
    "03_blocks": (_Pointed(click_xy=(0.456, 0.70)), _Pointed(click_xy=(0.56, 0.82))),
    "16_robotarm": (_Pointed(box_xyxy=(0.216, 0.178, 0.622, 0.624)),),
    "bedroom": (
        _Pointed(box_xyxy=(0.328, 0.034, 0.537, 0.73)),
        _Pointed(box_xyxy=(0.15, 0.24, 0.309, 0.755)),
        _Pointed(box_xyxy=(0.564, 0.532, 0.71, 0.79)),
    ),
}


def hidden_ball_scenes(seeds: range = range(7, 9)) -> Iterator[PresenceScene]:
    """The rendered tabletop while something passes in front of the ball; every object is clicked."""
    for seed in seeds:
        table = Tabletop(height_px=240, width_px=_SIZE_PX, rate_hz=_TABLETOP_HZ, seed=seed)
        frames = [table.render(index) for index in _TABLETOP_FRAMES]
        ids_thw = np.stack([frame.ids for frame in frames])
        masks = ids_thw[:, None] == np.arange(1, len(table.names) + 1)[:, None, None]
        prompts = tuple(FirstPrompt(click=center_click(mask)) for mask in masks[0])
        images = [frame.image_rgb for frame in frames]
        yield PresenceScene("hidden ball", f"seed {seed}", images, prompts, shown_in_masks(masks), masks)


def cut_scenes(folder: Path) -> Iterator[PresenceScene]:
    """Real clips, each cut to the next one and back.

    Args:
        folder: with the four clips of ``REAL_CLIPS`` as ``NAME.mp4``.

    Raises:
        SourceError: a clip is not there or cannot be read.
    """
    names = list(REAL_CLIPS)
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        own = _frames(folder / f"{name}.mp4", FRAMES_BEFORE + FRAMES_BACK)
        elsewhere = _frames(folder / f"{other}.mp4", FRAMES_AWAY)
        prompts = tuple(pointed.prompt(own[0]) for pointed in REAL_CLIPS[name])
        # All frames are brought to one size, as those of one camera have.
        size_wh = (own[0].shape[1], own[0].shape[0])
        elsewhere = [np.asarray(cv2.resize(frame, size_wh, interpolation=cv2.INTER_AREA)) for frame in elsewhere]
        yield _away_and_back("cut", f"{name} to {other}", own, elsewhere, prompts)


def plain_scenes(seeds: range = range(4)) -> Iterator[PresenceScene]:
    """Drawn things, then nothing but sky, a wall, a patterned ground or darkness, and the things again."""
    for seed in seeds:
        clip = limit_clip("plain", seed)
        own = list(clip.images_thwc[: FRAMES_BEFORE + FRAMES_BACK])
        for kind in ("sky", "wall", "ground", "dark"):
            prompts = tuple(FirstPrompt(click=center_click(mask)) for mask in clip.masks_tnhw[0])
            empty = _empty_frames(kind, np.random.default_rng((seed, 3)))
            yield _away_and_back("plain scene", f"{kind}, seed {seed}", own, empty, prompts)


def synthetic_scenes(library: PhotoLibrary, count: int) -> Iterator[PresenceScene]:
    """Training clips of photographs, with true masks: things that leave, are hidden, cross, and stay."""
    clips = SyntheticClips(library, _SIZE_PX, _SYNTHETIC_FRAMES, _SYNTHETIC_OBJECTS, _SYNTHETIC)
    for seed in range(count):
        scene = masked_scene("synthetic", f"seed {seed}", clips(seed))
        if scene is not None:
            yield scene


def synthetic_cut_scenes(library: PhotoLibrary, count: int) -> Iterator[PresenceScene]:
    """Training clips of photographs, each cut to another one in its middle."""
    clips = SyntheticClips(library, _SIZE_PX, _SYNTHETIC_FRAMES, _SYNTHETIC_OBJECTS, _SYNTHETIC)
    half = _SYNTHETIC_FRAMES // 2
    for seed in range(count):
        own, other = clips(_CUT_SEED + 2 * seed), clips(_CUT_SEED + 2 * seed + 1)
        images = np.concatenate((own.images_thwc[:half], other.images_thwc[half:]))
        masks = own.masks_tnhw.copy()
        masks[half:] = False
        scene = masked_scene("synthetic cut", f"seed {seed}", Clip(images, masks))
        if scene is not None:
            yield scene


def masked_scene(kind: str, name: str, clip: Clip) -> PresenceScene | None:
    """A scene of the objects visible in a clip's first frame, each prompted with its mask; None without any."""
    visible = np.flatnonzero(clip.masks_tnhw[0].sum(axis=(1, 2)) >= 4 * MIN_FIRST_AREA_PX)
    if not len(visible):
        return None
    masks = clip.masks_tnhw[:, visible]
    prompts = tuple(FirstPrompt(mask=mask) for mask in masks[0])
    return PresenceScene(kind, name, list(clip.images_thwc), prompts, shown_in_masks(masks), masks)


def _away_and_back(
    kind: str,
    name: str,
    own: Sequence[NDArray[np.uint8]],
    elsewhere: Sequence[NDArray[np.uint8]],
    prompts: tuple[FirstPrompt, ...],
) -> PresenceScene:
    before, back = own[:FRAMES_BEFORE], own[FRAMES_BEFORE:]
    shown = [Shown.YES] * len(before) + [Shown.NO] * len(elsewhere)
    shown += [Shown.HARDLY] * _BACK_UNCOUNTED + [Shown.YES] * (len(back) - _BACK_UNCOUNTED)
    shown_tn = np.repeat(np.array(shown, np.int8)[:, None], len(prompts), axis=1)
    return PresenceScene(kind, name, [*before, *elsewhere, *back], prompts, shown_tn)


def _frames(path: Path, count: int) -> list[NDArray[np.uint8]]:
    frames = []
    with open_source(path) as source:
        for index, image_rgb in enumerate(source):
            if index % _TAKEN_EVERY == 0:
                frames.append(image_rgb)
            if len(frames) == count:
                break
    return frames


def _empty_frames(kind: str, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """FRAMES_AWAY frames in which there is nothing to follow; the view drifts, and every frame has its own noise."""
    height = _SIZE_PX + 2 * FRAMES_AWAY
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    if kind == "sky":
        picture = (1 - down) * np.array((70, 120, 200), np.float32) + down * np.array((190, 210, 230), np.float32)
    elif kind == "wall":
        picture = rng.uniform(90, 220, 3).astype(np.float32) * (1 - 0.15 * down)
    elif kind == "ground":
        picture = np.full((height, 1, 3), rng.uniform(60, 150, 3), np.float32)
    else:
        picture = np.full((height, 1, 3), 4, np.float32)
    picture = np.repeat(picture, _SIZE_PX, axis=1)
    if kind == "ground":
        grain = rng.normal(0, 14, (height // 4, _SIZE_PX // 4, 3)).astype(np.float32)
        picture = picture + cv2.resize(grain, (_SIZE_PX, height), interpolation=cv2.INTER_CUBIC)
    frames = []
    for t in range(FRAMES_AWAY):
        view = picture[2 * t : 2 * t + _SIZE_PX]
        frames.append(np.clip(view + rng.normal(0, 2.5, view.shape), 0, 255).astype(np.uint8))
    return frames
