"""The annotation server: who is let in, every route, bad input, and what is left when the process is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotate_rig import SIZE_HW, a_square, make_project
from starlette.testclient import TestClient
from tiny_model import tiny_model

from sam2_ros.annotate.access import names_of
from sam2_ros.annotate.editing import Editor
from sam2_ros.annotate.masklets import MaskSource, Verdict
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.server import ROUTES, make_app
from sam2_ros.data.files.masks import decode_rle, encode_rle

TOKEN = "a-token"
BASE = f"http://127.0.0.1:8000/{TOKEN}/"
DISC = "api/recordings/disc"
DEADLINE_S = 60.0


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    editor = Editor(make_project(tmp_path / "p"), tiny_model())
    yield editor
    editor.close()


@pytest.fixture
def client(editor: Editor) -> TestClient:
    return TestClient(make_app(editor, TOKEN, names_of("127.0.0.1")), BASE, raise_server_exceptions=False)


def store(editor: Editor) -> Any:
    return editor.project.recording("disc").masklets


def new_masklet(client: TestClient, **values: Any) -> str:
    answer = client.post(f"{DISC}/masklets", json=values)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["masklet"])


def click(client: TestClient, masklet: str, frame: int, x: float = 20, y: float = 24, **values: Any) -> Any:
    path = f"{DISC}/masklets/{masklet}/frames/{frame}/prompts"
    return client.post(path, json={"points": [[x, y]], "labels": [1], **values})


def finish_jobs(editor: Editor) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while editor.worker.running:
        assert time.monotonic() < deadline, "the job does not end"
        editor.worker.submit(lambda: None).result(DEADLINE_S)


# Who is let in


@pytest.mark.parametrize(
    ("url", "headers", "reason"),
    [
        ("http://127.0.0.1:8000/", {}, "token"),
        ("http://127.0.0.1:8000/another/api/project", {}, "token"),
        ("http://127.0.0.1:8000/another/static/style.css", {}, "token"),
        (f"{BASE}api/project", {"Host": "evil.example:8000"}, "Host"),
        (f"{BASE}api/project", {"Host": "127.0.0.1.evil.example"}, "Host"),
        (f"{BASE}api/project", {"Origin": "http://evil.example"}, "Origin"),
        (f"{BASE}api/project", {"Origin": "http://127.0.0.1:9000"}, "Origin"),
        (f"{BASE}api/project", {"Origin": "null"}, "Origin"),
    ],
)
def test_requests_of_others_are_refused(client: TestClient, url: str, headers: dict[str, str], reason: str) -> None:
    answer = client.get(url, headers=headers)
    assert answer.status_code == 403 and reason in answer.json()["error"]
    assert TOKEN not in answer.text


def test_the_own_page_is_let_in_and_bound_to_this_server(client: TestClient) -> None:
    assert client.get("api/project", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    assert client.get("api/project", headers={"Host": "localhost:8000"}).status_code == 200
    page = client.get("")
    assert "default-src 'self'" in page.headers["content-security-policy"] and "<canvas" in page.text
    assert page.headers["referrer-policy"] == "no-referrer" and page.headers["cache-control"] == "no-store"


def test_every_route_is_behind_the_token(editor: Editor, client: TestClient) -> None:
    for method, path, _ in ROUTES:
        filled = path.format(recording="disc", masklet="m0001", frame="0", job="job1")
        assert client.request(method, f"http://127.0.0.1:8000{filled}").status_code == 403, path
        assert client.request(method, f"http://127.0.0.1:8000/x{filled}").status_code == 403, path


def test_static_files_name_no_other_server(client: TestClient) -> None:
    static = Path(__file__).parents[2] / "sam2_ros" / "annotate" / "static"
    for path in (each for each in static.rglob("*") if each.is_file()):
        answer = client.get(f"static/{path.relative_to(static).as_posix()}")
        assert answer.status_code == 200, path
        others = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in others and "https://" not in others and "//cdn" not in others, path


def test_which_names_a_server_answers_to() -> None:
    assert names_of("127.0.0.1") == {"127.0.0.1", "localhost", "[::1]"}
    assert names_of("robot.lan") >= {"robot.lan"} and "127.0.0.1" not in names_of("robot.lan")
    assert names_of("0.0.0.0") >= {"127.0.0.1", "localhost", "0.0.0.0"}


# Every route


def test_project_recording_frame_and_masks(client: TestClient) -> None:
    project = client.get("api/project").json()
    height, width = SIZE_HW
    expected = {"id": "disc", "num_frames": 8, "width": width, "height": height, "fps": 6.0}
    assert project["recordings"][0].items() >= expected.items() and project["model"] == "tiny-test"
    recording = client.get(DISC).json()
    assert recording["masklets"] == [] and recording["stamps"][6] == 1.0
    frame = client.get(f"{DISC}/frames/3.jpg")
    assert frame.content[:2] == b"\xff\xd8" and "immutable" in frame.headers["cache-control"]
    assert client.get(f"{DISC}/masks?first=0&last=1").json() == {"masks": {"0": {}, "1": {}}}
    assert client.post(f"{DISC}/focus", json={"frame": 2}).json() == {"ok": True}
    assert client.post(f"{DISC}/view", json={"frame": 2}).json() == {"ok": True}


def test_clicks_boxes_and_painting(client: TestClient, editor: Editor) -> None:
    masklet = new_masklet(client, name="mug", class_name="cup", color="#0a0b0c", phase=2)
    assert store(editor).get(masklet).color_rgb == (10, 11, 12) and store(editor).get(masklet).phase == 2
    answer = click(client, masklet, 1)
    assert answer.status_code == 200
    parts = re.findall(r"(\w+);dur=[0-9.]+", answer.headers["server-timing"])
    assert parts == ["wait", "prepare", "decode", "store", "log"]
    click(client, masklet, 1, 60, 40, labels=[0])
    frame = store(editor).get(masklet).frames[1]
    assert [each.points_xy for each in frame.prompts] == [((20, 24),), ((60, 40),)]
    path = f"{DISC}/masklets/{masklet}/frames"
    assert client.post(f"{path}/2/prompts", json={"box": [5, 5, 30, 30]}).status_code == 200
    assert store(editor).get(masklet).frames[2].prompts[0].box_xyxy == (5, 5, 30, 30)

    mask = a_square(30, 20)
    rle = {"size": list(SIZE_HW), "counts": encode_rle(mask)["counts"]}
    assert client.put(f"{path}/1/mask", json={"mask": rle, "tool": "eraser"}).status_code == 200
    frame = store(editor).get(masklet).frames[1]
    assert (frame.mask() == mask).all() and frame.source is MaskSource.BRUSH and not frame.prompts
    click(client, masklet, 1)
    assert store(editor).get(masklet).frames[1].source is MaskSource.BRUSH, "the click corrects what was painted"
    client.put(f"{path}/4/mask", json={"tool": "absent"})
    assert not store(editor).get(masklet).frames[4].visible

    masks = client.get(f"{DISC}/masks?first=1&last=4").json()["masks"]
    assert (decode_rle(masks["1"][masklet]) == store(editor).get(masklet).frames[1].mask()).all()
    assert masks["4"] == {}
    assert client.delete(f"{path}/1?phase=2").status_code == 200
    assert store(editor).get(masklet).frame_indices == (2, 4)
    actions = [each.action for each in editor.project.log]
    assert actions == ["add", "click", "click", "box", "erase", "click", "brush", "clear"]


def test_properties_locks_verdicts_and_undo(client: TestClient, editor: Editor) -> None:
    masklet = new_masklet(client)
    path = f"{DISC}/masklets/{masklet}"
    click(client, masklet, 1)
    assert client.patch(path, json={"name": "Becher", "hidden": True}).status_code == 200
    assert store(editor).get(masklet).name == "Becher" and store(editor).get(masklet).hidden
    assert client.post(f"{path}/lock", json={"first": 0, "last": 7, "locked": True}).json()["frames"] == 1
    assert "locked" in click(client, masklet, 1).json()["error"]
    client.post(f"{path}/lock", json={"first": 1, "last": 1, "locked": False})
    assert client.post(f"{path}/verdict", json={"verdict": "accepted", "note": "fine"}).status_code == 200
    assert store(editor).get(masklet).verdict is Verdict.ACCEPTED
    assert client.delete(path).status_code == 400, "an accepted masklet is not deleted"
    (row,) = client.get("api/queue").json()["queue"]
    assert row.items() >= {"id": masklet, "recording": "disc", "verdict": "accepted", "first": 1, "clicks": 1}.items()
    assert client.post(f"{DISC}/undo").json()["masklet"] == masklet
    assert store(editor).get(masklet).verdict is Verdict.UNVERIFIED
    client.post(f"{DISC}/redo")
    assert store(editor).get(masklet).verdict is Verdict.ACCEPTED
    client.post(f"{DISC}/undo")
    assert client.delete(path).status_code == 200 and store(editor).all() == ()
    client.post(f"{DISC}/undo")
    assert store(editor).get(masklet).name == "Becher"


def test_propagation_both_ways_is_stored_and_one_undo(client: TestClient, editor: Editor) -> None:
    one, other = new_masklet(client), new_masklet(client)
    click(client, one, 3)
    click(client, other, 3, 50, 30)
    before = store(editor).get(other)
    job = client.post(f"{DISC}/propagate", json={"masklets": [one], "start": 3, "first": 1, "last": 6}).json()["job"]
    assert job["kind"] == "propagation"
    finish_jobs(editor)
    assert store(editor).get(one).frame_indices == (1, 2, 3, 4, 5, 6)
    assert store(editor).get(other) is before, "other objects are not touched"
    client.post(f"{DISC}/undo")
    assert store(editor).get(one).frame_indices == (3,)
    assert (
        "no mask in frame 0" in client.post(f"{DISC}/propagate", json={"masklets": [one], "start": 0}).json()["error"]
    )
    answer = client.post(f"{DISC}/propagate", json={"masklets": [one], "start": 3, "last": 7, "phase": 1})
    assert "phase 1" in answer.json()["error"]


def test_a_cancelled_propagation_keeps_what_it_did(client: TestClient, editor: Editor) -> None:
    masklet = new_masklet(client)
    click(client, masklet, 0)
    seen: list[Any] = []
    editor.worker._on_status = lambda status: (seen.append(status), editor.worker.cancel(status.job_id))  # type: ignore
    job = client.post(f"{DISC}/propagate", json={"masklets": [masklet], "start": 0, "last": 7}).json()["job"]
    finish_jobs(editor)
    assert [(status.state, status.done) for status in seen] == [("running", 1), ("cancelled", 1)]
    assert store(editor).get(masklet).frame_indices == (0, 1)
    answer = client.post(f"api/jobs/{job['job_id']}/cancel")
    assert answer.status_code == 400 and "is running" in answer.json()["error"]


def test_what_was_locked_during_a_propagation_stays(client: TestClient, editor: Editor) -> None:
    masklet = new_masklet(client)
    click(client, masklet, 0)
    mask = a_square(30, 20)
    rle = encode_rle(mask)

    def paint_ahead(status: Any) -> None:
        if status.done == 1:
            client.put(f"{DISC}/masklets/{masklet}/frames/5/mask", json={"mask": rle})

    editor.worker._on_status = paint_ahead
    client.post(f"{DISC}/propagate", json={"masklets": [masklet], "start": 0, "last": 7})
    finish_jobs(editor)
    assert (store(editor).get(masklet).frames[5].mask() == mask).all()
    assert store(editor).get(masklet).frame_indices == tuple(range(8))


def test_an_export_lies_beside_the_project(client: TestClient, editor: Editor) -> None:
    click(client, new_masklet(client), 1)
    for name in ("sav", "davis", "coco", "yolo"):
        answer = client.post("api/export", json={"format": name, "out": f"out {name}"})
        assert answer.status_code == 200 and answer.json()["masklets"] == 1, answer.text
        assert any((editor.project.path.parent / f"out {name}").iterdir())
    assert client.get("api/report").json()["phases"]["3"]["clicks"] == 1
    answer = client.post("api/export", json={"format": "sav", "out": "none", "accepted_only": True})
    assert answer.status_code == 400 and not (editor.project.path.parent / "none").exists()


# Bad input

BAD_MASK = {"size": [2, 2], "counts": [4]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "api/recordings/none", None, 400, "no recording 'none'"),
        ("GET", "api/none", None, 404, "Not Found"),
        ("PUT", "api/project", {}, 405, "Method Not Allowed"),
        ("GET", f"{DISC}/frames/8.jpg", None, 400, "expected 0 to 7"),
        ("GET", f"{DISC}/frames/..%2f..%2fproject.json.jpg", None, 404, "Not Found"),
        ("GET", f"{DISC}/frames/x.jpg", None, 400, "frame: expected a whole number"),
        ("GET", f"{DISC}/masks?first=3&last=2", None, 400, "first <= last"),
        ("GET", f"{DISC}/masks?first=3", None, 400, "last: expected a whole number"),
        ("POST", f"{DISC}/masklets", [], 400, "expected a JSON object"),
        ("POST", f"{DISC}/masklets", {"colour": "#000000"}, 400, "expected only the fields"),
        ("POST", f"{DISC}/masklets", {"color": "red"}, 400, "color: expected a colour"),
        ("POST", f"{DISC}/masklets", {"name": "x" * 501}, 400, "name: expected one line"),
        ("POST", f"{DISC}/masklets", {"name": "a\nb"}, 400, "name: expected one line"),
        ("POST", f"{DISC}/masklets", {"phase": 4}, 400, "phase: expected 1, 2 or 3"),
        ("PATCH", f"{DISC}/masklets/m0001", {"name": " "}, 400, "name: expected a name"),
        ("PATCH", f"{DISC}/masklets/m0009", {"name": "x"}, 400, "no masklet 'm0009'"),
        ("PATCH", f"{DISC}/masklets/m0001", {"locked": 1}, 400, "locked: expected true or false"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/prompts", {}, 400, "expected points or a box"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/prompts", {"points": [[1, 2]]}, 400, "a label of 0 or 1"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/prompts", {"points": [[1]], "labels": [1]}, 400, "points: expected"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/prompts", {"points": [[1, 2]], "labels": [2]}, 400, "labels: exp"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/prompts", {"points": [[80, 2]], "labels": [1]}, 400, "0 <= x < 80"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/prompts", {"box": [5, 5, 5, 5]}, 400, "x0 < x1"),
        ("POST", f"{DISC}/masklets/m0001/frames/8/prompts", {"box": [5, 5, 9, 9]}, 400, "expected 0 to 7"),
        ("PUT", f"{DISC}/masklets/m0001/frames/0/mask", {"mask": BAD_MASK}, 400, "mask: expected the size"),
        ("PUT", f"{DISC}/masklets/m0001/frames/0/mask", {"mask": {"size": [48, 80], "counts": [3]}}, 400, "mask: run"),
        ("PUT", f"{DISC}/masklets/m0001/frames/0/mask", {"mask": {"size": [48, 80], "counts": "\u00e9"}}, 400, "mask"),
        ("PUT", f"{DISC}/masklets/m0001/frames/0/mask", {"mask": 3}, 400, "mask: expected"),
        ("PUT", f"{DISC}/masklets/m0001/frames/0/mask", {"tool": "knife"}, 400, "tool: expected"),
        ("PUT", f"{DISC}/masklets/m0001/frames/9/mask", {"tool": "absent"}, 400, "expected 0 to 7"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/hold", {"first": 0, "last": 3}, 400, "nothing in frame 0 to hold"),
        ("POST", f"{DISC}/masklets/m0001/frames/0/hold", {"first": 3, "last": 8}, 400, "last <= 7, got 3 to 8"),
        ("POST", f"{DISC}/masklets/m0001/lock", {"first": 0, "last": 3, "locked": True}, 400, "nothing to lock"),
        ("POST", f"{DISC}/masklets/m0001/verdict", {"verdict": "good"}, 400, "verdict: expected one of"),
        ("POST", f"{DISC}/masklets/m0001/verdict", {"verdict": "accepted"}, 400, "nothing to accept"),
        ("POST", f"{DISC}/propagate", {"masklets": ["m0001"], "start": 5, "first": 6}, 400, "first <= start"),
        ("POST", f"{DISC}/propagate", {"masklets": [], "start": 5}, 400, "at least one"),
        ("POST", f"{DISC}/propagate", {"masklets": "m0001", "start": 5}, 400, "masklets: expected a list"),
        ("POST", f"{DISC}/focus", {"frame": 8}, 400, "expected 0 to 7"),
        ("POST", f"{DISC}/view", {"frame": True}, 400, "frame: expected a whole number"),
        ("POST", "api/jobs/job7/cancel", {}, 400, "no job 'job7'"),
        ("POST", "api/export", {"format": "sav", "out": "x"}, 400, "no masklet to export"),
        ("POST", "api/export", {"format": "zip", "out": "x"}, 400, "format: expected one of"),
        ("POST", "api/export", {"format": "sav", "out": "  "}, 400, "out: expected a new folder"),
        ("POST", "api/export", {"format": "sav", "out": "p"}, 400, "exists already"),
        ("POST", "api/export", {"format": "sav", "out": "x", "split": 1}, 400, "split: expected a number"),
    ],
)
def test_bad_input_is_refused_in_a_line_and_changes_nothing(
    client: TestClient, editor: Editor, method: str, path: str, body: Any, status: int, reason: str
) -> None:
    new_masklet(client)
    before = store(editor).all()
    answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
    assert answer.status_code == status and reason in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert store(editor).all() == before


def test_bodies_that_are_no_json_are_refused(client: TestClient) -> None:
    path = f"{DISC}/masklets"
    for content, kind in ((b"{", "application/json"), (b"\xff", "application/json"), (b"{}", "text/plain")):
        answer = client.post(path, content=content, headers={"Content-Type": kind})
        assert answer.status_code == 400 and "expected" in answer.json()["error"]
    answer = client.post(path, content=b" " * (33 * 2**20), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_full_disk_is_said_and_loses_nothing(client: TestClient, editor: Editor, monkeypatch) -> None:
    masklet = new_masklet(client)
    click(client, masklet, 1)
    before = store(editor).all()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sam2_ros.annotate.masklet_store.write_atomically", full)
    answer = click(client, masklet, 2)
    assert answer.status_code == 507 and "the disk is full" in answer.json()["error"]
    assert store(editor).all() == before


# What a killed process leaves

_SERVE_AND_WAIT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from starlette.testclient import TestClient
from tiny_model import tiny_model
from sam2_ros.annotate.editing import Editor
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.server import make_app
editor = Editor(Project.open(Path(sys.argv[1])), tiny_model())
client = TestClient(make_app(editor, "t", {"127.0.0.1"}), "http://127.0.0.1/t/")
masklet = client.post("api/recordings/disc/masklets", json={"name": "kept"}).json()["masklet"]
for frame in range(4):
    answer = client.post(f"api/recordings/disc/masklets/{masklet}/frames/{frame}/prompts",
                         json={"points": [[20, 24]], "labels": [1]})
    assert answer.status_code == 200, answer.text
print("answered", flush=True)
client.post("api/recordings/disc/propagate", json={"masklets": [masklet], "start": 3, "last": 7})
sys.stdin.read()
"""


