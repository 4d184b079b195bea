"""What the work on a project cost, as the SAM 2 paper measured it: seconds a frame, clicks a masklet, edited frames.

All of it is computed from the interaction log and the masklets, so that nothing needs to be counted while people work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sam2_ros.annotate.masklets import Masklet, Verdict
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.storage import Interaction

IDLE_S = 60.0  # a longer pause is not work: of such a gap nothing counts
BREAKS = ("open", "close")  # the time before these is not work on a masklet
CLICKS = {"click": 1, "box": 2}
STROKES = ("brush", "erase", "hold")
VERIFYING = ("verdict",)


@dataclass
class PhaseCost:
    """What one annotation mode cost."""

    seconds: float = 0.0
    clicks: int = 0
    strokes: int = 0
    undone: int = 0
    masklets: list[Masklet] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """JSON; null where there is nothing to divide by."""
        frames = sum(len(masklet.frames) for masklet in self.masklets)
        edited = sum(frame.source.by_hand for masklet in self.masklets for frame in masklet.frames.values())
        judged = [masklet for masklet in self.masklets if masklet.verdict is not Verdict.UNVERIFIED]
        verdicts = {v.value: sum(masklet.verdict is v for masklet in self.masklets) for v in Verdict}
        return {
            "masklets": len(self.masklets),
            "annotated_frames": frames,
            "seconds": round(self.seconds, 1),
            "seconds_per_frame": _ratio(self.seconds, frames),
            "clicks": self.clicks,
            "clicks_per_masklet": _ratio(self.clicks, len(self.masklets)),
            "brush_strokes": self.strokes,
            "undone": self.undone,
            "edited_frames": edited,
            "edited_share": _ratio(edited, frames),
            "verdicts": verdicts,
            "accepted_share": _ratio(verdicts[Verdict.ACCEPTED.value], len(judged)),
        }


def project_report(project: Project) -> dict[str, Any]:
    """Totals and rows by phase: "1", "2", "3", and "none" for masklets that nobody began in a phase.

    Time is that between two interactions that follow each other; it belongs to the later one, and so to its phase.
    Verification is counted apart: it is another person's work.
    """
    phases: dict[str, PhaseCost] = defaultdict(PhaseCost)
    masklets = [
        (recording.recording_id, masklet) for recording in project.recordings for masklet in recording.masklets.all()
    ]
    phase_of = {}
    for recording_id, masklet in masklets:
        name = _phase_name(masklet.phase)
        phase_of[recording_id, masklet.masklet_id] = name
        phases[name].masklets.append(masklet)
    verifying_s, reviewed, entries = 0.0, 0, list(project.log)
    for entry, seconds in _timed(entries):
        if entry.action in VERIFYING:
            verifying_s += seconds
            reviewed += 1
            continue
        known = phase_of.get((entry.recording, entry.masklet), "none")
        cost = phases[known if entry.phase is None else _phase_name(entry.phase)]
        cost.seconds += seconds
        cost.clicks += CLICKS.get(entry.action, 0)
        cost.strokes += entry.action in STROKES
        cost.undone += entry.action == "undo"
    total = PhaseCost(
        seconds=sum(each.seconds for each in phases.values()),
        clicks=sum(each.clicks for each in phases.values()),
        strokes=sum(each.strokes for each in phases.values()),
        undone=sum(each.undone for each in phases.values()),
        masklets=[masklet for _, masklet in masklets],
    )
    return {
        "recordings": len(project.recordings),
        "frames": sum(len(recording) for recording in project.recordings),
        "interactions": len(entries),
        "total": total.summary(),
        "verification": {
            "verdicts": reviewed,
            "seconds": round(verifying_s, 1),
            "seconds_per_masklet": _ratio(verifying_s, reviewed),
        },
        "phases": {name: phases[name].summary() for name in sorted(phases) if _is_used(phases[name])},
    }


def _timed(entries: Iterable[Interaction]) -> Iterable[tuple[Interaction, float]]:
    """Each interaction with the seconds that it took: since the one before, unless that was a pause or a break."""
    before: Interaction | None = None
    for entry in entries:
        seconds = 0.0
        if before is not None and before.action != "close" and entry.action not in BREAKS:
            gap = entry.time_s - before.time_s  # negative where the clock was set back
            seconds = gap if 0.0 <= gap <= IDLE_S else 0.0
        yield entry, seconds
        before = entry


def _phase_name(phase: int | None) -> str:
    return "none" if phase is None else str(phase)


def _is_used(cost: PhaseCost) -> bool:
    return bool(cost.masklets or cost.clicks or cost.strokes)


def _ratio(amount: float, count: int) -> float | None:
    return round(amount / count, 3) if count else None
