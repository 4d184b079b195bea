"""Changes that were made as one are undone as one, whatever was done to other masklets between them."""

from __future__ import annotations

from pathlib import Path

from annotate_rig import a_square, make_project

from sam2_ros.annotate.masklets import MaskletFrame, MaskSource


def test_a_propagation_in_batches_is_one_undo(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        store = project.recordings[0].masklets
        frame = MaskletFrame.of_mask(a_square(3, 3), MaskSource.PROPAGATED)
        one, other = store.add(name="one").masklet_id, store.add(name="other").masklet_id
        store.set_frames(one, {1: frame}, group="job 1")
        store.set_frames(other, {4: frame})
        store.set_frames(one, {2: frame}, group="job 1")
        store.set_frames(one, {3: frame}, group="job 2")
        for expected in ((1, 2), (1, 2), ()):  # job 2, the other masklet's frame, job 1 as a whole
            store.undo()
            assert store.get(one).frame_indices == expected
        assert store.get(other).frame_indices == ()
        store.redo()
        assert store.get(one).frame_indices == (1, 2)
