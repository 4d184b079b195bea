"""Session files: whole or not at all, and nothing is believed that does not check."""

from __future__ import annotations

import copy
import errno
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from tiny_model import noise_frames, tiny_model

from sam2_ros.node.conversions import stamp_to_ns
from sam2_ros.session.objects import ObjectRegistry, PromptRequest
from sam2_ros.session.persistence import LARGEST_BYTES, SessionFileError, read_session, write_session
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState

SIZE = (48, 80)


def click(object_id: str, x: float = 40, class_id: str = "") -> PromptRequest:
    return PromptRequest(object_id, class_id, points_xy=np.array([[x, 20]], np.float32), point_labels=np.array([1]))


def a_registry(seed: int = 0) -> tuple[ObjectRegistry, Tracker]:
    tracker = Tracker(tiny_model(seed=seed))
    return ObjectRegistry(tracker), tracker


def show(registry: ObjectRegistry, tracker: Tracker, count: int, first: int = 0) -> list[np.ndarray]:
    """The label images of some frames."""
    labels = []
    for index, frame in enumerate(noise_frames(first + count)[first:], first):
        result = tracker.step(frame)
        registry.update(result, stamp_ns=1000 + index)
        labels.append(result.label_image)
    return labels


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def saved() -> dict[str, Any]:
    registry, tracker = a_registry()
    registry.accept_prompts([click("mug", class_id="cup"), click(""), click("gone", x=10)], SIZE)
    registry.remove(["gone"])
    show(registry, tracker, 3)
    return registry.save()


def test_another_process_would_go_on_with_the_same_objects_bit_for_bit(tmp_path: Path) -> None:
    registry, tracker = a_registry()
    registry.accept_prompts([click("mug", class_id="cup"), click(""), click("gone", x=10)], SIZE)
    registry.remove(["gone"])
    show(registry, tracker, 3)
    write_session(tmp_path / "s.pt", registry.save(), overwrite=False)
    expected = show(registry, tracker, 3, first=3)
    again, new_tracker = a_registry()
    again.accept_prompts([click("other")], SIZE)  # is replaced
    again.load(read_session(tmp_path / "s.pt"))
    assert all(map(np.array_equal, show(again, new_tracker, 3, first=3), expected))
    before, after = ([(v.tracked.object_id, v.tracked.label, v.class_id) for v in b.views()] for b in (registry, again))
    assert before == after == [("mug", 1, "cup"), ("object_1", 2, "")]
    assert [(v.first_seen_ns, v.last_seen_ns) for v in again.views()] == [(1000, 1005)] * 2
    (outcome,) = again.accept_prompts([click("")], SIZE)
    assert (outcome.object_id, outcome.label) == ("object_2", 4)  # neither names nor labels are given twice


def test_a_name_that_was_chosen_since_the_file_was_written_is_not_given_again() -> None:
    registry, _ = a_registry()
    registry.accept_prompts([click("")], SIZE)
    plain = registry.save()
    registry.accept_prompts([click("")], SIZE)
    registry.load(plain)
    assert [view.tracked.object_id for view in registry.views()] == ["object_1"]
    assert registry.accept_prompts([click("")], SIZE)[0].object_id == "object_3"


@pytest.mark.parametrize("stamp", [Time(sec=2**31 - 1, nanosec=2**32 - 1), Time(sec=-(2**31)), Time(sec=-1)])
def test_what_was_seen_at_any_time_can_be_loaded_again(stamp: Time) -> None:
    registry, tracker = a_registry()
    registry.accept_prompts([click("mug")], SIZE)
    registry.update(tracker.step(noise_frames(1)[0]), stamp_to_ns(stamp))
    assert registry.views()[0].tracked.state is ObjectState.TRACKED
    again, _ = a_registry()
    again.load(registry.save())
    assert again.views()[0].last_seen_ns == registry.views()[0].last_seen_ns


def test_a_file_is_replaced_only_when_asked(tmp_path: Path, saved: dict[str, Any]) -> None:
    path = tmp_path / "s.pt"
    write_session(path, saved, overwrite=False)
    with pytest.raises(SessionFileError, match="exists: set overwrite"):
        write_session(path, saved, overwrite=False)
    write_session(path, saved, overwrite=True)
    assert names_in(tmp_path) == ["s.pt"]


