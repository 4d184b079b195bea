"""``sam2-ros annotate``: annotate the recordings of a project in a browser."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from pathlib import Path
from typing import Any

from sam2_ros.commands.shared import add_network_options, network_arguments

_NEEDS = "sam2-ros annotate: the server needs starlette and uvicorn: pip install starlette uvicorn ({})"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sam2-ros annotate``."""
    parser.add_argument("project", type=Path, help="folder that `sam2-ros dataset create` made")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: one that is free)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, for this machine alone)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; 0, or 2 if the project, the network or the port cannot be used."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        print(_NEEDS.format(error), file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        _serve(args)
    except (ValueError, OSError) as error:
        print(f"sam2-ros annotate: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(args: argparse.Namespace) -> None:
    import uvicorn

    from sam2_ros.annotate.access import is_local, names_of, new_token
    from sam2_ros.annotate.project import Project

    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {args.port}")
    with Project.open(args.project, "sam2-ros annotate") as project, _listen(args.host, args.port) as listener:
        if not project.recordings:
            raise ValueError(f"{args.project} has no recording: add one with `sam2-ros dataset create`")
        from sam2_ros.annotate.editing import Editor  # after the cheap checks: torch takes seconds to import
        from sam2_ros.annotate.server import make_app
        from sam2_ros.tracking.loading import load_network

        editor = Editor(project, load_network(**network_arguments(args)))
        token, port = new_token(), listener.getsockname()[1]
        if not is_local(args.host):
            _warn(args.host)
        address = f"http://{_in_address(args.host)}:{port}/{token}/"
        app = make_app(editor, token, names_of(args.host))
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
        _make_server(config, editor, address, args.open).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener


def _warn(host: str) -> None:
    print(
        f"WARNING: listening on {host}: everybody on that network who learns the address below can see and change this "
        "project, and it goes over the network in clear. A tunnel is better: ssh -L PORT:127.0.0.1:PORT this-machine",
        file=sys.stderr,
    )


def _in_address(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _make_server(config: Any, editor: Any, address: str, opens: bool) -> Any:
    """A server that says where it is once it listens, and ends the pages' streams before it waits for them."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"Annotate at {address}\nCtrl-C ends it; everything that was answered is saved.", flush=True)
            if opens:
                import webbrowser

                webbrowser.open(address)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            editor.close()
            await super().shutdown(sockets)

    return Server(config)
