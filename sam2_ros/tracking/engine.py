"""One frame for some objects: the same for the newest image and for a past one that is gone through again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.memory_tokens import FrameMemory
from sam2_ros.tracking.prompts import GivenPrompt, since_replaced
from sam2_ros.tracking.propagation import Frame, encode_memories, follow, segment_prompted
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.types import PromptAction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Advanced:
    """What one frame gave."""

    tracks: dict[str, Track]  # with this frame remembered; without new objects whose prompts failed
    predictions: dict[str, MaskPrediction]  # of these
    failed: dict[str, str]  # object id -> why its prompts for this frame could not be applied


@dataclass(frozen=True)
class Engine:
    """The network and the rules of one tracker; keeps nothing between frames."""

    model: SAM2
    policy: BankPolicy
    lost_after_frames: int
    corrections_are_conditioning: bool
    recover_after_frames: int = 1

    def advance(
        self, frame: Frame, tracks: Sequence[Track], prompts: Mapping[str, tuple[GivenPrompt, ...]]
    ) -> Advanced:
        """Follow the objects into this frame, then apply their prompts.

        A prompt that the model cannot take is left out, and the object goes on as without it. What fails for objects
        that were not prompted is an error of the whole frame.

        Args:
            frame: later than all that the tracks remember.
            tracks: as of before this frame; not written to. Those without a memory must have a prompt.
            prompts: for this frame, by object.
        """
        predictions = follow(self.model, frame, [t for t in tracks if t.has_memory], self.policy)
        memories: dict[str, FrameMemory] = {}
        applied: dict[str, Sequence[GivenPrompt]] = {}
        failed: dict[str, str] = {}
        for track in tracks:
            object_id = track.object_id
            given = since_replaced(prompts.get(object_id, ()))
            if not given:
                continue
            followed = None if _replaces(given) else predictions.get(object_id)
            try:
                prediction, memory = segment_prompted(self.model, frame, track, given, self.policy, followed)
            except Exception as error:  # whatever the model makes of a prompt: it must not stop the stream
                logger.warning("the prompt for %s could not be applied", object_id, exc_info=True)
                failed[object_id] = f"the model could not apply the prompt: {type(error).__name__}: {error}"
                continue
            predictions[object_id], memories[object_id], applied[object_id] = prediction, memory, given
        memories |= encode_memories(self.model, frame, {i: p for i, p in predictions.items() if i not in memories})
        after = {}
        for track in tracks:
            if track.object_id in predictions:
                given = applied.get(track.object_id, ())
                updated = Track(track.object_id, track.label) if _replaces(given) else track.copy()
                # A correction passes like a tracked frame, as in the official code; a new object or given mask stays.
                is_anchor = not updated.has_memory or any(each.prompt.mask is not None for each in given)
                is_anchor |= bool(given) and self.corrections_are_conditioning
                updated.remember(self.policy, frame.index, memories[track.object_id], is_anchor)
                visible = bool(predictions[track.object_id].object_score_logits_b1 > 0)
                recover_after = 1 if given else self.recover_after_frames  # a user who points at it knows
                updated.update_state(frame.index, visible, self.lost_after_frames, recover_after)
                after[track.object_id] = updated
        return Advanced(after, predictions, failed)


def _replaces(given: Sequence[GivenPrompt]) -> bool:
    return bool(given) and given[0].action is PromptAction.REPLACE
