"""One frame of the stream for all objects: each in its window or in the whole image, and what it changes in the state.

The same code serves the newest frame (``propagate``) and past frames that are replayed (``replay.catch_up``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_ros.tracking.frames import Frame, InputFrame, PrefetchedImage, RawFrame, When
from sam2_ros.tracking.prompts import AcceptedPrompt, since_replaced
from sam2_ros.tracking.propagation import NOTHING_ADVANCED, Advanced, Engine, View, encode, input_of, replaces
from sam2_ros.tracking.rules.crowds import Sighting, yielding
from sam2_ros.tracking.state import PastFrame, StreamState, Track
from sam2_ros.tracking.types import Scene
from sam2_ros.tracking.zoom.views import window_in_frame
from sam2_ros.tracking.zoom.window import Window


def advance_in_windows(
    engine: Engine,
    frame: Frame | RawFrame | InputFrame,
    tracks: Sequence[Track],
    prompts: Mapping[str, tuple[AcceptedPrompt, ...]],
    num_objects: int,
    others: Mapping[str, Sighting] | None = None,
) -> tuple[Frame | RawFrame | InputFrame, Advanced]:
    """Track each object in its window, and those without one together in the whole image.

    An object that starts in this frame is looked for in the whole image, and once more in the window round what was
    found: otherwise its first memory would show it at another scale than every later frame.

    Args:
        engine, tracks, prompts: see ``Engine.look``.
        frame: the whole image, encoded already or not.
        num_objects: that are tracked in this frame.
        others: objects that are not among ``tracks`` and keep their masks, for those that overlap them.

    Returns:
        The whole frame, encoded if an object needed it, and the outcome.
    """
    if frame.when.scene is Scene.CUT:
        tracks = [track.after_cut() for track in tracks]
    given = {track.object_id: since_replaced(prompts.get(track.object_id, ())) for track in tracks}
    starting = [t.object_id for t in tracks if not t.has_memory or replaces(given[t.object_id])]

    def window_of(track: Track) -> Window | None:
        followed = track.window if engine.zoom else None
        return window_in_frame(followed, frame.size_hw, given[track.object_id], num_objects)

    windows = {t.object_id: None if t.object_id in starting else window_of(t) for t in tracks}
    image_rgb = frame.image_rgb
    views: list[tuple[View, bool]] = []  # and whether it is the second one, of an object that starts
    whole = [track for track in tracks if windows[track.object_id] is None]
    if whole:
        if not isinstance(frame, Frame):
            frame = replace(encode(engine.model, frame), image_rgb=image_rgb if engine.zoom else None)
        views.append((engine.look(frame, whole, prompts), False))
        if engine.zoom and starting:
            begun = engine.settle(views[0][0])
            windows |= {i: window_of(begun.tracks[i]) for i in starting if i in begun.tracks}
    for track in tracks:
        if (window := windows[track.object_id]) is not None:
            assert image_rgb is not None, "with zoom the image is kept"
            part = encode(engine.model, RawFrame(frame.index, image_rgb, frame.when), window)
            views.append((engine.look(part, [track], prompts), track.object_id in starting))
    sightings: dict[str, Sighting] = {}
    for view, _ in views if engine.crowd_suppression else ():
        sightings |= view.sightings(engine.zoom)
    gone = yielding({**(others or {}), **sightings})
    advanced = replace(NOTHING_ADVANCED, sightings={i: s for i, s in sightings.items() if i not in gone})
    for view, is_second in views:
        seen = engine.settle(view, gone)
        if not is_second or seen.shows_all:
            advanced = advanced.and_also(seen)
    return frame, advanced


def propagate(
    engine: Engine,
    state: StreamState,
    image: NDArray[np.uint8] | PrefetchedImage,
    when: When,
    buffer_frames: int,
) -> Advanced:
    """Track the objects into the newest image, apply the waiting prompts and add the frame to the buffer.

    A new object whose first prompt is for a past frame has no memory until its replay is finished: it gets no
    prediction, and its prompts for this frame stay in the buffer until the replay arrives here.

    Args:
        engine: network and rules.
        state: changed.
        image: the newest image, (H, W, 3) uint8 RGB, encoded already or not.
        when: what it is in the stream.
        buffer_frames: number of past frames to keep.

    Returns:
        The outcome.
    """
    index = state.next_frame
    frame: Frame | RawFrame | InputFrame = (
        image.as_frame(index, when) if isinstance(image, PrefetchedImage) else RawFrame(index, image, when)
    )
    before = dict(state.tracks)
    tracks = [track for track in before.values() if track.has_memory or track.object_id not in state.replays]
    advanced = NOTHING_ADVANCED
    if tracks:
        ids = {track.object_id for track in tracks}
        prompts = {object_id: given for object_id, given in state.waiting.items() if object_id in ids}
        frame, advanced = advance_in_windows(engine, frame, tracks, prompts, len(before))
    if buffer_frames:
        frame = for_buffer(engine, frame)
    for object_id, why in advanced.failed.items():
        state.reject_prompts(object_id, why)
    state.tracks.update(advanced.tracks)
    kept = {object_id: track for object_id, track in before.items() if object_id in state.tracks}
    state.next_frame += 1
    past = PastFrame(frame, when.stamp_s, kept, state.waiting, state.cleared, len(before), advanced.sightings)
    state.keep(past, buffer_frames)
    state.waiting, state.cleared = {}, {}
    state.frame_size, state.latest_s = (frame.height, frame.width), when.stamp_s
    return advanced


def for_buffer(engine: Engine, frame: Frame | RawFrame | InputFrame) -> Frame | RawFrame | InputFrame:
    """The frame as the buffer keeps it: an unencoded image as the model's input, unless the image takes less memory.

    So a replayed frame is, bit for bit, what it would have been in time. With zoom the image itself is kept.
    """
    if isinstance(frame, Frame):
        return frame.kept(with_image=engine.zoom)
    if isinstance(frame, InputFrame):
        return frame
    input_bytes = 3 * engine.model.config.image_size**2 * torch.float32.itemsize
    if engine.zoom or frame.image_rgb.nbytes <= input_bytes:
        return frame.kept()
    return InputFrame(frame.index, input_of(engine.model, frame), frame.height, frame.width, frame.when)
