"""Training clips made from photographs with instance masks: moving photographs and composites of cut-outs."""

from __future__ import annotations

import cv2
import numpy as np

from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.clips.compose import ClipConfig, composite_scene, moving_photo_scene
from sam2_ros.data.clips.photometric import apply_look, random_look
from sam2_ros.data.clips.photos import MIN_AREA_SHARE, PhotoLibrary
from sam2_ros.data.clips.scene import Scene, render

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
    ) -> None:
        """Keep the settings; nothing is drawn yet.

        Args:
            library: photographs to draw from.
            size_px: side S of the square frames.
            num_frames: T.
            max_objects: largest N.
            config: probabilities and ranges.

        Raises:
            ValueError: a size or count is not positive.
        """
        if size_px < 16 or num_frames < 1 or max_objects < 1:
            raise ValueError(
                f"expected size_px >= 16, num_frames >= 1 and max_objects >= 1, "
                f"got {size_px}, {num_frames} and {max_objects}"
            )
        self._library = library
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
        # Decided once, so that rejected scenes do not change the share of clips without a target at the start.
        visible_at_start = rng.random() < self._config.visible_at_start_prob
        for _ in range(_MAX_TRIES):
            scene = self._scene(rng)
            clip = self._render(scene, rng, visible_at_start)
            if clip is not None:
                return clip
        raise RuntimeError(
            f"no visible target in {_MAX_TRIES} scenes (seed {seed}); check that the masks mark objects of "
            f"{MIN_AREA_SHARE:.1%} to 70% of their photograph"
        )

    def _scene(self, rng: np.random.Generator) -> Scene:
        make = moving_photo_scene if rng.random() < self._config.moving_photo_prob else composite_scene
        return make(self._library, rng, self._size_px, self._num_frames, self._max_objects, self._config)

    def _render(self, scene: Scene, rng: np.random.Generator, visible_at_start: bool) -> Clip | None:
        """Render the clip, or None where its targets do not show as they should."""
        first = render(scene, 0, self._size_px)
        floor_px = MIN_AREA_SHARE * self._size_px**2
        at_start = {target: int((first.owner_hw == target).sum()) for target in scene.target_ids}
        if visible_at_start and max(at_start.values(), default=0) < floor_px:
            return None
        frames = [first, *(render(scene, t, self._size_px) for t in range(1, self._num_frames))]
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
        look = random_look(rng, self._num_frames, self._size_px)
        images = np.stack([apply_look(look, t, frame.image_hwc, rng) for t, frame in enumerate(frames)])
        masks = owner_thw[:, None] == np.array(targets, dtype=np.int16)[None, :, None, None]
        return Clip(images, masks)
