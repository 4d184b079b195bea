"""The newest image: every object is followed into it, and the prompts that wait are applied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_ros.model.sam2 import MaskPrediction
from sam2_ros.tracking.engine import Advanced, Engine
from sam2_ros.tracking.frame_buffer import PastFrame
from sam2_ros.tracking.prompts import check_fits
from sam2_ros.tracking.propagation import AheadImage, Frame, RawFrame, encode
from sam2_ros.tracking.state import StreamState
from sam2_ros.tracking.types import PromptError


def drop_misfits(state: StreamState, height: int, width: int) -> None:
    """Drop waiting prompts that do not fit this image, and new objects that had nothing else."""
    for object_id, given in list(state.waiting.items()):
        try:
            for each in given:
                check_fits(each.prompt, height, width)
        except PromptError as error:
            _drop_prompts(state, object_id, str(error))


def advance_live(
    engine: Engine,
    state: StreamState,
    image: NDArray[np.uint8] | AheadImage,
    stamp_s: float | None,
    buffer_frames: int,
) -> dict[str, MaskPrediction]:
    """Take the objects into the next frame and remember it; the predictions by object.

    A new object that is still being brought up to now from a past frame has nothing to be followed by: it has no
    prediction, and its prompts for this frame wait in the buffer until it arrives here.
    """
    index = state.next_frame
    frame: Frame | RawFrame = image.as_frame(index) if isinstance(image, AheadImage) else RawFrame(index, image)
    before = dict(state.tracks)
    tracks = [track for track in before.values() if track.has_memory or track.object_id not in state.replays]
    advanced = Advanced({}, {}, {})
    if tracks:
        frame = encode(engine.model, frame) if isinstance(frame, RawFrame) else frame
        ids = {track.object_id for track in tracks}
        prompts = {object_id: given for object_id, given in state.waiting.items() if object_id in ids}
        advanced = engine.advance(frame, tracks, prompts)
    elif buffer_frames and isinstance(frame, RawFrame):
        frame = RawFrame(frame.index, frame.image_rgb.copy())  # the caller may use its array again
    for object_id, why in advanced.failed.items():
        _drop_prompts(state, object_id, why)
    state.tracks.update(advanced.tracks)
    kept = {object_id: track for object_id, track in before.items() if object_id in state.tracks}
    state.next_frame += 1
    state.keep(PastFrame(frame, stamp_s, kept, state.waiting, state.cleared), buffer_frames)
    state.waiting, state.cleared = {}, {}
    state.frame_size, state.latest_s = (frame.height, frame.width), stamp_s
    return advanced.predictions


def _drop_prompts(state: StreamState, object_id: str, why: str) -> None:
    """Tell it with the result. A new object that had nothing else is gone."""
    state.rejected += ((object_id, why),)
    del state.waiting[object_id]
    if not state.tracks[object_id].has_memory and object_id not in state.replays:
        state.forget([object_id])
