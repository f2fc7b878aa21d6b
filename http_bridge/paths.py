"""Requests under other names: a path with a slash at its end is the path without, HEAD is GET without the body."""

from starlette.types import ASGIApp, Receive, Scope, Send


class SamePaths:
    """Goes around everything, so that routes, metrics and logs see one name. The HTTP server leaves out HEAD's body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)
