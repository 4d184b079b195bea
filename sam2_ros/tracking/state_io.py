"""A tracker's objects as plain values and tensors, to save in a file and load into another tracker.

``torch.save(tracker.save_state(), path)`` and ``tracker.load_state(torch.load(path, weights_only=True))``. The buffer
of past frames is not saved: after loading no past frame can be prompted and no earlier prompt undone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sam2_ros.model.sam2 import SAM2
from sam2_ros.saved_values import SavedStateError, check_dict, check_integer, check_keys, check_list
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, FrameScore
from sam2_ros.tracking.prompts import AcceptedPrompt, make_prompt
from sam2_ros.tracking.replay import MAX_LABEL
from sam2_ros.tracking.rules.lookalikes import Pair
from sam2_ros.tracking.rules.memory_selection import AREAS_KEPT
from sam2_ros.tracking.rules.scene_changes import MOST_SAMPLED, Look, SceneWatch
from sam2_ros.tracking.state import StreamState, Track, scores_of
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError
from sam2_ros.tracking.zoom.window import Window

_FORMAT = "sam2_ros tracker 1"
_MAX_FRAME = 2**53  # ages become floats, which cannot represent every integer beyond this
_COUNTERS = ("next_frame", "next_label", "prompts_given")
_HEADER = ("format", "model", "weights", *_COUNTERS, "frame_size", "latest_s", "objects")
_OBJECT = ("object_id", "label", "state", "last_seen_frame", "conditioning", "recent", "waiting")
_WINDOW = "window"  # of an object, where a tracker that zooms follows it with one
_AREAS = "areas_px"  # of an object, where a policy finds anchors
_SEEN = ("last_seen_s", "hidden_frame", "is_sought")  # of an object, where they are not as of a new one
_WATCH = "watch"  # of the stream, where scene changes are noticed
_PAIRS = "pairs"  # of the stream, where look-alikes are watched
_SCORE = "score"  # of a memory, where a policy needs it: confidence, is empty, is an anchor
_PROMPT_ARRAYS = {"points_xy": torch.float32, "labels": torch.int64, "box_xyxy": torch.float32, "mask": torch.bool}


_NEW = Track("", 0)


def to_plain(model: SAM2, policy: BankPolicy, state: StreamState) -> dict[str, Any]:
    """The state as dicts, lists, numbers, strings and CPU tensors. No object may be behind."""
    assert not state.replays, "an object that is being replayed has no state to save yet"
    return {
        "format": _FORMAT,
        "model": _identity(model, policy),
        "weights": fingerprint(model),
        "next_frame": state.next_frame,
        "next_label": state.next_label,
        "prompts_given": state.prompts_given,
        "frame_size": None if state.frame_size is None else list(state.frame_size),
        "latest_s": state.latest_s,
        **({} if state.watch.look is None else {_WATCH: _plain_watch(state.watch)}),
        **({_PAIRS: [_plain_pair(*each) for each in state.pairs.items()]} if state.pairs else {}),
        "objects": [
            {
                "object_id": track.object_id,
                "label": track.label,
                "state": int(track.state),
                "last_seen_frame": track.last_seen_frame,
                "conditioning": _plain_memories(track.conditioning),
                "recent": _plain_memories(track.recent),
                "waiting": [_plain_prompt(given) for given in state.waiting.get(track.object_id, ())],
                **({} if track.window is None else {_WINDOW: list(track.window.box_xyxy)}),
                **({_AREAS: list(track.areas_px)} if track.areas_px else {}),
                **{name: getattr(track, name) for name in _SEEN if getattr(track, name) != getattr(_NEW, name)},
            }
            for track in state.tracks.values()
        ],
    }


def from_plain(model: SAM2, policy: BankPolicy, plain: object) -> StreamState:
    """The saved state, with every value validated.

    Raises:
        SavedStateError: not a saved state, damaged, or of another model.
    """
    values = check_keys(plain, _HEADER, "state", optional=(_WATCH, _PAIRS))
    for name, expected in (("format", _FORMAT), ("model", _identity(model, policy)), ("weights", fingerprint(model))):
        if not isinstance(values[name], str) or values[name] != expected:
            raise SavedStateError(f"{name}: expected that of this tracker, {expected!r}, got {values[name]!r}")
    state = StreamState(
        next_frame=check_integer(values["next_frame"], "next_frame", 0, _MAX_FRAME),
        next_label=check_integer(values["next_label"], "next_label", 1, MAX_LABEL + 1),
        prompts_given=check_integer(values["prompts_given"], "prompts_given", 0),
        frame_size=_frame_size(values["frame_size"]),
        latest_s=_seconds(values["latest_s"], "latest_s"),
        watch=_watch(values[_WATCH]) if _WATCH in values else SceneWatch(),
    )
    last_label = 0
    for place, each in enumerate(check_list(values["objects"], "objects")):
        where = f"objects[{place}]"
        entry = check_keys(each, _OBJECT, where, optional=(_WINDOW, _AREAS, *_SEEN))
        object_id = entry["object_id"]
        if not isinstance(object_id, str) or not object_id or object_id in state.tracks:
            raise SavedStateError(f"{where}: expected an object_id that is a text of its own, got {object_id!r}")
        label = check_integer(entry["label"], f"{where}: label", last_label + 1, state.next_label - 1)
        track = _track(model, policy, entry, object_id, label, state.next_frame, where)
        if _WINDOW in entry:
            track.window = _window(entry[_WINDOW], state.frame_size, f"{where}: window")
        track.areas_px = tuple(
            check_integer(area, f"{where}: {_AREAS}", 1)
            for area in check_list(entry.get(_AREAS, []), where)[-AREAS_KEPT:]
        )
        track.last_seen_s = _seconds(entry.get("last_seen_s"), f"{where}: last_seen_s")
        track.hidden_frame = check_integer(
            entry.get("hidden_frame", -1), f"{where}: hidden_frame", -1, state.next_frame - 1
        )
        track.is_sought = _truth(entry.get("is_sought", False), f"{where}: is_sought")
        waiting = tuple(_given(given, state.prompts_given, where) for given in check_list(entry["waiting"], where))
        adds = [given.action is PromptAction.ADD for given in waiting]
        if any(adds[1:]) or track.has_memory == any(adds[:1]):
            raise SavedStateError(f"{where}: expected either a memory or a first prompt that waits")
        state.tracks[object_id] = track
        if waiting:
            state.waiting[object_id] = waiting
        last_label = label
    for place, each in enumerate(check_list(values.get(_PAIRS, []), _PAIRS)):
        key, pair = _pair(each, state, f"{_PAIRS}[{place}]")
        state.pairs = {**state.pairs, key: pair}
    return state


def _identity(model: SAM2, policy: BankPolicy) -> str:
    config = model.config
    memory = f"{config.num_spatial_memories} maps and {config.max_pointers} pointers"
    if config.approximations.recent_memories is not None:
        memory += f" (recent_memories {config.approximations.recent_memories})"
    if policy.name != BankPolicy.name:
        memory += f" (memory_selection {policy.name})"
    return f"{config.name} at {config.image_size} px, {memory} of {config.memory_dim} and {config.d_model} values"


def fingerprint(model: SAM2) -> str:
    """Identifies the weights by a few values of every tensor: training any part changes some of them.

    Values are rounded to bfloat16, the type that some tensors have on some machines: a state may move between machines.
    """
    values = torch.cat([tensor.detach().flatten()[:8].bfloat16().float() for tensor in model.state_dict().values()])
    return hashlib.sha256(values.cpu().numpy().tobytes()).hexdigest()[:16]


def _plain_memories(memories: Mapping[int, FrameMemory]) -> dict[int, dict[str, Any]]:
    return {
        frame: {
            "spatial": None if memory.spatial_bchw is None else memory.spatial_bchw.cpu().clone(),
            "pointer": memory.pointer_bc.cpu().clone(),
            **({} if memory.score is None else {_SCORE: _plain_score(memory.score)}),
        }
        for frame, memory in memories.items()
    }


def _plain_score(score: FrameScore) -> list[float | bool]:
    return [score.confidence, score.is_empty, score.is_anchor]


def _plain_prompt(given: AcceptedPrompt) -> dict[str, Any]:
    arrays = {name: getattr(given.prompt, name) for name in _PROMPT_ARRAYS}
    tensors = {name: None if array is None else torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return {"number": given.number, "action": int(given.action), **tensors}


def _track(
    model: SAM2, policy: BankPolicy, entry: Mapping[str, Any], object_id: str, label: int, next_frame: int, where: str
) -> Track:
    try:
        object_state = ObjectState(check_integer(entry["state"], f"{where}: state", 0))
    except ValueError as error:
        raise SavedStateError(f"{where}: expected a state of an object, got {entry['state']!r}") from error
    conditioning = _memories(model, entry["conditioning"], next_frame, f"{where}: conditioning")
    recent = _memories(model, entry["recent"], next_frame, f"{where}: recent")
    if any(memory.spatial_bchw is None for memory in conditioning.values()):
        raise SavedStateError(f"{where}: expected a spatial memory of every conditioning frame")
    scores = scores_of(recent)
    surplus = [*policy.expired(next_frame, scores), *policy.surplus_conditioning(scores_of(conditioning))]
    if surplus or set(conditioning) & set(recent):
        raise SavedStateError(f"{where}: expected the frames that this tracker keeps, got more")
    needed = set(recent) - set(policy.without_spatial(next_frame, scores))
    incomplete = [f for f in sorted(needed) if recent[f].spatial_bchw is None]
    if incomplete:
        raise SavedStateError(f"{where}: expected spatial memories of the latest frames, got none for {incomplete}")
    last_seen = check_integer(entry["last_seen_frame"], f"{where}: last_seen_frame", -1, next_frame - 1)
    return Track(object_id, label, object_state, last_seen, conditioning, recent)


def _memories(model: SAM2, plain: object, next_frame: int, where: str) -> dict[int, FrameMemory]:
    config = model.config
    device = model.no_mem_embed.device
    memories = {}
    for key, each in check_dict(plain, where).items():
        frame = check_integer(key, where, 0, next_frame - 1)
        values = check_keys(each, ("spatial", "pointer"), f"{where}[{frame}]", optional=(_SCORE,))
        spatial = values["spatial"]
        if spatial is not None:
            spatial = _tensor(
                spatial, torch.bfloat16, (1, config.memory_dim, *config.memory_hw), f"{where}[{frame}]: spatial"
            )
            spatial = spatial.to(device)
        pointer = _tensor(values["pointer"], torch.float32, (1, config.d_model), f"{where}[{frame}]: pointer")
        score = _score(values[_SCORE], f"{where}[{frame}]: {_SCORE}") if _SCORE in values else None
        memories[frame] = FrameMemory(spatial, pointer.to(device), score)
    return memories


def _score(plain: object, where: str) -> FrameScore:
    values = check_list(plain, where)
    if len(values) != 3:
        raise SavedStateError(f"{where}: expected a number and two truths, got {values}")
    return FrameScore(_share(values[0], where), _truth(values[1], where), _truth(values[2], where))


def _given(plain: object, prompts_given: int, where: str) -> AcceptedPrompt:
    where = f"{where}: waiting"
    values = check_keys(plain, ("number", "action", *_PROMPT_ARRAYS), where)
    number = check_integer(values["number"], f"{where}: number", 1, prompts_given)
    action = check_integer(values["action"], f"{where}: action", PromptAction.ADD, PromptAction.REPLACE)
    tensors = [
        None if values[name] is None else _tensor(values[name], dtype, None, f"{where}: {name}").cpu().numpy()
        for name, dtype in _PROMPT_ARRAYS.items()
    ]
    try:
        prompt = make_prompt(*tensors)
    except PromptError as error:
        raise SavedStateError(f"{where}: {error}") from error
    return AcceptedPrompt(number, PromptAction(action), prompt)


def _frame_size(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [check_integer(side, "frame_size", 1) for side in check_list(value, "frame_size")]
    if len(sides) != 2:
        raise SavedStateError(f"frame_size: expected height and width, got {value!r}")
    return sides[0], sides[1]


def _window(value: object, frame_size: tuple[int, int] | None, where: str) -> Window:
    corners = [check_integer(each, where, 0) for each in check_list(value, where)]
    height, width = frame_size or (0, 0)
    if len(corners) != 4 or not (corners[0] < corners[2] <= width and corners[1] < corners[3] <= height):
        raise SavedStateError(f"{where}: expected x0, y0, x1, y1 in an image of {width}x{height}, got {value!r}")
    return Window(corners[0], corners[1], corners[2], corners[3], (height, width))


def _seconds(value: object, where: str) -> float | None:
    if value is not None and (not isinstance(value, float) or not math.isfinite(value)):
        raise SavedStateError(f"{where}: expected a finite time in seconds or None, got {value!r}")
    return value


def _truth(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise SavedStateError(f"{where}: expected True or False, got {value!r}")
    return value


def _plain_watch(watch: SceneWatch) -> dict[str, Any]:
    assert watch.look is not None
    return {
        "sample": torch.from_numpy(watch.look.sample_hw3.copy()),
        "distances": list(watch.distances),
        "frames_same": watch.frames_same,
        "same_since_s": watch.same_since_s,
        "is_covered": watch.is_covered,
    }


def _watch(plain: object) -> SceneWatch:
    names = ("sample", "distances", "frames_same", "same_since_s", "is_covered")
    values = check_keys(plain, names, _WATCH)
    sample = _tensor(values["sample"], torch.uint8, None, f"{_WATCH}: sample").cpu()
    if sample.ndim != 3 or sample.shape[2] != 3 or not 0 < sample.numel() <= MOST_SAMPLED:
        raise SavedStateError(f"{_WATCH}: sample: expected a small picture, got {tuple(sample.shape)}")
    distances = tuple(_share(each, f"{_WATCH}: distances") for each in check_list(values["distances"], _WATCH))
    return SceneWatch(
        Look.of_sample(sample.numpy()),
        distances,
        check_integer(values["frames_same"], f"{_WATCH}: frames_same", 0),
        _seconds(values["same_since_s"], f"{_WATCH}: same_since_s"),
        _truth(values["is_covered"], f"{_WATCH}: is_covered"),
    )


def _plain_pair(key: tuple[str, str], pair: Pair) -> dict[str, Any]:
    return {"objects": list(key), **{name: _listed(value) for name, value in vars(pair).items()}}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _pair(plain: object, state: StreamState, where: str) -> tuple[tuple[str, str], Pair]:
    flags = ("has_met", "was_away", "is_in_doubt", "is_sure")
    numbers = ("offset_xy", "speed_xy", "areas")
    values = check_keys(plain, ("objects", "frame", "frames", *numbers, "least_share", *flags), where)
    ids = check_list(values["objects"], where)
    labels = [state.tracks[i].label for i in ids if isinstance(i, str) and i in state.tracks]
    key = tuple(ids)
    if len(labels) != 2 or len(key) != 2 or labels[0] >= labels[1] or key in state.pairs:
        raise SavedStateError(f"{where}: expected two objects in the order of their labels, got {ids}")
    offset_xy, speed_xy, areas = (_two(values[name], f"{where}: {name}") for name in numbers)
    if min(areas) <= 0:
        raise SavedStateError(f"{where}: areas: expected more than 0, got {areas}")
    frame = check_integer(values["frame"], f"{where}: frame", 0, state.next_frame - 1)
    truths = {name: _truth(values[name], f"{where}: {name}") for name in flags}
    least_share = _share(values["least_share"], f"{where}: least_share")
    frames = check_integer(values["frames"], f"{where}: frames", 1)
    return (key[0], key[1]), Pair(frame, offset_xy, speed_xy, areas, frames, least_share, **truths)


def _two(value: object, where: str) -> tuple[float, float]:
    numbers = [each for each in check_list(value, where) if isinstance(each, float) and math.isfinite(each)]
    if len(numbers) != 2 or value != numbers:
        raise SavedStateError(f"{where}: expected two finite numbers, got {value!r}")
    return numbers[0], numbers[1]


def _share(value: object, where: str) -> float:
    if not isinstance(value, float) or not 0 <= value <= 1:  # NaN is not
        raise SavedStateError(f"{where}: expected a number from 0 to 1, got {value!r}")
    return value


def _tensor(value: object, dtype: torch.dtype, shape: tuple[int, ...] | None, where: str) -> Tensor:
    """A validated copy; None allows any shape."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        raise SavedStateError(f"{where}: expected a dense tensor, got {getattr(value, 'layout', type(value).__name__)}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise SavedStateError(f"{where}: expected a tensor with all its values, got a few that stand for many")
    if value.dtype != dtype or shape not in (None, tuple(value.shape)):
        raise SavedStateError(f"{where}: expected {dtype} {shape or ''}, got {value.dtype} {tuple(value.shape)}")
    if not bool(torch.isfinite(value.float()).all()):
        raise SavedStateError(f"{where}: expected finite numbers")
    return value.detach().clone()
