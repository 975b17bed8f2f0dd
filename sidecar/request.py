"""A request as the handlers get it: that of `sse.http`, with the service that answers it and the stream that it names."""

from sidecar.service import Service
from sse.asgi import Receive, Scope
from sse.budget import Charge
from sse.http import Request as HTTPRequest
from sse.stream import Stream


class Request(HTTPRequest):
    """service: what all features share. stream: the one that the path names or, in a path that names none, the last event ID;
    None if it isn't held."""

    __slots__ = ("service", "stream")

    def __init__(self, scope: Scope, receive: Receive, service: Service) -> None:
        super().__init__(scope, receive)
        self.service = service
        self.stream: Stream | None = None
        self.charge = Charge(service.store.budget)
        self.send_timeout, self.turn = service.settings.send_timeout, service.turn
