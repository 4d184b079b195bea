"""What is exported comes back the same, is what the readers of the formats expect, and leaves nothing half done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_project import SIZE_HW, add_block, block, make_project, painted

from sam2_ros.annotate import export_formats
from sam2_ros.annotate.exports import ExportSettings, export_project
from sam2_ros.annotate.imports import import_source
from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource, ProjectError, Verdict
from sam2_ros.annotate.polygons import mask_of_polygon, polygon_of_mask
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.sources import find_sources
from sam2_ros.cli import main
from sam2_ros.data.clips.video_clips import VideoClips, open_training_videos
from sam2_ros.data.files.masks import decode_rle
from sam2_ros.data.files.sequences import open_sequences
from sam2_ros.evaluation.trackers import HoldTracker
from sam2_ros.evaluation.vos import VosEvaluator

FORMATS = tuple(export_formats.WRITERS)


def labelled_project(path: Path, recordings: tuple[str, ...] = ("clip",)) -> Project:
    """Per recording two masklets that do not overlap: one goes out of sight, one is prompted, locked and accepted."""
    project = make_project(path, 5, recordings)
    project.set_classes(["cup", "plate"])
    for recording in project.recordings:
        store = recording.masklets
        gone = MaskletFrame.of_mask(np.zeros(SIZE_HW, bool), MaskSource.PROPAGATED, score=0.25, quality=0.5)
        first = add_block(recording, 5, "mug", "cup")
        store.set_frame(first, 3, gone)
        ring = block(0, y0=30)
        ring[34:38, 15:20] = False  # a hole
        clicked = MaskletFrame.of_mask(ring, MaskSource.CLICK, prompts=[FramePrompt(((12.0, 31.0),), (1,))])
        second = store.add(name="thing", frames=dict.fromkeys(range(5), clicked)).masklet_id
        store.lock_frames(second, [2])
        store.set_verdict(second, Verdict.ACCEPTED, "good")
    return project


def without_id(masklet: Masklet) -> Masklet:
    return replace(masklet, masklet_id="")


def imported(tmp_path: Path, source: Path) -> Project:
    project = Project.create(tmp_path / "again", "test")
    for each in find_sources(source, fps=6.0):
        import_source(project, each)
    return project


@pytest.mark.parametrize("kind", FORMATS)
def test_import_of_what_was_exported_gives_the_same_masklets_and_frames(tmp_path: Path, kind: str) -> None:
    with labelled_project(tmp_path / "p", ("a", "b_1")) as project:
        export_project(project, tmp_path / "out ä", ExportSettings(kind))
        with imported(tmp_path, tmp_path / "out ä") as again:
            assert [r.recording_id for r in again.recordings] == ["a", "b_1"]
            for before, after in zip(project.recordings, again.recordings, strict=True):
                assert list(map(without_id, after.masklets.all())) == list(map(without_id, before.masklets.all()))
                assert [after.frame_jpeg(i) for i in range(5)] == [before.frame_jpeg(i) for i in range(5)]
                assert after.info.stamps_ns == before.info.stamps_ns and after.info.fps == before.info.fps
                assert after.info.frame_ids == before.info.frame_ids


@pytest.mark.parametrize("kind", ("sav", "davis", "coco"))
def test_without_the_sidecar_masks_and_identities_come_back(tmp_path: Path, kind: str) -> None:
    with labelled_project(tmp_path / "p") as project:
        export_project(project, tmp_path / "out", ExportSettings(kind))
        (tmp_path / "out" / "masklets.json").unlink()
        with imported(tmp_path, tmp_path / "out") as again:
            for before, after in zip(*(p.recordings[0].masklets.all() for p in (project, again)), strict=True):
                assert after.frame_indices == before.frame_indices
                for index in before.frames:
                    np.testing.assert_array_equal(after.frames[index].mask(), before.frames[index].mask())
                    assert after.frames[index].visible == before.frames[index].visible


def test_yolo_without_the_sidecar_is_refused(tmp_path: Path) -> None:
    with labelled_project(tmp_path / "p") as project:
        export_project(project, tmp_path / "out", ExportSettings("yolo"))
    (tmp_path / "out" / "masklets.json").unlink()
    with pytest.raises(ProjectError, match="no identities"):
        find_sources(tmp_path / "out", 6.0)


def test_coco_is_what_pycocotools_reads(tmp_path: Path) -> None:
    coco_module = pytest.importorskip("pycocotools.coco", reason="needs it: pip install -e '.[test]'")
    with labelled_project(tmp_path / "p") as project:
        export_project(project, tmp_path / "out", ExportSettings("coco"))
        coco = coco_module.COCO(str(tmp_path / "out" / "annotations" / "instances.json"))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["cup", "plate", "object"]
        masklets = project.recordings[0].masklets.all()
        seen = 0
        for image in coco.loadImgs(coco.getImgIds()):
            assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
            for each in coco.loadAnns(coco.getAnnIds([image["id"]])):
                truth = masklets[each["track_id"] - 1].frames[image["frame_index"]].mask()
                np.testing.assert_array_equal(coco.annToMask(each).astype(bool), truth)
                x, y, width, height = each["bbox"]
                assert truth[y : y + height, x : x + width].sum() == truth.sum() == each["area"]
                seen += 1
        assert seen == 9


@pytest.mark.parametrize("kind", ("sav", "davis"))
def test_training_and_evaluation_take_it_unchanged(tmp_path: Path, kind: str) -> None:
    with labelled_project(tmp_path / "p") as project:
        export_project(project, tmp_path / "out", ExportSettings(kind))
    videos = open_training_videos(tmp_path / "out")
    clip = VideoClips(videos, 32, 4, 2)(0)
    assert len(videos[0]) == 5 and clip.masks_tnhw[0].any()
    sequences = open_sequences(tmp_path / "out")
    result = VosEvaluator(HoldTracker, "mask", tmp_path / "masks").evaluate(sequences[0])
    assert [each.value for each in result.objects] == [1, 2]
    assert result.objects[1].score is not None and result.objects[1].score.region == 1.0  # it does not move


def test_the_annotation_of_sav_is_that_of_its_training_set(tmp_path: Path) -> None:
    with labelled_project(tmp_path / "p") as project:
        export_project(project, tmp_path / "out", ExportSettings("sav"))
        masklets = project.recordings[0].masklets.all()
    values = json.loads((tmp_path / "out" / "clip_manual.json").read_text())
    assert (values["video_frame_count"], values["masklet_num"], len(values["masklet"])) == (17, 2, 5)
    for index, codes in enumerate(values["masklet"]):
        for masklet, code in zip(masklets, codes, strict=True):
            np.testing.assert_array_equal(decode_rle(code), masklet.frames[index].mask())
    assert values["masklet_edited_frame_count"] == [4, 5]


def test_where_masks_overlap_davis_keeps_the_smaller_one_and_says_so(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", 2) as project:
        small = np.zeros(SIZE_HW, bool)
        small[10:14, 12:16] = True
        add_block(project.recordings[0], 1)
        project.recordings[0].masklets.add(frames={0: painted(small)})
        summary = export_project(project, tmp_path / "out", ExportSettings("davis"))
        assert summary["overlapping_px"] == 16
        masks = open_sequences(tmp_path / "out")[0].masks(0)
        np.testing.assert_array_equal(masks[2], small)
        np.testing.assert_array_equal(masks[1], block(0) & ~small)
        assert open_sequences(tmp_path / "out")[0].annotated_frames == (0,)


def test_what_is_left_out(tmp_path: Path) -> None:
    with labelled_project(tmp_path / "p") as project:
        store = project.recordings[0].masklets
        for verdict in (Verdict.REJECTED, Verdict.NOT_TRACKABLE):
            store.set_verdict(add_block(project.recordings[0], 2), verdict)
        store.add(name="nothing yet")
        summary = export_project(project, tmp_path / "all", ExportSettings("davis"))
        assert summary["masklets"] == 2
        assert summary["skipped"] == {"empty": 1, "not_trackable": 1, "rejected": 1}
        summary = export_project(project, tmp_path / "good", ExportSettings("davis", accepted_only=True))
        assert summary["masklets"] == 1 and summary["skipped"]["unverified"] == 2


@pytest.mark.parametrize(
    ("recordings", "split", "expected"),
    [
        (("a", "b", "c", "d", "e"), 0.8, {"a": "train", "b": "train", "c": "train", "d": "train", "e": "val"}),
        (("a", "b"), 0.95, {"a": "train", "b": "val"}),
        (("a", "b"), 0.05, {"a": "train", "b": "val"}),
        (("a",), 0.6, {"a_train": "train", "a_val": "val"}),
    ],
)
def test_a_split_parts_recordings_and_one_recording_in_time(
    tmp_path: Path, recordings: tuple[str, ...], split: float, expected: dict[str, str]
) -> None:
    with labelled_project(tmp_path / "p", recordings) as project:
        for kind in FORMATS:
            assert export_project(project, tmp_path / kind, ExportSettings(kind, split=split))["sequences"] == expected
    val = sorted(name for name, part in expected.items() if part == "val")
    assert (tmp_path / "davis" / "ImageSets" / "val.txt").read_text().split() == val
    coco = json.loads((tmp_path / "coco" / "annotations" / "val.json").read_text())
    assert [video["name"] for video in coco["videos"]] == val
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert data["val"] == "images/val" and data["names"] == {0: "cup", 1: "plate", 2: "object"}
    assert {path.stem.rpartition("_")[0] for path in (tmp_path / "yolo" / "labels" / "val").iterdir()} == set(val)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = labelled_project(tmp_path / "p")
    project.close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    command = ["dataset", "export", str(tmp_path / "p"), "--format", "coco", "--out"]
    assert main([*command, str(tmp_path / "full")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out"), "--split", "1.5"]) == 2
    assert "between 0 and 1" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export_formats.shutil, "copyfile", full)
        assert main([*command, str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["full", "p"]
    assert main([*command, str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["masklets"] == 2
    make_project(tmp_path / "empty").close()
    assert main(["dataset", "export", str(tmp_path / "empty"), "--format", "sav", "--out", str(tmp_path / "o")]) == 2
    assert "no masklet to export (there is none)" in capsys.readouterr().err


def blobs(seed: int) -> np.ndarray:
    """Random discs with a hole in some of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :60]
    mask = np.zeros((40, 60), bool)
    for _ in range(int(rng.integers(1, 4))):
        cy, cx, radius = rng.integers(5, 35), rng.integers(5, 55), rng.integers(2, 12)
        distance = np.hypot(y - cy, x - cx)
        mask |= (distance < radius) & (distance > radius / 3 - 1)
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_a_polygon_is_the_mask_but_for_thin_bridges(seed: int) -> None:
    mask = blobs(seed)
    again = mask_of_polygon(polygon_of_mask(mask), mask.shape)
    assert (again | ~mask).all(), "no pixel of the mask is lost"
    assert (again & ~mask).sum() <= 60 + 40  # a bridge is not longer than the image


@pytest.mark.parametrize("pixels", ([(0, 0)], [(3, 4), (3, 5)], [(2, 2), (3, 3)]))
def test_tiny_masks_have_polygons_too(pixels: list[tuple[int, int]]) -> None:
    mask = np.zeros((6, 8), bool)
    for y, x in pixels:
        mask[y, x] = True
    polygon = polygon_of_mask(mask)
    assert len(polygon) >= 3
    np.testing.assert_array_equal(mask_of_polygon(polygon, mask.shape), mask)
    with pytest.raises(ValueError, match="empty"):
        polygon_of_mask(np.zeros((4, 4), bool))
