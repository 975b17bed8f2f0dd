"""What a handler gets and what it returns: the request, with the service and the stream that it names; and the reply."""

from sidecar.service import Service
from sse.asgi import Receive, Scope
from sse.budget import Charge
from sse.http import Reply as Reply  # so that a handler finds both here
from sse.http import Request as HTTPRequest
from sse.stream import Stream


class Request(HTTPRequest):
    """One request. service: what all features share. stream: the one that the path names or, in a path that names none, that of
    the last event ID; None if it isn't held. base: the path under which this is served, which begins every path that clients
    are told; empty at the root.
    """

    __slots__ = ("base", "service", "stream")

    def __init__(self, scope: Scope, receive: Receive, service: Service) -> None:
        super().__init__(scope, receive)
        self.service = service
        self.stream: Stream | None = None
        self.base = self.root_path or service.settings.root_path
        self.charge = Charge(service.store.budget)
        self.send_timeout, self.turn = service.settings.send_timeout, service.turn
