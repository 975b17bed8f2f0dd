"""Jobs over HTTP: start one, read its state, stream its progress, cancel it.

    POST /jobs {"kind", "params"}   202 {"job_id", "status", "progress", "key"}; without a body, a job of kind `steps`
    GET /jobs                       the kinds, with their parameters
    GET /jobs/{id}                  the state
    GET /jobs/{id}/progress         the stream, plain; a newcomer begins at the newest event, which has the present state
    DELETE /jobs/{id}               204

A job is a stream, and its id is the stream's. It goes on without watchers.
"""

from typing import Any

from handlers.jobs.job import Job, Progress
from sidecar.answers import Gone, resume, start
from sidecar.functions import Function, expected, load
from sidecar.request import Reply, Request
from sidecar.service import Service
from sidecar.settings import Settings
from sse.budget import Charge
from sse.errors import Full, Problem
from sse.http import Response, json_response
from sse.stream import Opening, State, Stream, Trigger
from sse.threads import Threads
from sse.wire.payload import dumps

KIND = "job"
_STATUS = {State.RUNNING: "running", State.DONE: "completed", State.FAILED: "failed", State.CANCELLED: "cancelled"}


class Jobs:
    """The kinds of jobs by name, and their threads; its methods are the handlers."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for a module that can't be used."""
        self.kinds = load("SIDESTREAM_JOBS", ("handlers.jobs.builtin", *settings.jobs))
        self.threads = Threads(settings.job_threads, settings.job_queue)

    async def create(self, request: Request) -> Reply:
        """`POST /jobs`."""
        service, body = request.service, await request.json(limit=request.service.settings.max_body)
        kind, params = self._asked({} if body is None else body)

        def propose(**facts: Any) -> Opening:
            try:
                job = Job(kind, params, self.threads, Charge(service.store.budget))
            except Full as full:
                raise Problem(429, f"No room for another job: {full.what}.", headers=full.headers) from None
            keep = service.settings.keep
            return Opening(job, Progress(), None, keep, result=job.state, kept=job.kept, kind=KIND, **facts)

        stream = await start(request, propose, body=dumps([kind.name, params]))
        url = f"{request.base}/jobs/{stream.id}"
        status = (await describe(service, stream))["status"]
        document = {"job_id": stream.id, "status": status, "progress": f"{url}/progress", "key": stream.key}
        return json_response(document, 202, {"location": url})

    def _asked(self, body: Any) -> tuple[Function, dict[str, Any]]:
        """The kind of job that a body asks for, and its parameters. Raises Problem 400, or 422 that names the wrong member."""
        if not isinstance(body, dict):
            raise Problem(400, "The body must be an object with kind and params.")
        for name in body.keys() - {"kind", "params"}:
            raise Problem(422, f"{name} is not known here.", parameter=name)
        name, params = body.get("kind", "steps"), body.get("params", {})
        kind = self.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise Problem(422, "There is no such kind of job; GET /jobs lists them.", parameter="kind")
        if not isinstance(params, dict):
            raise Problem(422, "params must be an object.", parameter="params")
        kind.check(params, "params.")
        return kind, params

    async def index(self, request: Request) -> Reply:  # noqa: ARG002
        """`GET /jobs`."""
        return json_response({"kinds": [describe_kind(kind) for kind in self.kinds.values()]})

    async def show(self, request: Request) -> Reply:
        """`GET /jobs/{id}`."""
        return json_response(await describe(request.service, _job(request)))

    async def progress(self, request: Request) -> Reply:
        """`GET /jobs/{id}/progress`."""
        return resume(request, _known(request), newest=True)

    async def cancel(self, request: Request) -> Reply:
        """`DELETE /jobs/{id}`."""
        await request.service.store.end(_job(request), Trigger.DELETED)
        return Response(204)


def _known(request: Request) -> Stream | None:
    """The job that the path names, if it is one."""
    stream = request.stream
    return stream if stream is not None and stream.opening.kind == KIND else None


def _job(request: Request) -> Stream:
    """The job that the path names. Raises Gone."""
    if (stream := _known(request)) is None:
        raise Gone("job")
    return stream


def describe_kind(kind: Function) -> dict[str, Any]:
    """A kind of job, as an entry of the list of kinds."""
    params = {
        name: {"expected": expected(schema)} | ({"default": schema["default"]} if "default" in schema else {})
        for name, schema in kind.parameters.get("properties", {}).items()
    }
    return {"kind": kind.name, "description": kind.description, "params": params}


async def describe(service: Service, stream: Stream) -> dict[str, Any]:
    """The state document. Times: seconds since 1970. progress: 0 to 100. All null where the process that ran it is gone."""
    job = await service.result(stream) or {}
    waits = stream.state is State.RUNNING and job.get("started") is None
    document = {
        "job_id": stream.id,
        "kind": job.get("kind"),
        "status": "pending" if waits else _STATUS[stream.state],
        **{name: job.get(name) for name in ("progress", "step", "message", "details", "created", "started")},
        "ended": stream.ended,
    }
    if stream.state is State.DONE:
        document["result"] = job.get("result")
    if stream.failure is not None:
        document["error"] = {"error": stream.failure.message, "code": stream.failure.code}
    return document
