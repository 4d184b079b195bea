"""Session files damaged in every way: rejected with the one error and nothing changed, or loaded and tracked on."""

from __future__ import annotations

import copy
import io
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_rig import SessionRig, click
from snapshots import session_snapshot
from strange_messages import check_serialises, damaged, strange_texts
from tiny_model import noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.node.conversions import view_to_message
from sam2_ros.session.persistence import SessionFileError, read_session
from sam2_ros.tracking.tracker import Tracker

FRAMES = noise_frames(6)


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model()


def a_rig(model: SAM2, *object_ids: str, shown: int = 1) -> SessionRig:
    rig = SessionRig(Tracker(model, buffer_frames=2))
    rig.prompt(*(click(object_id, x=9 + place) for place, object_id in enumerate(object_ids)))
    for index in range(shown):
        rig.show(FRAMES[index], stamp_s=10 + index)
    return rig


@pytest.fixture(scope="module")
def saved(model: SAM2) -> dict[str, Any]:
    """Three images, two objects with memories, one that waits, and a gap in the labels."""
    with closing(a_rig(model, "mug", "gone", "tin", shown=3)) as rig:
        rig.session.remove(["gone"]).result()
        rig.prompt(click("new", x=30))
        return rig.session.save().result()


def as_file(plain: object) -> bytes:
    torch.save(plain, buffer := io.BytesIO())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def whole(saved: dict[str, Any]) -> bytes:
    return as_file(saved)


def load(model: SAM2, path: Path, content: bytes) -> bool:
    """Whether a session that has other objects took it; both ways it goes on well."""
    path.write_bytes(content)
    with closing(a_rig(model, "here")) as rig:
        before = session_snapshot(rig.session)
        try:
            rig.session.load(read_session(path), str(path)).result()
            taken = True
        except SessionFileError as error:
            assert str(error).encode()  # it is sent to whoever asked
            taken = False
            assert session_snapshot(rig.session) == before
            assert [item.tracked.object_id for item in rig.session.view.objects] == ["here"]
        check_serialises(view_to_message(rig.session.view, with_masks=True))
        for index in (1, 2):
            rig.offer_pixels(FRAMES[index], stamp_s=20 + index)
            rig.settle()
            stats = rig.session.stats()
            assert stats.failed == 0, stats.last_error
            check_serialises(view_to_message(rig.session.view, with_masks=True))
            (outcome,) = rig.prompt(click(""))
            assert outcome.accepted or "all labels" in outcome.error
        load_again = rig.session.load(rig.session.save().result(), "")
        assert load_again.exception() is None  # what was taken can be saved and taken once more
        return taken


def test_the_whole_file_is_taken(model: SAM2, tmp_path: Path, whole: bytes) -> None:
    assert load(model, tmp_path / "s.pt", whole)


@given(data=st.data())
def test_a_damaged_file(
    model: SAM2, tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    load(model, tmp_path_factory.getbasetemp() / "damaged.pt", data.draw(damaged(whole)))


@given(data=st.data())
def test_a_file_of_other_parts_with_right_checksums(
    model: SAM2, tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(parts)
    picked = st.sampled_from(names)
    kind = data.draw(st.sampled_from(["swap", "damage", "drop", "repeat"]))
    name, other = data.draw(picked), data.draw(picked)
    if kind == "swap":
        parts[name], parts[other] = parts[other], parts[name]
    elif kind == "damage":
        parts[name] = data.draw(damaged(parts[name]))
    elif kind == "drop":
        del parts[name]
    else:
        parts[name] *= 2
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_STORED) as out:
        for each, content in parts.items():
            out.writestr(each, content)
    load(model, tmp_path_factory.getbasetemp() / "parts.pt", buffer.getvalue())


odd_tensors = st.sampled_from(
    [
        torch.zeros(0),
        torch.zeros(()),
        torch.zeros(1).expand(10**5, 10**5),
        torch.full((1, 32), float("nan")),
        torch.full((1, 32), 3e38),
        torch.zeros(1, 32, dtype=torch.float64),
        torch.ones(1, 32, requires_grad=True),
        torch.zeros(1, 16, 4, 4, dtype=torch.bfloat16),
        torch.full((1, 16, 4, 4), 3e38, dtype=torch.bfloat16),
        torch.zeros(2, 2).to_sparse(),
        torch.ones(48, 80, dtype=torch.bool),
        torch.ones(1, 2, dtype=torch.complex64),
    ]
)
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([2**31, 2**53, 2**62, 2**70, -(2**70), 65535, 65536]),
    st.floats(),
    strange_texts,
    st.sampled_from(["\ud800", "a\0b"]),
    st.binary(max_size=3),
    st.just([]),
    st.just({}),
    st.just(("mug",)),
    odd_tensors,
)


def places_in(plain: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested dicts and lists."""
    keys = list(plain) if isinstance(plain, dict) else list(range(len(plain))) if isinstance(plain, list) else []
    return [(plain, key) for key in keys] + [each for key in keys for each in places_in(plain[key])]


@given(data=st.data())
def test_a_file_with_other_values(
    model: SAM2, tmp_path_factory: pytest.TempPathFactory, saved: dict[str, Any], data: st.DataObject
) -> None:
    plain = copy.deepcopy(saved)
    for _ in range(data.draw(st.integers(1, 2))):
        places = places_in(plain)
        container, key = places[data.draw(st.integers(0, len(places) - 1))] if places else (plain, "objects")
        kind = data.draw(st.sampled_from(["value", "value", "value", "drop", "other key", "swap"]))
        if kind == "value":
            container[key] = data.draw(odd_values)
        elif kind == "drop":
            del container[key]
        elif kind == "other key" and isinstance(container, dict):
            container[data.draw(st.one_of(st.integers(-1, 9), strange_texts))] = container.pop(key)
        elif places:
            other, other_key = places[data.draw(st.integers(0, len(places) - 1))]
            container[key] = copy.deepcopy(other[other_key])
    load(model, tmp_path_factory.getbasetemp() / "values.pt", as_file(plain))
