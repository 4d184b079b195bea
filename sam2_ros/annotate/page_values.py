"""Values of a project as the page gets them: plain, and small enough for thousands of frames."""

from __future__ import annotations

from typing import Any

from sam2_ros.annotate.masklets import Masklet, MaskletFrame, Verdict
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording
from sam2_ros.annotate.segmenter import DOUBTFUL

MAX_MASKS_IN_CHANGE = 40  # frames whose masks come with a change; of more the page asks for those that it shows


def project_values(project: Project, model_name: str) -> dict[str, Any]:
    """The project without its masklets."""
    return {
        "name": project.path.resolve().name,
        "model": model_name,
        "classes": list(project.classes),
        "recordings": [_recording_summary(recording) for recording in project.recordings],
    }


def _recording_summary(recording: Recording) -> dict[str, Any]:
    info = recording.info
    return {
        "id": recording.recording_id,
        "name": info.name,
        "num_frames": len(recording),
        "width": info.size_hw[1],
        "height": info.size_hw[0],
        "fps": info.fps,
        "topic": info.topic,
    }


def recording_values(recording: Recording) -> dict[str, Any]:
    """A recording's times and masklets, without masks."""
    times = [recording.time_s(index) for index in range(len(recording))]
    return {
        "stamps": None if None in times else [round(time, 3) for time in times if time is not None],
        "masklets": [masklet_values(masklet) for masklet in recording.masklets.all()],
    }


def masklet_values(masklet: Masklet) -> dict[str, Any]:
    """A masklet with all its frames, without masks."""
    return {
        **_properties(masklet),
        "frames": {str(index): frame_values(frame) for index, frame in masklet.frames.items()},
    }


def _properties(masklet: Masklet) -> dict[str, Any]:
    return {
        "id": masklet.masklet_id,
        "name": masklet.name,
        "class_name": masklet.class_name,
        "color": "#{:02x}{:02x}{:02x}".format(*masklet.color_rgb),
        "origin": masklet.origin.value,
        "locked": masklet.locked,
        "hidden": masklet.hidden,
        "verdict": masklet.verdict.value,
        "note": masklet.note,
    }


def frame_values(frame: MaskletFrame) -> dict[str, Any]:
    """A frame without its mask; default values are left out."""
    values: dict[str, Any] = {"state": frame.state.name, "quality": round(frame.quality, 2), "by": frame.source.value}
    if frame.doubtfulness >= DOUBTFUL:
        values["doubtful"] = True
    if frame.locked:
        values["locked"] = True
    if frame.prompts:
        values["prompts"] = [
            {"points": [list(xy) for xy in each.points_xy], "labels": list(each.labels), "box": each.box_xyxy}
            for each in frame.prompts
        ]
    return values


def change_values(recording_id: str, before: Masklet | None, after: Masklet | None) -> dict[str, Any]:
    """What a change did to one masklet: its properties, and the frames that were set, or removed (None)."""
    if after is None:
        assert before is not None
        return {"recording": recording_id, "masklet": {"id": before.masklet_id, "removed": True}, "rles": {}}
    old = {} if before is None else before.frames
    changed = [i for i in {**old, **after.frames} if old.get(i) is not after.frames.get(i)]
    frames = {str(i): frame_values(after.frames[i]) if i in after.frames else None for i in changed}
    shown = [i for i in changed if i in after.frames] if len(changed) <= MAX_MASKS_IN_CHANGE else []
    return {
        "recording": recording_id,
        "masklet": {**_properties(after), "frames": frames},
        "rles": {str(i): after.frames[i].rle for i in shown},
    }


def mask_values(recording: Recording, first: int, last: int) -> dict[str, Any]:
    """The masks of some frames: by frame, then by masklet, as COCO RLE."""
    masks: dict[str, dict[str, Any]] = {str(index): {} for index in range(first, last + 1)}
    for masklet in recording.masklets.all():
        for index in range(first, last + 1):
            frame = masklet.frames.get(index)
            if frame is not None and frame.visible:
                masks[str(index)][masklet.masklet_id] = frame.rle
    return {"masks": masks}


def queue_values(project: Project) -> list[dict[str, Any]]:
    """The masklets that show something, to verify: those without a verdict first, the most doubtful of them first."""
    rows = []
    for recording in project.recordings:
        for masklet in recording.masklets.all():
            shown = [index for index, frame in masklet.frames.items() if frame.visible]
            if not shown:
                continue
            doubtful = [i for i, frame in masklet.frames.items() if frame.doubtfulness >= DOUBTFUL]
            rows.append(
                {
                    "recording": recording.recording_id,
                    "recording_name": recording.info.name,
                    **_properties(masklet),
                    "frames": len(masklet.frames),
                    "visible": len(shown),
                    "doubtful": len(doubtful),
                    "first": min(shown),
                    "last": max(shown),
                    "clicks": masklet.click_count,
                }
            )
    order = [Verdict.UNVERIFIED.value, Verdict.REJECTED.value, Verdict.ACCEPTED.value, Verdict.NOT_TRACKABLE.value]
    return sorted(rows, key=lambda row: (order.index(row["verdict"]), -row["doubtful"] / row["frames"]))
