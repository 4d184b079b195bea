"""The masklets of one recording: each change is checked, on the disk when the call returns, and can be undone."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2_ros.annotate.masklets import (
    PALETTE_RGB,
    Masklet,
    MaskletFrame,
    Origin,
    ProjectError,
    Verdict,
    frame_to_json,
    masklet_from_json,
    masklet_to_json,
)
from sam2_ros.annotate.storage import json_text, read_json, sync_folder, write_atomically

MAX_UNDO = 200  # changes; they share the frames that they did not change
_SETTABLE = ("name", "class_name", "color_rgb", "locked", "hidden")


@dataclass(frozen=True)
class Change:
    """What a call did to one masklet; None: it did not exist."""

    before: Masklet | None
    after: Masklet | None
    group: str = ""  # what changes were made as one, and are undone as one

    @property
    def masklet_id(self) -> str:
        """Of the masklet that was changed."""
        changed = self.after or self.before
        assert changed is not None
        return changed.masklet_id


class _FrameTexts:
    """The JSON of a masklet's frames as last written: of thousands a click changes one, and frames are immutable."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[MaskletFrame, str]] = {}

    def json_of(self, masklet: Masklet) -> str:
        """The masklet as ``masklet_to_json`` has it."""
        self._known = {index: self._text_of(index, frame) for index, frame in masklet.frames.items()}
        values = masklet_to_json(replace(masklet, frames={}))
        del values["frames"]
        frames = ",".join(f'"{index}":{self._known[index][1]}' for index in masklet.frame_indices)
        return f'{json_text(values)[:-1]},"frames":{{{frames}}}}}'

    def _text_of(self, index: int, frame: MaskletFrame) -> tuple[MaskletFrame, str]:
        known = self._known.get(index)
        return known if known is not None and known[0] is frame else (frame, json_text(frame_to_json(frame)))


