"""Access to the annotation server: only with its secret address, from this machine, from its own page.

Any page that a browser shows can send requests to a port of this machine. Three things keep others out, each alone:
a random token in the path, which only the printed address has; the Host header, against names that were made to point
here; and the Origin header, against requests that another page sends.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Everything is served from here: no script, style, font or image of another server.
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the address has the token
    "cross-origin-resource-policy": "same-origin",
}


def new_token() -> str:
    """192 random bits, safe in an address."""
    return secrets.token_urlsafe(24)


def is_local(host: str) -> bool:
    """Whether only this machine reaches a host that a server listens on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> set[str]:
    """The names and addresses by which pages may call a server that listens on this host."""
    if is_local(host):
        return {"127.0.0.1", "localhost", "[::1]"}
    names = {host, socket.gethostname(), socket.getfqdn()}
    if host in ("0.0.0.0", "::"):
        found = socket.getaddrinfo(socket.gethostname(), None)
        names |= {"127.0.0.1", "localhost", *(str(address[0]) for *_, address in found)}
    return {f"[{name}]" if ":" in name else name.lower() for name in names}


class AccessControl:
    """Rejects requests that do not come from the server's own page; adds the headers that bind the page to it."""

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str]) -> None:
        """``hosts``: names without a port; the port is not checked, as it may be forwarded."""
        self._app, self._token, self._hosts = app, token, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            status, why = refusal
            await JSONResponse({"error": why}, status)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                extra = {**_HEADERS, "cache-control": "no-store"}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in extra.items() if n.encode() not in names),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason, or None if the request may pass."""
        if _without_port(headers.get("host", "")) not in self._hosts:
            return 403, f"Host: expected one of {', '.join(sorted(self._hosts))}, got {headers.get('host', 'none')!r}"
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1].lower() != headers["host"].lower():
            return 403, f"Origin: expected this server's own page, got {origin!r}"
        given = path.split("/")[1] if path.startswith("/") else ""
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return (
                403,
                "Open the address that `sam2-ros annotate` printed; it begins with a token that is new each time",
            )
        return None


def _without_port(host: str) -> str:
    """ "localhost:8000" -> "localhost"; "[::1]:8000" -> "[::1]"."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