def test_only_regular_files_are_replaced(tmp_path: Path, saved: dict[str, Any]) -> None:
    fifo, to_fifo, loop = tmp_path / "fifo", tmp_path / "to_fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    to_fifo.symlink_to(fifo)
    loop.symlink_to(loop)
    for path, why in (
        (fifo, "is a FIFO"),
        (to_fifo, "is a FIFO"),
        (loop, "loop|levels"),
    ):  # no device: it could be lost
        with pytest.raises(SessionFileError, match=f"(?i:{why}).*nothing was changed"):
            write_session(path, saved, overwrite=True)
    assert fifo.is_fifo() and to_fifo.is_symlink() and loop.is_symlink()
    assert sorted(names_in(tmp_path)) == ["fifo", "loop", "to_fifo"]


def test_a_link_stays_and_the_file_that_it_names_is_written(tmp_path: Path, saved: dict[str, Any]) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "s.pt", tmp_path / "link.pt"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with pytest.raises(SessionFileError, match="exists: set overwrite"):
        write_session(link, saved, overwrite=False)
    write_session(link, saved, overwrite=True)
    assert link.is_symlink() and names_in(tmp_path / "folder") == ["s.pt"]
    assert read_session(target).keys() == saved.keys()


@pytest.mark.parametrize("where", ["first bytes", "half way", "fsync", "rename"])
def test_a_full_disk_leaves_the_old_file_whole(
    tmp_path: Path, saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "s.pt"
    path.write_bytes(b"the old file")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    if where in ("fsync", "rename"):
        monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), fail)
    else:
        room = 0 if where == "first bytes" else 5000
        open_ = os.fdopen

        class SmallDisk(io.BufferedWriter):
            def write(self, data: Any) -> int:
                if self.tell() + len(data) > room:
                    raise full
                return super().write(data)

        monkeypatch.setattr(os, "fdopen", lambda handle, mode: SmallDisk(open_(handle, "wb", buffering=0)))
    with pytest.raises(SessionFileError, match=r"could not be written.*nothing was changed"):
        write_session(path, saved, overwrite=True)
    monkeypatch.undo()
    assert path.read_bytes() == b"the old file"
    assert names_in(tmp_path) == ["s.pt"]


def test_paths_that_cannot_be_written(tmp_path: Path, saved: dict[str, Any]) -> None:
    for bad, why in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "s.pt", "could not be written: .*No such file"),
        (tmp_path / ("long" * 100), "could not be written: .*name too long"),
    ):
        with pytest.raises(SessionFileError, match=why):
            write_session(bad, saved, overwrite=True)
    for bad, why in ((tmp_path, "is a folder: expected a regular file"), (tmp_path / "none.pt", "could not be read")):
        with pytest.raises(SessionFileError, match=why):
            read_session(bad)