class MaskletStore:
    """One JSON file a masklet in a folder. Thread-safe; a call that raises has changed nothing.

    Masklets are immutable: ``get`` returns the current one, which later calls replace.
    """

    def __init__(self, folder: Path, size_hw: tuple[int, int], frame_count: int, writable: Callable[[], None]) -> None:
        """Masklets are read when they are first asked for.

        Args:
            folder: of the JSON files; need not exist.
            size_hw, frame_count: of the recording; px.
            writable: called before each change; raises ProjectError where the project is open for reading only.
        """
        self._folder, self._size_hw, self._frame_count, self._writable = folder, size_hw, frame_count, writable
        self._mutex = threading.RLock()
        self._masklets: dict[str, Masklet] | None = None
        self._texts: defaultdict[str, _FrameTexts] = defaultdict(_FrameTexts)
        self._undo: list[Change] = []
        self._redo: list[Change] = []

    def all(self) -> tuple[Masklet, ...]:
        """In the order in which they were added.

        Raises:
            ProjectError: a file is damaged.
        """
        with self._mutex:
            return tuple(self._known().values())

    def get(self, masklet_id: str) -> Masklet:
        """Raises ProjectError for an unknown id."""
        with self._mutex:
            known = self._known()
            if masklet_id not in known:
                raise ProjectError(f"no masklet {masklet_id!r}; there are {', '.join(known) or 'none'}")
            return known[masklet_id]

    def add(
        self,
        *,
        name: str = "",
        class_name: str = "",
        color_rgb: tuple[int, int, int] | None = None,
        origin: Origin = Origin.MANUAL,
        phase: int | None = None,
        frames: Mapping[int, MaskletFrame] | None = None,
        verdict: Verdict = Verdict.UNVERIFIED,
    ) -> Masklet:
        """A new masklet, with a new id; name and colour are chosen where they are not given."""
        with self._mutex:
            number = self._next_number()
            masklet = Masklet(
                masklet_id=f"m{number:04d}",
                name=name or f"object {number}",
                class_name=class_name,
                color_rgb=color_rgb or PALETTE_RGB[(number - 1) % len(PALETTE_RGB)],
                origin=origin,
                phase=phase,
                verdict=verdict,
                frames=dict(frames or {}),
            )
            return self.take_up(masklet)

    def take_up(self, masklet: Masklet) -> Masklet:
        """Add a copy of a masklet under a new id. Raises as ``set_frames``."""
        with self._mutex:
            self._check_frames(masklet.frames)
            return self._apply(None, replace(masklet, masklet_id=f"m{self._next_number():04d}"))

    def update(self, masklet_id: str, **changes: Any) -> Masklet:
        """Change name, class_name, color_rgb, locked or hidden. A locked masklet must be unlocked first, or with it."""
        unknown = sorted(set(changes) - set(_SETTABLE))
        if unknown:
            raise ProjectError(f"expected changes of {', '.join(_SETTABLE)}, got {', '.join(unknown)}")
        with self._mutex:
            masklet = self.get(masklet_id)
            if masklet.locked and changes.get("locked", True) and set(changes) - {"hidden", "locked"}:
                raise ProjectError(f"{masklet_id} ({masklet.name}) is locked: unlock it first")
            return self._apply(masklet, replace(masklet, **changes))

    def set_frame(self, masklet_id: str, index: int, frame: MaskletFrame) -> Masklet:
        """``set_frames`` of one frame."""
        return self.set_frames(masklet_id, {index: frame})

    def set_frames(self, masklet_id: str, frames: Mapping[int, MaskletFrame], group: str = "") -> Masklet:
        """Add or replace the masks, and with them the prompts, of some frames: one change, one file written.

        A REJECTED masklet becomes UNVERIFIED, and comes up for verification again.

        Args:
            masklet_id: of a known masklet.
            frames: by index.
            group: calls with the same one that follow each other, as far as this masklet goes, are undone together.

        Raises:
            ProjectError: an unknown masklet, a frame outside the recording, a mask of another size, or a frame that is
                locked.
            OSError: it could not be written.
        """
        with self._mutex:
            masklet = self.get(masklet_id)
            self._check_frames(frames)
            self._check_unlocked(masklet, frames)
            return self._apply(masklet, masklet.with_frames(frames), group)

    def clear_frames(self, masklet_id: str, indices: Iterable[int]) -> Masklet:
        """Remove the annotations of some frames; frames without one are skipped. Raises as ``set_frames``."""
        with self._mutex:
            masklet = self.get(masklet_id)
            cleared = {index for index in indices if index in masklet.frames}
            self._check_unlocked(masklet, cleared)
            kept = {index: frame for index, frame in masklet.frames.items() if index not in cleared}
            return self._apply(masklet, replace(masklet.with_frames({}), frames=kept))

    def lock_frames(self, masklet_id: str, indices: Iterable[int], locked: bool = True) -> Masklet:
        """Lock or unlock annotated frames; ProjectError for a frame that is not annotated."""
        with self._mutex:
            masklet = self.get(masklet_id)
            wanted = set(indices)
            missing = sorted(wanted - set(masklet.frames))
            if missing:
                raise ProjectError(f"{masklet_id}: only annotated frames can be locked; {missing[0]} has no mask")
            frames = {i: replace(masklet.frames[i], locked=locked) for i in wanted}
            return self._apply(masklet, replace(masklet, frames={**masklet.frames, **frames}))

    def set_verdict(self, masklet_id: str, verdict: Verdict, note: str = "") -> Masklet:
        """What the verifier said. ACCEPTED locks all its frames, until it gets another verdict."""
        with self._mutex:
            masklet = self.get(masklet_id)
            if verdict is Verdict.ACCEPTED and not any(frame.visible for frame in masklet.frames.values()):
                raise ProjectError(f"{masklet_id} ({masklet.name}) shows its object in no frame: nothing to accept")
            return self._apply(masklet, replace(masklet, verdict=verdict, note=note))

    def remove(self, masklet_id: str) -> None:
        """Delete a masklet that is not locked or accepted; ``undo`` brings it back."""
        with self._mutex:
            masklet = self.get(masklet_id)
            if masklet.locked or masklet.verdict is Verdict.ACCEPTED:
                how = "locked" if masklet.locked else "accepted"
                raise ProjectError(f"{masklet_id} ({masklet.name}) is {how}: unlock or reopen it before deleting it")
            self._apply(masklet, None)

    def undo(self) -> Change | None:
        """Undo the latest change since the project was opened; the change made for that, or None without any."""
        return self._step(self._undo, self._redo)

    def redo(self) -> Change | None:
        """Repeat the change that ``undo`` undid; None if there is none."""
        return self._step(self._redo, self._undo)

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def _step(self, stack: list[Change], other: list[Change]) -> Change | None:
        with self._mutex:
            if not stack:
                return None
            change = Change(stack[-1].after, stack[-1].before, stack[-1].group)
            self._write(change)
            stack.pop()
            other.append(change)
            return change

    def _apply(self, before: Masklet | None, after: Masklet | None, group: str = "") -> Any:
        """Write a change and remember it; returns ``after``."""
        change = Change(before, after, group)
        self._write(change)
        places = [place for place, each in enumerate(self._undo) if each.masklet_id == change.masklet_id]
        if group and places and self._undo[places[-1]].group == group:
            self._undo[places[-1]] = replace(self._undo[places[-1]], after=after)
        else:
            self._undo = [*self._undo, change][-MAX_UNDO:]
        self._redo = []
        return after

    def _write(self, change: Change) -> None:
        self._writable()
        known = self._known()
        path = self._folder / f"{change.masklet_id}.json"
        if change.after is not None:
            self._folder.mkdir(exist_ok=True)
            write_atomically(path, self._texts[change.masklet_id].json_of(change.after).encode())
            known[change.masklet_id] = change.after
            self._masklets = dict(sorted(known.items()))
        else:
            path.unlink(missing_ok=True)
            sync_folder(self._folder)
            del known[change.masklet_id]
            self._texts.pop(change.masklet_id, None)

    def _known(self) -> dict[str, Masklet]:
        if self._masklets is None:
            found = {}
            for path in sorted(self._folder.glob("m*.json")):
                try:
                    found[path.stem] = masklet = masklet_from_json(read_json(path))
                    self._check_frames(masklet.frames)
                except ProjectError as error:
                    raise ProjectError(
                        f"{path}: damaged: {error}; move it away to open the project without it"
                    ) from error
            self._masklets = found
        return self._masklets

    def _next_number(self) -> int:
        """One more than the largest that is or was in use, undone ones included."""
        used = [*self._known(), *(change.masklet_id for change in (*self._undo, *self._redo))]
        return max((int(masklet_id[1:]) for masklet_id in used), default=0) + 1

    def _check_frames(self, frames: Mapping[int, MaskletFrame]) -> None:
        for index, frame in frames.items():
            if not 0 <= index < self._frame_count:
                raise ProjectError(f"frame: expected 0 to {self._frame_count - 1}, got {index}")
            if tuple(frame.rle["size"]) != self._size_hw:
                height, width = self._size_hw
                got = "x".join(str(side) for side in reversed(frame.rle["size"]))
                raise ProjectError(f"mask of frame {index}: expected the recording's {width}x{height}, got {got}")

    @staticmethod
    def _check_unlocked(masklet: Masklet, indices: Iterable[int]) -> None:
        if masklet.locked or masklet.verdict is Verdict.ACCEPTED:
            how = "locked: unlock it" if masklet.locked else "accepted: reopen it (verdict unverified)"
            raise ProjectError(f"{masklet.masklet_id} ({masklet.name}) is {how} first")
        barred = sorted(index for index in indices if masklet.is_frame_locked(index))
        if barred:
            raise ProjectError(f"{masklet.masklet_id} ({masklet.name}): frame {barred[0]} is locked: unlock it first")
