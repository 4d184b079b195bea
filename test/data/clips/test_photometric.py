"""Looks change exposure and colours; both were once removed without a test that noticed."""

from __future__ import annotations

import numpy as np

from sam2_ros.data.clips.photometric import Look, apply_look, random_look

SIZE_PX = 16


def looks(count: int = 200) -> list[Look]:
    return [random_look(np.random.default_rng(seed), 2, SIZE_PX) for seed in range(count)]


def test_exposure_differs_between_clips_and_within_them() -> None:
    """Black and white of the tone curve give contrast and exposure where neither is clipped."""
    exposures = []
    for look in looks(600):
        black_t, white_t = look.tone_t256[:, 0] / 255, look.tone_t256[:, 255] / 255
        if (black_t > 0.02).all() and (white_t < 0.995).all():
            contrast_t = (0.5 - black_t) / 0.5
            exposures.append(np.log((white_t - 0.5) / contrast_t + 0.5))
    assert len(exposures) > 30
    assert np.std([exposure_t[0] for exposure_t in exposures]) > 0.03
    assert np.mean([abs(exposure_t[1] - exposure_t[0]) for exposure_t in exposures]) > 0.01


def test_colours_are_mixed_before_the_tone_curve() -> None:
    image = np.full((SIZE_PX, SIZE_PX, 3), (200, 120, 60), np.uint8)
    shifts = []
    for look in looks():
        if look.noise_hwc is None and look.jpeg_quality is None:
            shown = apply_look(look, 0, image, np.random.default_rng(0))[8, 8].astype(int)
            unmixed = look.tone_t256[0][image[8, 8]].astype(int)
            shifts.append(np.abs(shown - unmixed).max())
    assert len(shifts) > 50
    assert np.mean(np.array(shifts) >= 4) > 0.5
