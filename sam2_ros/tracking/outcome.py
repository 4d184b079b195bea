"""What the network says of one encoded image, and what comes of a frame: the values that ``propagation`` works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_ros.model.sam2 import MaskPrediction
from sam2_ros.tracking.memory_bank import FrameMemory
from sam2_ros.tracking.prediction import is_visible, looks_of, shown_mask
from sam2_ros.tracking.prompts import AcceptedPrompt
from sam2_ros.tracking.rules.lookalikes import Pair
from sam2_ros.tracking.rules.sightings import Place, Sighting, in_whole_image, place_of
from sam2_ros.tracking.state import Frame, Track
from sam2_ros.tracking.types import ObjectState
from sam2_ros.tracking.zoom.window import Window


@dataclass(frozen=True)
class View:
    """What the network sees in one encoded image, or part of one, before anything is made of it."""

    frame: Frame
    tracks: tuple[Track, ...]  # that have a prediction, as of before this frame
    predictions: Mapping[str, MaskPrediction]
    memories: Mapping[str, FrameMemory]  # of the objects with prompts
    applied: Mapping[str, Sequence[AcceptedPrompt]]  # likewise
    failed: Mapping[str, str]  # object id -> reason why its prompts for this frame could not be applied

    def shows(self, object_id: str, found: MaskPrediction, above_logit: float) -> bool:
        """Whether an object is visible here; what a user has just prompted is, however unsure the network is.

        Args:
            object_id: of one of ``tracks``.
            found: what is taken for it: its prediction, or an absence where a rule takes its mask away.
            above_logit: the model's ``visible_above_logit``.
        """
        return is_visible(found, *self.frame.encoded_hw, 0.0 if self.applied.get(object_id) else above_logit)

    def sightings(self, number: int, zoom: bool, above_logit: float | None) -> dict[str, Sighting]:
        """What the rules about several objects decide by.

        Args:
            number: of this view in its frame.
            zoom: masks of different windows must be comparable.
            above_logit: the model's ``visible_above_logit``, for the places of objects; None: they are not needed.
        """
        masks = {i: shown_mask(found) for i, found in self.predictions.items()}
        if zoom:
            masks = {i: in_whole_image(mask_hw, self.frame.window) for i, mask_hw in masks.items()}
        places = {} if above_logit is None else self._places(masks, above_logit)
        return {
            track.object_id: Sighting(
                masks[track.object_id],
                track.hidden_frame,
                float(self.predictions[track.object_id].iou_b),
                track.label,
                track.object_id in self.applied,
                places.get(track.object_id),
                number,
            )
            for track in self.tracks
        }

    def _places(self, masks: Mapping[str, NDArray[np.bool_]], above_logit: float) -> dict[str, Place]:
        """Where the visible objects are."""
        seen = [i for i, mask_hw in masks.items() if mask_hw.any() and self.shows(i, self.predictions[i], above_logit)]
        if not seen:
            return {}
        looks_bc = looks_of(self.frame.features, torch.cat([self.predictions[i].logits_b1hw for i in seen]))
        return {i: place_of(masks[i], self.frame.size_hw, look_c) for i, look_c in zip(seen, looks_bc, strict=True)}

    def with_exchanged(self, one: str, other: str) -> View:
        """What it would be if the network had not taken each of two look-alikes for the other.

        Each gets all that the network remembers of the other, prompts included: these look the same, and without them
        the place in the first frame would draw each back to the other's side.
        """
        partner = {one: other, other: one}
        by_id = {track.object_id: track for track in self.tracks}
        return replace(
            self,
            tracks=tuple(t.with_memory_of(by_id[partner.get(t.object_id, t.object_id)]) for t in self.tracks),
            predictions={i: self.predictions[partner.get(i, i)] for i in self.predictions},
        )


@dataclass(frozen=True)
class Advanced:
    """The outcome of one frame."""

    tracks: dict[str, Track]  # with the memory of this frame; without new objects whose prompts failed
    predictions: dict[str, MaskPrediction]  # of the same objects
    failed: dict[str, str]  # object id -> reason why its prompts for this frame could not be applied
    windows: dict[str, Window]  # that objects were seen through; the others were seen in the whole image
    sightings: dict[str, Sighting] = field(default_factory=dict)  # with ``crowd_suppression``
    doubted: dict[str, str] = field(default_factory=dict)  # object ids, and the look-alike that each may be
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)  # with ``lookalike_doubt``

    @property
    def shows_all(self) -> bool:
        return bool(self.tracks) and all(track.state is ObjectState.TRACKED for track in self.tracks.values())

    def and_also(self, others: Advanced) -> Advanced:
        """Both outcomes combined; for an object that is in both, that of ``others``."""
        return Advanced(*({**getattr(self, f.name), **getattr(others, f.name)} for f in fields(self)))


NOTHING_ADVANCED = Advanced({}, {}, {}, {})