def test_a_killed_server_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    make_project(tmp_path / "p").close()
    support = Path(__file__).parents[1] / "support"
    command = [sys.executable, "-c", _SERVE_AND_WAIT, str(tmp_path / "p"), str(support)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "answered\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with Project.open(tmp_path / "p") as project:
        (masklet,) = project.recording("disc").masklets.all()
        assert masklet.name == "kept" and {0, 1, 2, 3} <= set(masklet.frames)
        assert [each.action for each in project.log][:5] == ["add", "click", "click", "click", "click"]
        editor = Editor(project, tiny_model())
        client = TestClient(make_app(editor, TOKEN, names_of("127.0.0.1")), BASE)
        assert click(client, masklet.masklet_id, 2).status_code == 200, "and work goes on"
        editor.close()


def test_changes_come_as_events_in_their_order(client: TestClient, editor: Editor) -> None:
    published: list[tuple[str, Any]] = []
    editor.events.publish = lambda topic, values: published.append((topic, json.loads(json.dumps(values))))  # type: ignore
    masklet = new_masklet(client, name="mug")
    click(client, masklet, 2)
    client.delete(f"{DISC}/masklets/{masklet}/frames/2?phase=3")
    client.post(f"{DISC}/undo")
    client.delete(f"{DISC}/masklets/{masklet}")
    assert [topic for topic, _ in published] == ["change"] * 5
    added, clicked, cleared, undone, removed = (values for _, values in published)
    assert added["masklet"]["name"] == "mug" and added["masklet"]["frames"] == {}
    assert clicked["masklet"]["frames"]["2"]["prompts"][0]["points"] == [[20, 24]]
    assert clicked["rles"]["2"]["size"] == list(SIZE_HW) and undone["masklet"]["frames"] == clicked["masklet"]["frames"]
    assert cleared["masklet"]["frames"] == {"2": None} and removed["masklet"] == {"id": masklet, "removed": True}
