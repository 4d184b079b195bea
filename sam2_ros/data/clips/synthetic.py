"""Training clips made from photographs with instance masks: moving photographs and composites, some cut."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sam2_ros.data.clips.actors import Gap, draw_gap
from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.compose import composite_scene, empty_scene, moving_photo_scene
from sam2_ros.data.clips.images import draw_image
from sam2_ros.data.clips.models import ModelLibrary
from sam2_ros.data.clips.photometric import Look, apply_look, random_look
from sam2_ros.data.clips.photos import MIN_AREA_SHARE, PhotoLibrary
from sam2_ros.data.clips.scene import NOBODY, Rendered, Scene, render

_EMPTY_PROB = 0.3  # that the other scene of a cut is empty


@dataclass(frozen=True)
class _Cut:
    """Another scene that replaces the frames of a gap."""

    gap: Gap
    scene: Scene
    look: Look


_MAX_TRIES = 50


class SyntheticClips:
    """Makes a clip from a seed; the same seed, library and settings give the same clip."""

    def __init__(
        self,
        library: PhotoLibrary,
        size_px: int,
        num_frames: int,
        max_objects: int = 3,
        config: ClipConfig | None = None,
        models: ModelLibrary | None = None,
    ) -> None:
        """Keep the settings; nothing is drawn yet.

        Args:
            library: photographs to draw from.
            size_px: side S of the square frames.
            num_frames: T.
            max_objects: largest N.
            config: probabilities and ranges.
            models: modelled things to draw from, too.

        Raises:
            ValueError: a size or count is not positive.
        """
        if size_px < 16 or num_frames < 1 or max_objects < 1:
            raise ValueError(
                f"expected size_px >= 16, num_frames >= 1 and max_objects >= 1, "
                f"got {size_px}, {num_frames} and {max_objects}"
            )
        self._library, self._models = library, models
        self._size_px = size_px
        self._num_frames = num_frames
        self._max_objects = max_objects
        self._config = config or ClipConfig()
        # Clips are made in many processes at once; OpenCV's own threads would fight over the same cores.
        cv2.setNumThreads(1)

    def __call__(self, seed: int) -> Clip:
        """Make the clip of this seed.

        Targets visible in frame 0 come first; the others appear later. Where a target only shows a sliver in
        frame 0, it is treated as a distractor.

        Raises:
            RuntimeError: no clip with a visible target was found; the library's objects are unusable.
        """
        rng = np.random.default_rng(seed)
        # Decided once, so that rejected scenes do not change the shares.
        visible_at_start = rng.random() < self._config.visible_at_start_prob
        for _ in range(_MAX_TRIES):
            clip = self._draw(rng, visible_at_start)
            if clip is not None:
                return clip
        raise RuntimeError(
            f"no visible target in {_MAX_TRIES} scenes (seed {seed}); check that the masks mark objects of "
            f"{MIN_AREA_SHARE:.1%} to 70% of their photograph"
        )

    def _draw(self, rng: np.random.Generator, visible_at_start: bool) -> Clip | None:
        config = self._config
        if self._num_frames == 1:
            return draw_image(self._library, rng, self._size_px, self._max_objects, config, self._models)
        absence = rng.random() < config.absence_prob
        cut = self._cut(rng) if absence and rng.random() < config.cut_share else None
        sizes = (self._size_px, self._num_frames, self._max_objects)
        absence = absence and cut is None
        if rng.random() < config.moving_photo_prob:
            scene = moving_photo_scene(self._library, rng, *sizes, config, absence=absence)
        else:
            scene = composite_scene(self._library, rng, *sizes, config, absence=absence, models=self._models)
        return self._render(scene, cut, rng, visible_at_start)

    def _cut(self, rng: np.random.Generator) -> _Cut:
        """A scene without the targets: empty, another photograph, or other objects."""
        gap = draw_gap(rng, self._num_frames, self._config.return_prob)
        count = gap.end - gap.start
        if rng.random() < _EMPTY_PROB:
            scene = empty_scene(self._library, rng, self._size_px, count, self._config)
        else:
            make = moving_photo_scene if rng.random() < self._config.moving_photo_prob else composite_scene
            scene = make(self._library, rng, self._size_px, count, self._max_objects, self._config)
        return _Cut(gap, scene, random_look(rng, count, self._size_px))

    def _render(self, scene: Scene, cut: _Cut | None, rng: np.random.Generator, visible_at_start: bool) -> Clip | None:
        """Render the clip, or None where its targets do not show as they should."""
        size_px = self._size_px
        first = render(scene, 0, size_px)
        floor_px = MIN_AREA_SHARE * size_px**2
        at_start = {target: int((first.owner_hw == target).sum()) for target in scene.target_ids}
        if visible_at_start and max(at_start.values(), default=0) < floor_px:
            return None
        other = range(cut.gap.start, cut.gap.end) if cut else range(0)
        frames = [first]
        for t in range(1, self._num_frames):
            frames.append(_other_frame(cut, t, size_px) if cut and t in other else render(scene, t, size_px))
        owner_thw = np.stack([frame.owner_hw for frame in frames])
        shown = [target for target, area in at_start.items() if area >= floor_px]
        later = [
            target
            for target, area in at_start.items()
            if area == 0 and (owner_thw == target).sum(axis=(1, 2)).max() >= floor_px
        ]
        targets = (shown + later)[: self._max_objects]
        if not targets:
            return None
        look = random_look(rng, self._num_frames, size_px)
        images = [
            apply_look(cut.look, t - cut.gap.start, frame.image_hwc, rng)
            if cut and t in other
            else apply_look(look, t, frame.image_hwc, rng)
            for t, frame in enumerate(frames)
        ]
        masks = owner_thw[:, None] == np.array(targets, dtype=np.int16)[None, :, None, None]
        return Clip(np.stack(images), masks)


def _other_frame(cut: _Cut, t: int, size_px: int) -> Rendered:
    """Frame t of the clip, taken from the other scene; none of its objects is a target."""
    frame = render(cut.scene, t - cut.gap.start, size_px)
    return Rendered(frame.image_hwc, np.full_like(frame.owner_hw, NOBODY))
