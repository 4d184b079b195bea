"""A project: a folder with recordings, their masklets, the classes, and the log of every interaction.

::

    PROJECT/
      project.json                     format, version, classes
      log.jsonl                        every interaction, appended only
      lock                             who has it open for writing
      recordings/<id>/recording.json   source, topic, size, stamps and frame ids
      recordings/<id>/frames/000000.jpg ...
      recordings/<id>/masklets/m0001.json ...
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from sam2_ros.annotate.masklets import ProjectError
from sam2_ros.annotate.recordings import Recording, RecordingWriter, recording_id_for
from sam2_ros.annotate.storage import PARTIAL_PREFIX, InteractionLog, ProjectLock, read_json, write_json

FORMAT = "sam2_ros project"
VERSION = 1


class Project:
    """An open project.

    >>> with Project.open(Path("kitchen")) as project:                       # doctest: +SKIP
    ...     for recording in project.recordings: ...
    """

    def __init__(self, path: Path, lock: ProjectLock | None) -> None:
        """For ``create`` and ``open``, which take the lock."""
        self.path = path
        self.log = InteractionLog(path / "log.jsonl")
        self._lock = lock
        self._values = _read_project_file(path)
        self._recordings_folder = path / "recordings"
        self._recordings: dict[str, Recording] = {}
        for folder in sorted(self._recordings_folder.iterdir()):
            if folder.name.startswith(PARTIAL_PREFIX):
                if lock is not None:  # an import that was stopped
                    shutil.rmtree(folder, ignore_errors=True)
            elif folder.is_dir():
                self._recordings[folder.name] = Recording(folder, self._check_writable)

    @classmethod
    def create(cls, path: Path, command: str = "sam2-ros") -> Project:
        """Make a new, empty project and open it.

        Raises:
            ProjectError: there is something at this path already, other than an empty folder.
            OSError: it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            known = (path / "project.json").is_file()
            what = "is a project already" if known else "exists already and is not an empty folder"
            raise ProjectError(f"{path} {what}: choose another path")
        (path / "recordings").mkdir(parents=True)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(path / "project.json", {"format": FORMAT, "version": VERSION, "created": created, "classes": []})
        return cls.open(path, command)

    @classmethod
    def open(cls, path: Path, command: str = "sam2-ros", *, read_only: bool = False) -> Project:
        """Open a project; ``close`` it, or use it as a context manager.

        Args:
            path: its folder.
            command: shown to others who want to write to the project as well.
            read_only: do not take the lock; every change is rejected.

        Raises:
            ProjectLockedError: another process has it open for writing.
            ProjectError: no project, a damaged one, or one of a newer version.
        """
        _read_project_file(path)  # before a lock file is created in a folder that is no project
        lock = None if read_only else ProjectLock(path / "lock", command)
        try:
            return cls(path, lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @property
    def read_only(self) -> bool:
        return self._lock is None

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """In order of id."""
        return tuple(self._recordings[recording_id] for recording_id in sorted(self._recordings))

    def recording(self, recording_id: str) -> Recording:
        """Raises ProjectError for an unknown id."""
        if recording_id not in self._recordings:
            known = ", ".join(sorted(self._recordings)) or "none"
            raise ProjectError(f"no recording {recording_id!r} in {self.path}; it has {known}")
        return self._recordings[recording_id]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that were named for the project, then those that masklets have beside them, in order of name."""
        named = [str(name) for name in self._values["classes"]]
        used = {m.class_name for recording in self.recordings for m in recording.masklets.all() if m.class_name}
        return (*named, *sorted(used - set(named)))

    def set_classes(self, classes: Sequence[str]) -> None:
        """Name the classes to choose from, in an order that exports keep; others may still be given to masklets."""
        self._check_writable()
        cleaned = [name.strip() for name in classes]
        if len(set(cleaned)) != len(cleaned) or not all(cleaned):
            raise ProjectError(f"classes: expected names that differ and are not empty, got {list(classes)}")
        values = {**self._values, "classes": cleaned}
        write_json(self.path / "project.json", values)
        self._values = values

    def new_recording(self, name: str) -> RecordingWriter:
        """A writer for the frames of a new recording; hand the folder of its ``finish`` to ``add_recording``."""
        self._check_writable()
        return RecordingWriter(self._recordings_folder, recording_id_for(name, [*self._recordings]))

    def add_recording(self, folder: Path) -> Recording:
        """Add a recording that a ``RecordingWriter`` finished."""
        recording = Recording(folder, self._check_writable)
        self._recordings[recording.recording_id] = recording
        return recording

    def remove_recording(self, recording_id: str) -> None:
        """Delete a recording with its frames and masklets."""
        self._check_writable()
        folder = self.recording(recording_id).folder
        partial = folder.with_name(f"{PARTIAL_PREFIX}{recording_id}")
        folder.rename(partial)  # at once: a crash leaves all of it or nothing
        del self._recordings[recording_id]
        shutil.rmtree(partial, ignore_errors=True)

    def close(self) -> None:
        """Let others open it. May be called more than once; changes are rejected from then on."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_writable(self) -> None:
        if self._lock is None:
            raise ProjectError(f"{self.path} is open for reading only")


def _read_project_file(path: Path) -> dict[str, Any]:
    if not (path / "project.json").is_file():
        raise ProjectError(f"{path} is no project: there is no project.json; make one with `sam2-ros dataset create`")
    values = read_json(path / "project.json")
    if not isinstance(values, dict) or values.get("format") != FORMAT or not isinstance(values.get("version"), int):
        raise ProjectError(f"{path}/project.json is not that of a project of sam2_ros")
    if values["version"] > VERSION:
        raise ProjectError(
            f"{path} was written by a newer sam2_ros (project version {values['version']}, this one reads up to "
            f"{VERSION}): update sam2_ros; nothing was changed"
        )
    return values
