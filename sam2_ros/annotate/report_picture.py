"""The report as a picture: bars by phase, drawn with OpenCV, which the package needs anyway."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import Verdict
from sam2_ros.annotate.storage import write_atomically

WIDTH_PX, PANEL_PX, LEFT_PX, RIGHT_PX, ROW_PX = 960, 60, 150, 230, 30
WHITE, BLACK, GREY = (255, 255, 255), (40, 40, 40), (225, 225, 225)
PHASE_BGR = {"1": (180, 119, 31), "2": (14, 127, 255), "3": (44, 160, 44), "none": (150, 150, 150)}
VERDICT_BGR = {
    Verdict.ACCEPTED: (44, 160, 44),
    Verdict.REJECTED: (40, 39, 214),
    Verdict.NOT_TRACKABLE: (189, 103, 148),
    Verdict.UNVERIFIED: (190, 190, 190),
}
PHASE_NAMES = {"1": "1 per frame", "2": "2 mask", "3": "3 clicks", "none": "automatic"}
MEASURES = {
    "seconds_per_frame": "seconds per annotated frame",
    "clicks_per_masklet": "clicks per masklet",
    "edited_share": "share of edited frames",
}


def draw_report(report: Mapping[str, Any]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: a panel for each measure, then the verdicts; a bar for each phase."""
    phases = report["phases"]
    total = report["total"]
    heading = (
        f"{report['recordings']} recordings, {report['frames']} frames, {total['masklets']} masklets, "
        f"{total['annotated_frames']} annotated frames"
    )
    panels = [_title(heading)]
    panels += [_bars(title, {name: row[key] for name, row in phases.items()}) for key, title in MEASURES.items()]
    panels.append(_verdicts({name: row["verdicts"] for name, row in phases.items()}))
    return np.vstack(panels)


def write_picture(path: Path, report: Mapping[str, Any]) -> None:
    """Write ``draw_report`` as PNG; a missing folder is created. OSError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cv2.imencode(".png", draw_report(report))[1].tobytes())


def _title(text: str) -> NDArray[np.uint8]:
    image = np.full((PANEL_PX, WIDTH_PX, 3), WHITE, np.uint8)
    _write(image, text, 20, 38, 0.6)
    return image


def _panel(title: str, rows: int) -> NDArray[np.uint8]:
    image = np.full((PANEL_PX + ROW_PX * max(rows, 1), WIDTH_PX, 3), WHITE, np.uint8)
    cv2.line(image, (20, 8), (WIDTH_PX - 20, 8), GREY, 1)
    _write(image, title, 20, 38, 0.6)
    return image


def _bars(title: str, values: Mapping[str, float | None]) -> NDArray[np.uint8]:
    image = _panel(title, len(values))
    largest = max((value for value in values.values() if value), default=1.0)
    for row, (name, value) in enumerate(values.items()):
        y = PANEL_PX + row * ROW_PX
        _write(image, PHASE_NAMES[name], 20, y + 8)
        end = LEFT_PX + round((value or 0.0) / largest * (WIDTH_PX - LEFT_PX - RIGHT_PX))
        cv2.rectangle(image, (LEFT_PX, y - 8), (max(end, LEFT_PX + 1), y + 12), PHASE_BGR[name], -1)
        _write(image, "no frames" if value is None else f"{value:.3g}", end + 10, y + 8)
    return image


def _verdicts(counts: Mapping[str, Mapping[str, int]]) -> NDArray[np.uint8]:
    image = _panel("verdicts", len(counts))
    for number, (verdict, colour) in enumerate(VERDICT_BGR.items()):
        _write(image, verdict.value.replace("_", " "), 250 + 170 * number, 38, color=colour)
    for row, (name, found) in enumerate(counts.items()):
        y, x = PANEL_PX + row * ROW_PX, LEFT_PX
        _write(image, PHASE_NAMES[name], 20, y + 8)
        total = max(sum(found.values()), 1)
        for verdict, colour in VERDICT_BGR.items():
            width = round(found[verdict.value] / total * (WIDTH_PX - LEFT_PX - RIGHT_PX))
            if width:
                cv2.rectangle(image, (x, y - 8), (x + width, y + 12), colour, -1)
                x += width
        _write(image, " + ".join(str(found[verdict.value]) for verdict in VERDICT_BGR), x + 10, y + 8)
    return image


def _write(
    image: NDArray[np.uint8], text: str, x: int, y: int, size: float = 0.5, color: tuple[int, int, int] = BLACK
) -> None:
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)
