"""A frame is held over a range: of an object that rests there, or is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from annotate_rig import SIZE_HW, a_square, make_project
from tiny_model import tiny_model

from sam2_ros.annotate.editing import Editor
from sam2_ros.annotate.masklet_store import MaskletStore
from sam2_ros.annotate.masklets import MaskletFrame, MaskSource

DISC = "disc"


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    editor = Editor(make_project(tmp_path / "p"), tiny_model())
    yield editor
    editor.close()


@pytest.fixture
def store(editor: Editor) -> MaskletStore:
    return editor.project.recording(DISC).masklets


def test_a_held_mask_leaves_locked_frames_and_one_undo_takes_it_back(editor: Editor, store: MaskletStore) -> None:
    shown = MaskletFrame.of_mask(a_square(10, 10), MaskSource.CLICK)
    hidden = MaskletFrame.of_mask(np.zeros(SIZE_HW, np.bool_), MaskSource.BRUSH, locked=True)
    masklet = store.add(frames={2: shown, 5: hidden}).masklet_id
    assert editor.hold(DISC, masklet, 2, 1, 6, 3) == 4
    frames = store.get(masklet).frames
    assert sorted(frames) == [1, 2, 3, 4, 5, 6] and frames[2] == shown and frames[5] == hidden
    assert all(frames[i].rle == shown.rle and frames[i].source is MaskSource.BRUSH for i in (1, 3, 4, 6))
    editor.undo(DISC)
    assert sorted(store.get(masklet).frames) == [2, 5]
    assert [each.action for each in editor.project.log] == ["hold", "undo"]


def test_a_hidden_object_is_held_hidden(editor: Editor, store: MaskletStore) -> None:
    masklet = store.add(frames={0: MaskletFrame.of_mask(a_square(10, 10), MaskSource.CLICK)}).masklet_id
    editor.paint(DISC, masklet, 3, None, "brush", 3)
    assert editor.hold(DISC, masklet, 3, 3, 5, 3) == 2
    assert [store.get(masklet).frames[i].visible for i in (0, 3, 4, 5)] == [True, False, False, False]
