"""``masklets.json`` beside an exported data set: what its format has no room for, so that it can be imported again.

Names, classes, colours, verdicts, prompts and states of the masklets, and the clock of the recordings. The masks
themselves are in the format's own files alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import (
    PALETTE_RGB,
    Masklet,
    MaskletFrame,
    MaskSource,
    Origin,
    ProjectError,
    masklet_from_json,
    masklet_to_json,
)
from sam2_ros.annotate.storage import damage_named, read_json, write_json
from sam2_ros.data.files.masks import Rle, compress_counts, encode_rle
from sam2_ros.tracking.types import ObjectState

FILE_NAME = "masklets.json"
FORMAT, VERSION = "sam2_ros masklets", 1

Masks = Mapping[int, NDArray[np.bool_]]  # (H, W) by object number


@dataclass(frozen=True)
class AnnotatedFrame:
    """What a format knows of one frame."""

    number: int  # in the new recording
    index: int  # in the data set's sequence, by which the sidecar counts
    masks: Masks


@dataclass
class Sidecar:
    """Values of the file: by sequence, and there by object number."""

    sequences: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Sidecar:
        """The sidecar of a data set; an empty one where there is none.

        Raises:
            ProjectError: it is damaged, or of a newer version.
        """
        path = root / FILE_NAME
        if not path.is_file():
            return cls()
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT or not isinstance(values.get("version"), int):
            raise ProjectError(f"{path} is not what `sam2-ros dataset export` writes beside a data set")
        if values["version"] > VERSION:
            raise ProjectError(f"{path} was written by a newer sam2_ros: update it to import this data set")
        with damage_named(f"{path}: sequences"):
            return cls(dict(values["sequences"]))

    def write(self, root: Path) -> None:
        """Write the file into a folder."""
        write_json(root / FILE_NAME, {"format": FORMAT, "version": VERSION, "sequences": self.sequences})

    def add(self, sequence: str, info: Mapping[str, Any], masklets: Mapping[int, Masklet]) -> None:
        """Add a sequence: what is known of it, and its masklets by object number, frames counted in the sequence."""
        described = {}
        for number, masklet in masklets.items():
            values = masklet_to_json(masklet)
            for frame in values["frames"].values():
                del frame["rle"]
            described[str(number)] = values
        self.sequences[sequence] = {**info, "masklets": described}

    def info(self, sequence: str) -> Mapping[str, Any]:
        """What ``add`` was given beside the masklets; empty for an unknown sequence."""
        return self.sequences.get(sequence, {})

    def visible_objects(self, sequence: str) -> dict[int, list[int]]:
        """By frame of the sequence the numbers of the objects that are visible in it, ascending."""
        found: dict[int, list[int]] = {}
        for number, values in sorted(self.info(sequence).get("masklets", {}).items(), key=lambda item: int(item[0])):
            for index, frame in values["frames"].items():
                if frame["state"] == "TRACKED":
                    found.setdefault(int(index), []).append(int(number))
        return found

    def masklets(self, sequence: str, frames: Iterable[AnnotatedFrame], alone: bool) -> list[Masklet]:
        """The masklets of a sequence, from its masks and what is known beside them.

        Args:
            sequence: its name.
            frames: those that have annotations.
            alone: whether each object is annotated for itself; otherwise an object without a mask in an annotated frame
                is not visible there.
        """
        found: dict[int, dict[int, Rle]] = {}
        number_of: dict[int, int] = {}
        size_hw = (0, 0)
        for frame in frames:
            number_of[frame.index] = frame.number
            for value, mask in frame.masks.items():
                size_hw = mask.shape
                found.setdefault(value, {})[frame.index] = encode_rle(mask)
        empty = encode_rle(np.zeros(size_hw, np.bool_))
        known = self.info(sequence).get("masklets", {})
        made = []
        for value in sorted({*found, *(int(number) for number in known)}):
            codes = found.get(value, {})
            if not alone:
                codes = {index: codes.get(index, empty) for index in number_of}
            described = known.get(str(value))
            frames_of = _described(described, codes, number_of, empty) if described else _plain(codes, number_of)
            if described:
                made.append(replace(masklet_from_json({**described, "frames": {}}), frames=frames_of))
            elif any(frame.visible for frame in frames_of.values()):
                made.append(_imported(value, len(made), frames_of))
        return made


def _described(
    values: Mapping[str, Any], codes: Mapping[int, Rle], number_of: Mapping[int, int], empty: Rle
) -> dict[int, MaskletFrame]:
    """The frames as they were exported, with their masks."""
    frames = {}
    for text, frame in values["frames"].items():
        if (number := number_of.get(int(text))) is not None:
            single = {**values, "frames": {text: {**frame, "rle": codes.get(int(text), empty)}}}
            frames[number] = masklet_from_json(single).frames[int(text)]
    return frames


def _plain(codes: Mapping[int, Rle], number_of: Mapping[int, int]) -> dict[int, MaskletFrame]:
    """The frames of an object of which nothing but masks is known."""
    return {number_of[index]: _frame_of_rle(code) for index, code in sorted(codes.items())}


def _frame_of_rle(code: Rle) -> MaskletFrame:
    height, width = code["size"]
    background = compress_counts([height * width])
    state = ObjectState.OCCLUDED if code["counts"] == background else ObjectState.TRACKED
    return MaskletFrame(code, MaskSource.IMPORTED, state)


def _imported(value: int, position: int, frames: dict[int, MaskletFrame]) -> Masklet:
    """A masklet of a data set without a sidecar."""
    color_rgb = PALETTE_RGB[position % len(PALETTE_RGB)]
    return Masklet(f"m{value:04d}", f"object {value}", color_rgb=color_rgb, origin=Origin.IMPORTED, frames=frames)
