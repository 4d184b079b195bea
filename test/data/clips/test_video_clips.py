"""Videos with masks become training clips: pictures and masks stay together, in every layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.clips.video_clips import VideoClips, open_training_videos
from sam2_ros.data.files.masks import encode_rle, write_index_png
from sam2_ros.data.files.sequences import SAV_FRAMES_PER_ANNOTATION, LayoutError, _masklets, find_sav_videos

HEIGHT, WIDTH = 48, 64
LEFT, RIGHT = (250, 40, 40), (40, 40, 250)  # RGB of the two objects


def scene(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and index image: object 1 drifts right over the left half, object 2 down over the right one."""
    index = np.zeros((HEIGHT, WIDTH), np.uint8)
    index[8:28, 4 + t : 24 + t] = 1
    index[4 + t : 24 + t, 40:60] = 2
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[index == 1], image[index == 2] = LEFT, RIGHT
    return image, index


def write_davis(root: Path, name: str, num_frames: int, every: int = 1) -> None:
    for t in range(num_frames):
        image, index = scene(t)
        path = root / "JPEGImages" / name / f"{t:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
        if t % every == 0:
            write_index_png(root / "Annotations" / name / f"{t:05d}.png", index)


def write_sav(root: Path, name: str, num_annotations: int, kind: str = "manual") -> None:
    root.mkdir(parents=True, exist_ok=True)
    count = (num_annotations - 1) * SAV_FRAMES_PER_ANNOTATION + 1
    writer = cv2.VideoWriter(str(root / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 24, (WIDTH, HEIGHT))
    for frame in range(count):
        writer.write(scene(frame // SAV_FRAMES_PER_ANNOTATION)[0][..., ::-1])
    writer.release()
    masks = [[scene(t)[1] == value for value in (1, 2)] for t in range(num_annotations)]
    masks[-1][1][:] = False
    codes = [[encode_rle(mask) for mask in of_frame] for of_frame in masks]
    (root / f"{name}_{kind}.json").write_text(json.dumps({"video_id": name, "masklet": codes}))


@pytest.mark.parametrize("layout", ["davis", "sparse", "sav"])
def test_masks_lie_on_their_objects(tmp_path: Path, layout: str) -> None:
    if layout == "sav":
        write_sav(tmp_path, "sav_1", 6)
    else:
        write_davis(tmp_path, "a", 16, every=1 if layout == "davis" else 5)
    clips = VideoClips(open_training_videos(tmp_path), size_px=32, num_frames=3, max_objects=3)
    counts = set()
    for seed in range(30):
        clip = clips(seed)
        count = clip.masks_tnhw.shape[1]
        counts.add(count)
        assert clip.images_thwc.shape == (3, 32, 32, 3)
        assert clip.masks_tnhw.shape == (3, count, 32, 32)
        assert clip.masks_tnhw[0].any((1, 2)).all(), "only objects that the first frame shows"
        red_minus_blue = clip.images_thwc[..., 0].astype(int) - clip.images_thwc[..., 2]
        for number in range(count):
            inside = red_minus_blue[clip.masks_tnhw[:, number]]
            # Whatever the light, one object is reddish and the other bluish.
            assert max((inside > 0).mean(), (inside < 0).mean()) > 0.9
    assert 2 in counts


def test_same_seed_gives_the_same_clip_and_starts_differ(tmp_path: Path) -> None:
    write_davis(tmp_path, "a", 12)
    clips = VideoClips(open_training_videos(tmp_path), 32, 4, 2)
    one, again, other = clips(3), clips(3), clips(4)
    np.testing.assert_array_equal(one.images_thwc, again.images_thwc)
    np.testing.assert_array_equal(one.masks_tnhw, again.masks_tnhw)
    assert not np.array_equal(one.images_thwc, other.images_thwc)


def test_number_of_objects_is_limited(tmp_path: Path) -> None:
    write_davis(tmp_path, "a", 4)
    clips = VideoClips(open_training_videos(tmp_path), 32, 2, 1)
    assert {clips(seed).masks_tnhw.shape[1] for seed in range(8)} == {1}


def test_annotation_is_of_every_fourth_frame(tmp_path: Path) -> None:
    write_sav(tmp_path / "deep" / "er", "sav_1", 5)
    (video,) = find_sav_videos(tmp_path)
    assert (video.name, len(video)) == ("sav_1", 5)
    frames = video.frames_rgb(1, 3)
    for t, frame in enumerate(frames, start=1):
        expected = scene(t)[0].astype(int)
        assert np.abs(frame.astype(int) - expected).mean() < 12, "another frame, or worse than the codec makes it"
        later = scene(t + 3)[0].astype(int)
        assert np.abs(frame - expected).mean() < np.abs(frame - later).mean()
    assert not video.masks(4)[1].any()
    np.testing.assert_array_equal(video.masks(2)[0], scene(2)[1] == 1)


def test_manual_annotations_go_before_automatic_ones(tmp_path: Path) -> None:
    write_sav(tmp_path, "sav_1", 3, kind="auto")
    write_sav(tmp_path, "sav_1", 2, kind="manual")
    write_sav(tmp_path, "sav_2", 4, kind="auto")
    assert [(video.name, len(video)) for video in find_sav_videos(tmp_path)] == [("sav_1", 2), ("sav_2", 4)]


def test_video_that_ends_before_its_annotations_is_told(tmp_path: Path) -> None:
    write_sav(tmp_path, "sav_1", 3)
    path = tmp_path / "sav_1_manual.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"masklet": content["masklet"] * 2}))
    with pytest.raises(ValueError, match=r"sav_1\.mp4: expected frames 8 to 20.* got 1 of 4"):
        find_sav_videos(tmp_path)[0].frames_rgb(2, 4)


def test_json_of_something_else_is_told(tmp_path: Path) -> None:
    write_sav(tmp_path, "sav_1", 2)
    (tmp_path / "sav_1_manual.json").write_text('{"frames": []}')
    with pytest.raises(ValueError, match="expected an SA-V annotation, JSON with the key masklet"):
        len(find_sav_videos(tmp_path)[0])


def test_held_out_videos_are_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_davis(tmp_path, name, 2)
    assert [video.name for video in open_training_videos(tmp_path, ["b"])] == ["a", "c"]
    with pytest.raises(LayoutError, match=r"held out, but not in .*: d"):
        open_training_videos(tmp_path, ["a", "d"])
    with pytest.raises(LayoutError, match=r"all 3 videos .* are held out"):
        open_training_videos(tmp_path, ["a", "b", "c"])


def test_videos_without_use_are_told(tmp_path: Path) -> None:
    write_davis(tmp_path, "a", 3)
    with pytest.raises(LayoutError, match="expected a video with 4 annotated frames, the longest has 3"):
        VideoClips(open_training_videos(tmp_path), 32, 4, 2)
    for path in (tmp_path / "Annotations" / "a").iterdir():
        write_index_png(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(LayoutError, match="no visible object in 50 frames of a"):
        VideoClips(open_training_videos(tmp_path), 32, 2, 2)(0)
    with pytest.raises(LayoutError, match="expected a folder of sequences"):
        open_training_videos(tmp_path / "nowhere")


def test_annotations_are_read_when_they_are_needed(tmp_path: Path) -> None:
    """SA-V has tens of thousands of them."""
    for name in ("sav_1", "sav_2", "sav_3"):
        write_sav(tmp_path, name, 6)
    _masklets.cache_clear()
    clips = VideoClips(open_training_videos(tmp_path), size_px=32, num_frames=3, max_objects=3)
    assert _masklets.cache_info().misses == 1
    clips(0)
    assert _masklets.cache_info().misses <= 2


def test_clips_come_from_long_videos_only(tmp_path: Path) -> None:
    write_davis(tmp_path, "a", 2)
    write_davis(tmp_path, "b", 3)
    clips = VideoClips(open_training_videos(tmp_path), size_px=32, num_frames=3, max_objects=3)
    assert all(clips(seed).images_thwc.shape[0] == 3 for seed in range(8))


def test_masks_of_another_size_are_told(tmp_path: Path) -> None:
    write_davis(tmp_path, "a", 3)
    for t in range(3):
        write_index_png(tmp_path / "Annotations" / "a" / f"{t:05d}.png", scene(t)[1][:-4])
    with pytest.raises(LayoutError, match=r"a: its frames are .*, their masks"):
        VideoClips(open_training_videos(tmp_path), size_px=32, num_frames=3, max_objects=3)(0)


def test_a_damaged_frame_is_left_out_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("good", "torn"):
        write_davis(tmp_path, name, 3)
    for kind in ("JPEGImages", "Annotations"):
        path = tmp_path / kind / "torn" / "00001.png"
        path.write_bytes(path.read_bytes()[:-20])
    clips = VideoClips(open_training_videos(tmp_path), size_px=32, num_frames=3, max_objects=3)
    assert all(len(clips(seed).images_thwc) == 3 for seed in range(12))
    assert len(caplog.messages) == 1 and "torn/00001.png is cut off" in caplog.messages[0]


def test_hidden_videos_are_not_looked_at(tmp_path: Path) -> None:
    write_sav(tmp_path, "sav_1", 3)
    for name in ("._sav_1.mp4", "._sav_1_manual.json"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    assert [video.name for video in open_training_videos(tmp_path)] == ["sav_1"]
