"""What a person can do in a project, without HTTP: each action is checked, stored, logged, and told to every page.

Actions that need the network run in the worker's thread; the others where they are called. What is stored is decided
under one lock, with the masklet of that moment: a frame that was locked while the network was busy stays as it is.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2_ros.annotate.events import EventStream
from sam2_ros.annotate.masklet_store import Change
from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource, ProjectError, Verdict
from sam2_ros.annotate.page_values import change_values, recording_values
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording
from sam2_ros.annotate.segmenter import DOUBTFUL, PHASES, Segmenter
from sam2_ros.annotate.worker import JobStatus, ModelWorker, Steps
from sam2_ros.data.files.masks import Rle, decode_rle
from sam2_ros.model.sam2 import SAM2

_SAVE_EVERY_S = 0.5  # of a propagation; less often where saving takes long
_SEGMENTERS = 2  # recordings whose encodings are kept


@dataclass(frozen=True)
class PropagationRequest:
    """From one frame of a recording backward to ``first`` and forward to ``last``, either of which may be it itself."""

    masklet_ids: tuple[str, ...]
    start: int
    first: int
    last: int
    phase: int
    until_doubtful: bool = False


@dataclass(frozen=True)
class Clicked:
    """What a click or a box gave, and where its time went."""

    frame: MaskletFrame
    parts_ms: Mapping[str, float]  # in order: wait, prepare, decode, store, log


class _Parts:
    """Milliseconds of the parts of a task, one after the other."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def end(self, name: str) -> None:
        """What was done since the part before was this one."""
        now_s = time.perf_counter()
        self.ms[name] = (now_s - self._last_s) * 1e3
        self._last_s = now_s


