"""Automatic masklets of many recordings: a process each on this machine, or tasks of Ray on many.

A job is a recording. Jobs do not write: their masklets come back here, to the process that holds the projects' locks.
A job that fails, or whose process is killed, is tried once more, and then reported; the others continue.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cv2

from sam2_ros.annotate.detections import FrameDetection
from sam2_ros.annotate.masklets import Masklet, ProjectError, masklet_from_json, masklet_to_json
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording
from sam2_ros.annotate.storage import read_json, write_json

MAX_TRIES = 2
NICENESS = 10  # of jobs at least: who annotates on this machine meanwhile goes first. Ray's own default is 15
MARKER = "labelled.json"  # in a recording's folder: it was labelled, and how

Report = Callable[[int, int], None]  # frames done and in all


@dataclass(frozen=True)
class LabelSettings:
    """What to look for."""

    every: int = 16  # frames from one key frame to the next
    max_objects: int = 24  # at a time, the best first: each costs time in every frame
    min_area_share: float = 0.001  # of the image: smaller masks are left out
    max_area_share: float = 0.5  # larger ones are background
    min_frames: int = 3  # in which a masklet must be visible
    min_detection_score: float = 0.3

    def __post_init__(self) -> None:
        for name in ("every", "max_objects", "min_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class LabelJob:
    """One recording to label. Where Ray runs it, the folder must be at the same path there, on a shared file system."""

    folder: Path  # of the recording
    settings: LabelSettings
    network: Mapping[str, Any] = field(default_factory=dict)  # arguments of ``load_network``
    detections: Mapping[int, Sequence[FrameDetection]] | None = None
    threads: int = 1

    @property
    def name(self) -> str:
        """Project and recording, for people."""
        return f"{self.folder.parent.parent.name}/{self.folder.name}"

    def marker(self) -> dict[str, Any]:
        """What is kept of how it was labelled: the same again needs no second run."""
        network = {name: str(value) for name, value in sorted(self.network.items()) if value is not None}
        return {"settings": asdict(self.settings), "network": network, "detections": self.detections is not None}


@dataclass(frozen=True)
class LabelOutcome:
    """How a job ended: with masklets, as ``masklet_to_json`` has them, or with an error."""

    job: LabelJob
    masklets: tuple[dict[str, Any], ...] = ()
    error: str = ""


Work = Callable[[LabelJob, Report], list[dict[str, Any]]]


def label_job(job: LabelJob, report: Report) -> list[dict[str, Any]]:
    """The masklets of a job's recording; the work of a process or a task.

    Raises:
        ProjectError: the recording is not at this path here, or is damaged.
        ValueError: the network's arguments cannot be used.
    """
    import torch  # here, so that the process that only waits for jobs does without it

    from sam2_ros.annotate.auto_labels import label_recording
    from sam2_ros.tracking.loading import load_network

    if not (job.folder / "recording.json").is_file():
        raise ProjectError(f"no recording at {job.folder} on this machine: put the project on a shared file system")
    torch.set_num_threads(job.threads)  # the encoder's engine takes as many
    cv2.setNumThreads(job.threads)
    recording = Recording(job.folder, _refuse_to_write)
    network = load_network(**job.network)
    made = label_recording(network, recording, job.settings, job.detections, report)
    return [masklet_to_json(each) for each in made]


def _refuse_to_write() -> None:
    raise ProjectError("a job does not write")


def is_done(job: LabelJob) -> bool:
    """Whether the recording was labelled in the same way before."""
    path = job.folder / MARKER
    return path.is_file() and read_json(path) == job.marker()


def store_outcome(project: Project, outcome: LabelOutcome) -> list[Masklet]:
    """Put the masklets of a job into its project, which is open for writing, and remember that it is done."""
    recording = project.recording(outcome.job.folder.name)
    stored = []
    for values in outcome.masklets:
        made = masklet_from_json(values)
        stored.append(recording.masklets.add(class_name=made.class_name, origin=made.origin, frames=made.frames))
    write_json(recording.folder / MARKER, outcome.job.marker())
    project.log.append("add", recording=recording.recording_id, automatic=len(stored))
    return stored


def run_here(
    jobs: Sequence[LabelJob], workers: int, report: Callable[[str, int, int], None], work: Work = label_job
) -> Iterator[LabelOutcome]:
    """Run jobs on this machine, each in a process of its own, some at a time; outcomes as they come.

    Args:
        jobs: the recordings.
        workers: processes at a time.
        report: called with a job's name, its frames done and in all.
        work: what a process does.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in any state
    waiting = deque((job, 1) for job in jobs)
    running: dict[Connection, tuple[Any, LabelJob, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job, attempt = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_process, args=(theirs, work, job), daemon=True)
                process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                running[ours] = (process, job, attempt)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process, job, attempt = running[connection]
                kind, value = _received(connection)
                if kind == "progress":
                    report(job.name, *value)
                    continue
                del running[connection]
                connection.close()
                process.join()
                if kind == "done":
                    yield LabelOutcome(job, tuple(value))
                elif kind == "failed" or attempt >= MAX_TRIES:
                    yield LabelOutcome(job, error=value or f"its process ended with status {process.exitcode}")
                else:
                    waiting.append((job, attempt + 1))
    finally:
        for process, _, _ in running.values():
            process.terminate()
            process.join()


def _received(connection: Connection) -> tuple[str, Any]:
    """Kind and value of a message: "progress", "done", "failed"; "gone" without a value when the process died."""
    try:
        kind, value = connection.recv()
    except (EOFError, OSError):
        return "gone", ""
    return str(kind), value


def _process(connection: Connection, work: Work, job: LabelJob) -> None:
    """The life of a process: one job."""

    def report(done: int, total: int) -> None:
        connection.send(("progress", (done, total)))

    _give_way()
    try:
        connection.send(("done", work(job, report)))
    except Exception as error:  # of any kind: the other recordings continue
        connection.send(("failed", f"{type(error).__name__}: {error}"))


def _give_way() -> None:
    """Make this process, whose life is labelling, at least as nice as ``NICENESS``."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


def run_on_ray(
    jobs: Sequence[LabelJob], address: str, report: Callable[[str, int, int], None], work: Work = label_job
) -> Iterator[LabelOutcome]:
    """Run jobs as tasks of a Ray cluster; outcomes as they come. Ray runs a task again whose worker dies.

    Args:
        jobs: the recordings.
        address: of the cluster: "auto", "ray://host:10001", "host:6379"; "local" starts one here.
        report: called with "", the jobs done and in all.
        work: what a task does.

    Raises:
        ProjectError: Ray is not installed, or there is no cluster at this address.
    """
    try:
        import ray
    except ImportError as error:
        raise ProjectError(f"--ray needs the package ray ({error}): pip install 'sam2_ros[ray]'") from error
    started = not ray.is_initialized()
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, include_dashboard=None)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ProjectError(f"no Ray cluster at {address!r}: {error}") from error

    def task(job: LabelJob) -> list[dict[str, Any]]:
        _give_way()
        return work(job, lambda _done, _total: None)

    try:
        waiting = {}
        for job in jobs:
            gpus = 1 if str(job.network.get("device", "cpu")).startswith("cuda") else 0
            remote = ray.remote(num_cpus=job.threads, num_gpus=gpus, max_retries=MAX_TRIES - 1)(task)
            waiting[remote.remote(job)] = job
        while waiting:
            report("", len(jobs) - len(waiting), len(jobs))
            finished, _ = ray.wait(list(waiting), timeout=1.0)
            for reference in finished:
                job = waiting.pop(reference)
                try:
                    yield LabelOutcome(job, tuple(ray.get(reference)))
                except ray.exceptions.RayError as error:
                    yield LabelOutcome(job, error=str(getattr(error, "cause", None) or error).splitlines()[0])
    finally:
        if started:
            ray.shutdown()
