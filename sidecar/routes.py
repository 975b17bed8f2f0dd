"""The route table: a method and a path, and the handler that answers.

In:  a request. Out: its route, or Problem 404 or 405. A route for GET answers HEAD too (RFC 9110, 9.3.2), and the table
itself answers OPTIONS.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from sidecar.access import Right
from sidecar.request import Reply, Request
from sse.errors import Problem
from sse.http import Response, problem_response

Handler = Callable[[Request], Awaitable[Reply]]

Errors = Callable[[Problem], Response]
"""Writes a problem in the shape that errors have on a route."""


class Route(NamedTuple):
    """One row of the table.

    path: `{name}` matches a segment or the rest of one, `{name*}` at the end all segments that follow. right: that a request
    needs. about: the command that the index shows. errors: their shape.
    """

    method: str
    path: str
    handler: Handler
    right: Right
    about: str = ""
    errors: Errors = problem_response

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """The path's parameters, given its segments; None if they aren't of this route."""
        pattern = self.path.split("/")
        if pattern[-1].endswith("*}") and len(parts) > len(pattern):
            parts = [*parts[: len(pattern) - 1], "/".join(parts[len(pattern) - 1 :])]
        if len(pattern) != len(parts):
            return None
        params: dict[str, str] = {}
        for expected, part in zip(pattern, parts, strict=True):
            begin, _, name = expected.partition("{")
            if name and part.startswith(begin):
                params[name.strip("*}")] = part[len(begin) :]
            elif expected != part:
                return None
        return params


class Routes:
    """A table of routes. A path without parameters is found in a dict."""

    def __init__(self, table: Iterable[Route]) -> None:
        self._table = tuple(table)
        self._plain = {(route.method, route.path): route for route in self._table if "{" not in route.path}

    def find(self, request: Request) -> Route:
        """The route of a request; sets the request's `params`. Raises Problem 404, or 405 with Allow."""
        method = "GET" if request.method == "HEAD" else request.method
        if (plain := self._plain.get((method, request.path))) is not None:
            return plain
        allowed, parts = [], request.path.split("/")
        for route in self._table:
            params = route.match(parts)
            if params is None:
                continue
            if route.method == method:
                request.params = params
                return route
            allowed.append(route.method)
        if not allowed:
            raise Problem(404, "There is nothing here; GET / lists what there is.")
        allow = ", ".join([*sorted({*allowed}), *(["HEAD"] if "GET" in allowed else []), "OPTIONS"])
        if method == "OPTIONS":
            return Route("OPTIONS", request.path, _options(allow), Right.OPEN)
        raise Problem(405, f"Allowed here: {allow}.", headers={"allow": allow})

    def errors(self, path: str) -> Errors:
        """The shape of errors at any path: that of the routes whose path begins with the same segment."""
        first = path.split("/")[1:2]
        return next((route.errors for route in self._table if route.path.split("/")[1:2] == first), problem_response)


def _options(allow: str) -> Handler:
    async def options(request: Request) -> Reply:  # noqa: ARG001
        return Response(204, headers={"allow": allow})

    return options
