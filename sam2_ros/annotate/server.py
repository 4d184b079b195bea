"""The annotation page's server: an ASGI application of static files and of an ``Editor``'s actions as JSON.

Every answer to a change comes after the change is on the disk. Pages hear of changes, their own included, from one
stream of events; the answer to a request only says that it was done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from sam2_ros.annotate.access import AccessControl
from sam2_ros.annotate.editing import Editor, PropagationRequest
from sam2_ros.annotate.exports import ExportSettings, export_project
from sam2_ros.annotate.masklets import ProjectError, Verdict
from sam2_ros.annotate.page_values import mask_values, project_values, queue_values
from sam2_ros.annotate.report import project_report
from sam2_ros.annotate.request_values import TooLargeError, as_integer, json_fields, query_integer
from sam2_ros.annotate.storage import is_full_disk

logger = logging.getLogger(__name__)

STATIC = Path(__file__).resolve().parent / "static"
MAX_MASK_FRAMES = 256  # in one request
_TOOLS = {"brush": "brush", "eraser": "erase", "absent": "brush"}  # as in the page, and in the log
_FOREVER = {
    "cache-control": "private, max-age=31536000, immutable"
}  # a frame never changes; the token is new each time

Handler = Callable[[Editor, Request], Awaitable[Response]]


def make_app(editor: Editor, token: str, hosts: Collection[str]) -> ASGIApp:
    """The application; its addresses begin with ``/<token>/``.

    Args:
        editor: whose project is served; closed by the caller.
        token: see ``access``.
        hosts: names that the Host header may have.
    """
    routes = [Route(path, partial(handler, editor), methods=[method]) for method, path, handler in ROUTES]
    app = Starlette(
        routes=[Mount(f"/{token}", routes=[*routes, Mount("/static", StaticFiles(directory=STATIC))])],
        exception_handlers={
            TooLargeError: _refused(413),
            ProjectError: _refused(400),
            KeyError: _refused(404),
            OSError: _not_stored,
            HTTPException: _http_error,
            Exception: _failed,
        },
    )
    return AccessControl(app, token, hosts)


async def _page(editor: Editor, request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _project(editor: Editor, request: Request) -> Response:
    name = editor.network.config.name
    values = await run_in_threadpool(project_values, editor.project, name)
    return JSONResponse({**values, "jobs": [status.to_json() for status in editor.worker.running]})


async def _recording(editor: Editor, request: Request) -> Response:
    recording_id = request.path_params["recording"]
    values = await run_in_threadpool(editor.snapshot, recording_id)
    with suppress(OSError):  # a full disk keeps nobody from looking
        await run_in_threadpool(editor.project.log.append, "open", recording=recording_id)
    return JSONResponse(values)


async def _frame(editor: Editor, request: Request) -> Response:
    recording = editor.project.recording(request.path_params["recording"])
    index = as_integer("frame", request.path_params["frame"])
    content = await run_in_threadpool(recording.frame_jpeg, index)
    return Response(content, media_type="image/jpeg", headers=_FOREVER)


async def _masks(editor: Editor, request: Request) -> Response:
    recording = editor.project.recording(request.path_params["recording"])
    first, last = query_integer(request, "first"), query_integer(request, "last")
    if not 0 <= first <= last < len(recording) or last - first >= MAX_MASK_FRAMES:
        raise ProjectError(
            f"expected 0 <= first <= last < {len(recording)}, at most {MAX_MASK_FRAMES} frames, got {first} to {last}"
        )
    return JSONResponse(await run_in_threadpool(mask_values, recording, first, last))


async def _focus(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "frame", "masklet", "phase")
    masklet = fields.text("masklet") if "masklet" in fields else None
    editor.prepare(request.path_params["recording"], fields.integer("frame"), masklet, fields.integer("phase", 3))
    return _done()


async def _view(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "frame", "masklet", "phase")
    recording = editor.project.recording(request.path_params["recording"])
    frame = fields.integer("frame")
    recording.frame_path(frame)
    masklet = recording.masklets.get(fields.text("masklet")).masklet_id if "masklet" in fields else ""
    log = partial(editor.project.log.append, recording=recording.recording_id, masklet=masklet)
    await run_in_threadpool(log, "view", frame=frame, phase=fields.integer("phase", 3))
    return _done()


async def _add(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "name", "class_name", "color", "phase")
    values: dict[str, Any] = {"name": fields.text("name", ""), "class_name": fields.text("class_name", "")}
    if "color" in fields:
        values["color_rgb"] = fields.color("color")
    phase = fields.integer("phase", 3)
    masklet = await run_in_threadpool(editor.add, request.path_params["recording"], phase, values)
    return _done(masklet=masklet.masklet_id)


async def _update(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "name", "class_name", "color", "locked", "hidden")
    values: dict[str, Any] = {name: fields.text(name) for name in ("name", "class_name") if name in fields}
    values |= {name: fields.boolean(name) for name in ("locked", "hidden") if name in fields}
    if "color" in fields:
        values["color_rgb"] = fields.color("color")
    if values.get("name") == "":
        raise ProjectError("name: expected a name, got an empty text")
    await run_in_threadpool(editor.update, *_masklet_of(request), values)
    return _done()


async def _remove(editor: Editor, request: Request) -> Response:
    await run_in_threadpool(editor.remove, *_masklet_of(request))
    return _done()


async def _prompt(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "points", "labels", "box", "phase")
    prompt, phase = fields.prompt(), fields.integer("phase", 3)
    clicked = await asyncio.wrap_future(editor.prompt(*_masklet_frame_of(request), prompt, phase))
    answer = _done(quality=clicked.frame.quality)
    # For a browser's developer tools, and benchmarks/annotate.py.
    answer.headers["server-timing"] = ", ".join(f"{name};dur={ms:.1f}" for name, ms in clicked.parts_ms.items())
    return answer


async def _paint(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "mask", "tool", "phase")
    tool = fields.text("tool", "brush")
    if tool not in _TOOLS:
        raise ProjectError(f"tool: expected one of {', '.join(_TOOLS)}, got {tool!r}")
    rle = None if tool == "absent" else fields.rle("mask")
    phase = fields.integer("phase", 3)
    await run_in_threadpool(editor.paint, *_masklet_frame_of(request), rle, _TOOLS[tool], phase)
    return _done()


async def _hold(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "first", "last", "phase")
    first, last, phase = fields.integer("first"), fields.integer("last"), fields.integer("phase", 3)
    count = await run_in_threadpool(editor.hold, *_masklet_frame_of(request), first, last, phase)
    return _done(frames=count)


async def _clear(editor: Editor, request: Request) -> Response:
    await run_in_threadpool(editor.clear, *_masklet_frame_of(request), query_integer(request, "phase"))
    return _done()


async def _lock(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "first", "last", "locked")
    first, last, locked = fields.integer("first"), fields.integer("last"), fields.boolean("locked")
    count = await run_in_threadpool(editor.lock, *_masklet_of(request), first, last, locked)
    return _done(frames=count)


async def _verdict(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "verdict", "note")
    text = fields.text("verdict")
    if text not in [verdict.value for verdict in Verdict]:
        raise ProjectError(f"verdict: expected one of {', '.join(verdict.value for verdict in Verdict)}, got {text!r}")
    await run_in_threadpool(editor.set_verdict, *_masklet_of(request), Verdict(text), fields.text("note", ""))
    return _done()


async def _undo(editor: Editor, request: Request) -> Response:
    change = await run_in_threadpool(editor.undo, request.path_params["recording"])
    return _done(masklet=None if change is None else change.masklet_id)


async def _redo(editor: Editor, request: Request) -> Response:
    change = await run_in_threadpool(editor.redo, request.path_params["recording"])
    return _done(masklet=None if change is None else change.masklet_id)


async def _propagate(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "masklets", "start", "first", "last", "phase", "until_doubtful")
    start = fields.integer("start")
    wanted = PropagationRequest(
        tuple(dict.fromkeys(fields.texts("masklets"))),
        start,
        fields.integer("first", start),
        fields.integer("last", start),
        fields.integer("phase", 3),
        fields.boolean("until_doubtful", False),
    )
    status = await run_in_threadpool(editor.propagate, request.path_params["recording"], wanted)
    return _done(job=status.to_json())


async def _cancel(editor: Editor, request: Request) -> Response:
    job_id = request.path_params["job"]
    if job_id not in {status.job_id for status in editor.worker.running}:
        raise ProjectError(f"no job {job_id!r} is running")
    status = editor.worker.cancel(job_id)
    await run_in_threadpool(editor.project.log.append, "cancel", recording=status.recording)
    return _done()


async def _queue(editor: Editor, request: Request) -> Response:
    return JSONResponse({"queue": await run_in_threadpool(queue_values, editor.project)})


async def _report(editor: Editor, request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(project_report, editor.project))


async def _export(editor: Editor, request: Request) -> Response:
    fields = await json_fields(request, "format", "out", "accepted_only", "split")
    out = fields.text("out")
    if not out:
        raise ProjectError("out: expected a new folder, got an empty text")
    settings = ExportSettings(fields.text("format"), fields.boolean("accepted_only", False), fields.share("split"))
    folder = editor.project.path.resolve().parent / Path(out).expanduser()  # a relative one lies beside the project
    return _done(**await run_in_threadpool(export_project, editor.project, folder, settings))


async def _events(editor: Editor, request: Request) -> Response:
    return StreamingResponse(editor.events.listen(), media_type="text/event-stream")


_RECORDING = "/api/recordings/{recording}"
_MASKLET = f"{_RECORDING}/masklets/{{masklet}}"
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", _page),
    ("GET", "/api/project", _project),
    ("GET", "/api/events", _events),
    ("GET", "/api/queue", _queue),
    ("POST", "/api/jobs/{job}/cancel", _cancel),
    ("POST", "/api/export", _export),
    ("GET", "/api/report", _report),
    ("GET", _RECORDING, _recording),
    ("GET", f"{_RECORDING}/frames/{{frame}}.jpg", _frame),
    ("GET", f"{_RECORDING}/masks", _masks),
    ("POST", f"{_RECORDING}/focus", _focus),
    ("POST", f"{_RECORDING}/view", _view),
    ("POST", f"{_RECORDING}/propagate", _propagate),
    ("POST", f"{_RECORDING}/undo", _undo),
    ("POST", f"{_RECORDING}/redo", _redo),
    ("POST", f"{_RECORDING}/masklets", _add),
    ("PATCH", _MASKLET, _update),
    ("DELETE", _MASKLET, _remove),
    ("POST", f"{_MASKLET}/lock", _lock),
    ("POST", f"{_MASKLET}/verdict", _verdict),
    ("POST", f"{_MASKLET}/frames/{{frame}}/prompts", _prompt),
    ("PUT", f"{_MASKLET}/frames/{{frame}}/mask", _paint),
    ("POST", f"{_MASKLET}/frames/{{frame}}/hold", _hold),
    ("DELETE", f"{_MASKLET}/frames/{{frame}}", _clear),
)


def _masklet_of(request: Request) -> tuple[str, str]:
    return request.path_params["recording"], request.path_params["masklet"]


def _masklet_frame_of(request: Request) -> tuple[str, str, int]:
    return *_masklet_of(request), as_integer("frame", request.path_params["frame"])


def _done(**values: Any) -> JSONResponse:
    return JSONResponse({"ok": True, **values})


def _refused(status: int) -> Callable[[Request, Exception], JSONResponse]:
    return lambda request, error: JSONResponse({"error": str(error)}, status)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = request.url.path.partition("/api/")[2]
    return JSONResponse({"error": f"{error.detail}: {request.method} {where}"}, error.status_code)


def _not_stored(request: Request, error: Exception) -> JSONResponse:
    logger.warning("%s %s: %s", request.method, request.url.path.partition("/api/")[2], error)
    full = is_full_disk(error)
    what = "the disk is full: make room and do it again" if full else str(error)
    return JSONResponse({"error": f"this was not saved: {what}"}, 507 if full else 500)


def _failed(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path.partition("/api/")[2], exc_info=error)
    return JSONResponse({"error": f"the server failed: {type(error).__name__}: {error}"}, 500)