class Editor:
    """An open project with a network.

    Args:
        project: open for writing.
        network: in eval mode, on the device to use.
    """

    def __init__(self, project: Project, network: SAM2) -> None:
        self.project = project
        self.network = network
        self.events = EventStream()
        self.worker = ModelWorker(lambda status: self.events.publish("job", status.to_json()))
        self._mutex = threading.RLock()
        self._segmenters: OrderedDict[str, Segmenter] = OrderedDict()

    def close(self) -> None:
        """Cancel what runs, end the streams, and let others open the project."""
        self.worker.close()
        self.events.close()
        if not self.project.read_only:
            with suppress(OSError):  # nothing that was answered depends on it
                self.project.log.append("close")
        self.project.close()

    def snapshot(self, recording_id: str) -> dict[str, Any]:
        """A recording's masklets, with the number of the last message that they include."""
        recording = self.project.recording(recording_id)
        with self._mutex:
            return {**recording_values(recording), "revision": self.events.revision}

    def prepare(self, recording_id: str, index: int, masklet_id: str | None, phase: int) -> None:
        """Encode a frame that a person looks at, and what a correction of a masklet there needs."""
        recording = self.project.recording(recording_id)
        recording.frame_path(index)  # raises for a frame that is not there

        def encode() -> None:
            masklet = recording.masklets.get(masklet_id) if masklet_id is not None and phase == 3 else None
            self._segmenter(recording).encode(index, masklet)

        self.worker.prepare(encode)

    def prompt(
        self, recording_id: str, masklet_id: str, index: int, prompt: FramePrompt, phase: int
    ) -> Future[Clicked]:
        """Add clicks or a box to those that an object has in a frame; the frame that they give together.

        On a painted mask they correct that; a propagated one they replace, in phase 3 with what is remembered in view.
        """
        recording = self.project.recording(recording_id)
        _open_for_change(recording.masklets.get(masklet_id), index)

        parts = _Parts()

        def click() -> Clicked:
            parts.end("wait")
            masklet = recording.masklets.get(masklet_id)
            _open_for_change(masklet, index)
            known = masklet.frames.get(index)
            by_hand = known is not None and known.source.by_hand
            painted = known.mask() if known is not None and known.source is MaskSource.BRUSH else None
            prompts = (*(known.prompts if known is not None and by_hand else ()), prompt)
            segmenter = self._segmenter(recording)
            segmenter.encode(index, masklet if phase == 3 else None)  # done already if the person looked at the frame
            parts.end("prepare")
            frame = segmenter.click(masklet, index, prompts, phase, painted)
            parts.end("decode")
            self._set_frames(recording, masklet_id, {index: frame})
            parts.end("store")
            action = "box" if prompt.box_xyxy is not None else "click"
            self._log(action, recording, masklet_id, index, phase, labels=list(prompt.labels))
            parts.end("log")
            return Clicked(frame, parts.ms)

        return self.worker.submit(click)

    def paint(self, recording_id: str, masklet_id: str, index: int, rle: Rle | None, tool: str, phase: int) -> None:
        """Set the mask of a frame to what a person painted or erased; None: the object is not visible there."""
        recording = self.project.recording(recording_id)
        _check_phase(phase)
        recording.frame_path(index)
        height_width = recording.info.size_hw
        if rle is not None and tuple(rle["size"]) != height_width:
            raise ProjectError(f"mask: expected the size {list(height_width)} (rows, columns), got {rle['size']}")
        try:
            mask = np.zeros(height_width, np.bool_) if rle is None else decode_rle(rle)
        except (ValueError, TypeError, OverflowError) as error:
            raise ProjectError(f"mask: {error}") from error
        self._set_frames(recording, masklet_id, {index: MaskletFrame.of_mask(mask, MaskSource.BRUSH)})
        self._log(tool, recording, masklet_id, index, phase, **({} if mask.any() else {"absent": True}))

    def hold(self, recording_id: str, masklet_id: str, index: int, first: int, last: int, phase: int) -> int:
        """Repeat what a frame shows, a mask or that the object is not visible, over a range; returns how many frames.

        They count as made by the person who saw that nothing moves. Locked frames of the range stay.
        """
        recording = self.project.recording(recording_id)
        _check_phase(phase)
        if not 0 <= first <= last < len(recording):
            raise ProjectError(f"expected 0 <= first <= last <= {len(recording) - 1}, got {first} to {last}")
        masklet = recording.masklets.get(masklet_id)
        if (shown := masklet.frames.get(index)) is None:
            raise ProjectError(f"{masklet.name} has nothing in frame {index} to hold: click, paint, or mark it absent")
        held = MaskletFrame(shown.rle, MaskSource.BRUSH, shown.state)
        frames = {i: held for i in range(first, last + 1) if i != index and not masklet.is_frame_locked(i)}
        if frames:
            self._set_frames(recording, masklet_id, frames)
        self._log("hold", recording, masklet_id, index, phase, first=first, last=last)
        return len(frames)

    def clear(self, recording_id: str, masklet_id: str, index: int, phase: int) -> None:
        """Forget mask and prompts of one frame."""
        recording = self.project.recording(recording_id)
        recording.frame_path(index)
        self._change(recording, masklet_id, lambda: recording.masklets.clear_frames(masklet_id, [index]))
        self._log("clear", recording, masklet_id, index, phase)

    def add(self, recording_id: str, phase: int, values: Mapping[str, Any]) -> Masklet:
        """A new masklet; ``values`` as for ``MaskletStore.add``."""
        recording = self.project.recording(recording_id)
        _check_phase(phase)
        with self._mutex:
            masklet = recording.masklets.add(phase=phase, **values)
            self._tell(recording, None, masklet)
        self._log("add", recording, masklet.masklet_id, None, phase)
        return masklet

    def update(self, recording_id: str, masklet_id: str, values: Mapping[str, Any]) -> None:
        """Change properties; ``values`` as for ``MaskletStore.update``."""
        recording = self.project.recording(recording_id)
        self._change(recording, masklet_id, lambda: recording.masklets.update(masklet_id, **values))
        if {"name", "class_name"} & set(values):
            self._log("rename", recording, masklet_id, None, None)
        if "locked" in values:
            self._log("lock" if values["locked"] else "unlock", recording, masklet_id, None, None)

    def remove(self, recording_id: str, masklet_id: str) -> None:
        """Delete a masklet; ``undo`` brings it back."""
        recording = self.project.recording(recording_id)
        self._change(recording, masklet_id, lambda: recording.masklets.remove(masklet_id))
        self._log("remove", recording, masklet_id, None, None)

    def lock(self, recording_id: str, masklet_id: str, first: int, last: int, locked: bool) -> int:
        """Lock or unlock the annotated frames of a range; returns how many there are."""
        recording = self.project.recording(recording_id)
        masklet = recording.masklets.get(masklet_id)
        indices = [index for index in masklet.frame_indices if first <= index <= last]
        if not indices:
            raise ProjectError(f"{masklet.name} has no mask from frame {first} to {last}: nothing to lock")
        self._change(recording, masklet_id, lambda: recording.masklets.lock_frames(masklet_id, indices, locked))
        self._log("lock" if locked else "unlock", recording, masklet_id, first, None, last=last)
        return len(indices)

    def set_verdict(self, recording_id: str, masklet_id: str, verdict: Verdict, note: str) -> None:
        """What the verifier says."""
        recording = self.project.recording(recording_id)
        self._change(recording, masklet_id, lambda: recording.masklets.set_verdict(masklet_id, verdict, note))
        self._log("verdict", recording, masklet_id, None, None, verdict=verdict.value)

    def undo(self, recording_id: str) -> Change | None:
        """Take back the latest change in a recording; None if there is none."""
        return self._walk_back(recording_id, "undo")

    def redo(self, recording_id: str) -> Change | None:
        """Make the change again that ``undo`` took back; None if there is none."""
        return self._walk_back(recording_id, "redo")

    def propagate(self, recording_id: str, request: PropagationRequest) -> JobStatus:
        """Start to propagate; the events have its progress. ProjectError in phase 1, which has no memory."""
        recording = self.project.recording(recording_id)
        if request.phase not in PHASES[1:]:
            raise ProjectError(
                f"phase: expected 2 or 3, got {request.phase}; phase 1 makes each frame's mask by itself"
            )
        if not 0 <= request.first <= request.start <= request.last < len(recording):
            raise ProjectError(
                f"expected 0 <= first <= start <= last <= {len(recording) - 1}, "
                f"got first {request.first}, start {request.start}, last {request.last}"
            )
        if not request.masklet_ids:
            raise ProjectError("masklets: expected at least one, got none")
        for masklet_id in request.masklet_ids:
            masklet = recording.masklets.get(masklet_id)
            frame = masklet.frames.get(request.start)
            if frame is None or not frame.visible:
                raise ProjectError(
                    f"{masklet.name} has no mask in frame {request.start} to start from: click on it first"
                )
            self._log(
                "propagate",
                recording,
                masklet_id,
                request.start,
                request.phase,
                first=request.first,
                last=request.last,
            )
        return self.worker.start(
            "propagation", recording_id, lambda job_id: self._propagation(recording, request, job_id)
        )

    def _propagation(self, recording: Recording, request: PropagationRequest, job_id: str) -> Steps:
        """The steps of a propagation. What was computed is stored in pieces, the last one also after a cancellation."""
        going = set(request.masklet_ids)
        waiting: dict[str, dict[int, MaskletFrame]] = {masklet_id: {} for masklet_id in going}
        total, done_before = request.last - request.first, 0
        saved_s, save_every_s = time.monotonic(), _SAVE_EVERY_S

        def save() -> None:
            nonlocal saved_s, save_every_s
            started_s = time.monotonic()
            for masklet_id in sorted(going):
                if waiting[masklet_id] and not self._store_propagated(
                    recording, masklet_id, waiting[masklet_id], job_id
                ):
                    going.discard(masklet_id)
                waiting[masklet_id] = {}
            saved_s = time.monotonic()
            save_every_s = max(_SAVE_EVERY_S, 5 * (saved_s - started_s))

        for stop in (request.first, request.last):
            if stop == request.start:
                continue
            try:
                for step in self._steps(recording, sorted(going), request, stop):
                    for masklet_id, frame in step.frames.items():
                        waiting[masklet_id][step.index] = frame
                    if time.monotonic() - saved_s >= save_every_s:
                        save()
                    yield done_before + step.done, total, f"frame {step.index}"
                    if not going:
                        return
            finally:
                save()
            done_before = abs(stop - request.start)

    def _steps(
        self, recording: Recording, masklet_ids: Sequence[str], request: PropagationRequest, stop: int
    ) -> Iterator[Any]:
        masklets = [recording.masklets.get(masklet_id) for masklet_id in masklet_ids]
        until = DOUBTFUL if request.until_doubtful else None
        return self._segmenter(recording).propagate(masklets, request.start, stop, until)

    def _store_propagated(
        self, recording: Recording, masklet_id: str, frames: Mapping[int, MaskletFrame], job_id: str
    ) -> bool:
        """Store what nobody made or locked in the meantime; False if the masklet may no longer be changed."""
        with self._mutex:
            try:
                masklet = recording.masklets.get(masklet_id)
                free = {index: frame for index, frame in frames.items() if not masklet.is_kept(index)}
                if free:
                    self._set_frames(recording, masklet_id, free, job_id)
            except ProjectError:  # removed, locked or accepted
                return False
            return True

    def _segmenter(self, recording: Recording) -> Segmenter:
        """That of a recording; only in the worker's thread."""
        key = recording.recording_id
        if key not in self._segmenters:
            self._segmenters[key] = Segmenter(self.network, recording)
            while len(self._segmenters) > _SEGMENTERS:
                self._segmenters.popitem(last=False)
        self._segmenters.move_to_end(key)
        return self._segmenters[key]

    def _walk_back(self, recording_id: str, action: str) -> Change | None:
        recording = self.project.recording(recording_id)
        with self._mutex:
            change = recording.masklets.undo() if action == "undo" else recording.masklets.redo()
            if change is not None:
                self._tell(recording, change.before, change.after)
        if change is not None:
            self._log(action, recording, change.masklet_id, None, None)
        return change

    def _set_frames(
        self, recording: Recording, masklet_id: str, frames: Mapping[int, MaskletFrame], group: str = ""
    ) -> None:
        self._change(recording, masklet_id, lambda: recording.masklets.set_frames(masklet_id, frames, group))

    def _change(self, recording: Recording, masklet_id: str, change: Callable[[], Masklet | None]) -> None:
        """Make a change of one masklet and tell the pages; in the order in which they are stored."""
        with self._mutex:
            before = recording.masklets.get(masklet_id)
            self._tell(recording, before, change())

    def _tell(self, recording: Recording, before: Masklet | None, after: Masklet | None) -> None:
        self.events.publish("change", change_values(recording.recording_id, before, after))

    def _log(
        self, action: str, recording: Recording, masklet_id: str, frame: int | None, phase: int | None, **details: Any
    ) -> None:
        self.project.log.append(
            action, recording=recording.recording_id, masklet=masklet_id, frame=frame, phase=phase, **details
        )


def _check_phase(phase: int) -> None:
    if phase not in PHASES:
        raise ProjectError(f"phase: expected 1, 2 or 3, got {phase}")


def _open_for_change(masklet: Masklet, index: int) -> None:
    """Reject at once a change that would be rejected after the network's work."""
    if masklet.is_frame_locked(index) or masklet.locked:
        raise ProjectError(f"{masklet.name}: frame {index} is locked: unlock it first")
