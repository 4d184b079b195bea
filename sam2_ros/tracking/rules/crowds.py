"""Crowds: two objects with one mask (SAM2MOT, SAM 3). The object that was hidden more recently gives it up.

An object that goes behind a similar one tends to be found on the one in front: both then have the same mask, and the
hidden one's memories of these frames show the other one. Instead it yields: it has no mask and no memory of this frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from sam2_ros.tracking.rules.sightings import Sighting, overlap

SAME_IOU = 0.7  # from this intersection over union on, two masks are taken for one


def yielding(sightings: Mapping[str, Sighting]) -> set[str]:
    """The objects that lose their masks in this frame; masks that overlap most are settled first."""
    areas = {object_id: int(seen.mask_hw.sum()) for object_id, seen in sightings.items()}
    visible = [object_id for object_id, area in areas.items() if area]
    pairs = []
    for one, other in itertools.combinations(visible, 2):
        least, most = sorted((areas[one], areas[other]))
        if least < SAME_IOU * most:  # cannot overlap enough: spares counting
            continue
        iou = overlap(sightings[one].mask_hw, sightings[other].mask_hw)
        if iou >= SAME_IOU:
            pairs.append((iou, one, other))
    gone: set[str] = set()
    for _, one, other in sorted(pairs, reverse=True):
        if not gone & {one, other}:
            last = max(one, other, key=lambda object_id: sightings[object_id].rank)
            if not sightings[last].is_prompted:
                gone.add(last)
    return gone