@pytest.mark.parametrize("kind", ["device", "link to a device", "fifo", "too large", "empty"])
def test_what_has_no_end_is_not_opened(
    tmp_path: Path, saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, why = tmp_path / "s.pt", "is a device"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(path)
        why = "is a FIFO"
    elif kind == "too large":
        with path.open("wb") as file:
            file.truncate(LARGEST_BYTES + 1)  # a sparse file takes no room
        why = "is too large"
    else:
        path.touch()
        why = "is an empty file"

    def open_(*_: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(zipfile, "ZipFile", open_)
    with pytest.raises(SessionFileError, match=f"{why}.*was not opened"):
        read_session(path)


class Evil:
    """Unpickling it would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def packed(path: Path) -> bytes:
    """The same file, compressed: what could be a bomb."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as out:
        for entry in archive.infolist():
            out.writestr(entry.filename, archive.read(entry))
    return buffer.getvalue()


def saved_as(plain: object, **options: Any) -> bytes:
    torch.save(plain, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: b"", "an empty file; it is not a session"),
        (lambda path: b"not a file of ours" * 100, "not a session or damaged"),
        (lambda path: path.read_bytes()[:-200], "not a session or damaged"),
        (lambda path: path.read_bytes()[: path.stat().st_size // 2], "not a session or damaged"),
        (packed, "or packed"),
        (lambda path: saved_as(Evil()), "not a session or damaged"),
        (lambda path: saved_as({"a": 1}, _use_new_zipfile_serialization=False), "not a session or damaged"),
        (lambda path: saved_as([1, 2]), "expected a dict, got list"),
    ],
)
def test_other_files_are_rejected(
    tmp_path: Path, saved: dict[str, Any], monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], bytes], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.pt"
    write_session(path, saved, overwrite=False)
    path.write_bytes(damage(path))
    with pytest.raises(SessionFileError, match=why):
        read_session(path)
    assert names_in(tmp_path) == ["s.pt"]


def test_a_flipped_bit_anywhere_is_rejected_or_changes_nothing(tmp_path: Path, saved: dict[str, Any]) -> None:
    path = tmp_path / "s.pt"
    write_session(path, saved, overwrite=False)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    registry, _ = a_registry()
    rejected = 0
    for place in random.integers(0, len(whole), 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            registry.load(read_session(path))
        except SessionFileError:
            rejected += 1
            assert registry.views() == ()
        else:  # in the padding between the parts, or a date
            assert [view.tracked.object_id for view in registry.views()] == ["mug", "object_1"]
            registry.clear()
    assert rejected > 70


def _broken(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def broken(plain: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(plain)
        change(changed)
        return changed

    return broken


@pytest.mark.parametrize(
    ("break_", "why"),
    [
        (_broken(lambda p: p.update(format="sam2_ros session 9")), "format"),
        (_broken(lambda p: p.pop("next_number")), r"missing \['next_number'\]"),
        (_broken(lambda p: p.update(more=1)), r"unexpected \[\"'more'\"\]"),
        (_broken(lambda p: p.update(next_number=0)), "next_number"),
        (_broken(lambda p: p.update(next_number=True)), "next_number"),
        (_broken(lambda p: p.update(tracker=[])), "tracker: expected a dict, got list"),
        (_broken(lambda p: p.update(objects={})), "objects: expected a list, got dict"),
        (_broken(lambda p: p["objects"].pop()), "expected those of the tracker"),
        (_broken(lambda p: p["objects"].reverse()), "expected those of the tracker"),
        (_broken(lambda p: p["objects"][0].update(class_id=7)), "class_id: expected a text"),
        (
            _broken(lambda p: p["objects"][0].update(class_id="\ud800")),
            "class_id: expected a text that a message can hold",
        ),
        (_broken(lambda p: p["objects"][0].update(object_id="a\0b")), "object_id: expected a text that a message can"),
        (_broken(lambda p: p["objects"][0].update(first_seen_ns=1 << 70)), "first_seen_ns"),
        (_broken(lambda p: p["objects"][0].update(last_seen_ns=1.5)), "last_seen_ns"),
        (_broken(lambda p: p["objects"].__setitem__(0, None)), r"objects\[0\]: expected"),
        (_broken(lambda p: p["tracker"].update(next_label=1)), "does not fit"),
        (_broken(lambda p: p["tracker"]["objects"][0].update(conditioning={})), "does not fit"),
    ],
)
def test_values_that_make_no_sense_are_rejected_and_nothing_changes(
    saved: dict[str, Any], break_: Callable[[dict[str, Any]], dict[str, Any]], why: str
) -> None:
    registry, tracker = a_registry()
    registry.accept_prompts([click("other", class_id="thing")], SIZE)
    with pytest.raises(SessionFileError, match=why):
        registry.load(break_(saved))
    (view,) = registry.views()
    assert (view.tracked.object_id, view.class_id, tracker.object_ids) == ("other", "thing", ("other",))


JUNK = [
    None,
    True,
    -1,
    1 << 80,
    0.5,
    float("nan"),
    "",
    "x",
    b"x",
    [],
    {},
    (),
    {1: 2},
    [[]],
    torch.zeros(0),
    torch.ones(2),
]


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested dicts and lists."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places_in(value[key]))]


def test_junk_anywhere_is_rejected_with_the_one_error_and_changes_nothing(saved: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    registry, tracker = a_registry()
    registry.accept_prompts([click("waits", x=10)], SIZE)
    taken = 0
    for _ in range(200):
        changed = copy.deepcopy(saved)
        places = places_in(changed)
        container, key = places[random.integers(len(places))]
        container[key] = JUNK[random.integers(len(JUNK))]
        try:
            registry.load(changed)
        except SessionFileError:
            assert tracker.object_ids == ("waits",)
        else:  # another class, say
            taken += 1
            registry.reset()
            registry.accept_prompts([click("waits", x=10)], SIZE)
    assert taken < 30


def test_a_session_of_other_weights_is_rejected(saved: dict[str, Any]) -> None:
    registry, tracker = a_registry(seed=1)
    with pytest.raises(SessionFileError, match="weights: expected that of this tracker"):
        registry.load(saved)
    assert tracker.object_ids == ()
