"""Jobs over HTTP: start one, see how far it is, stream its progress, cancel it.

    POST /jobs {"kind", "params"}   202 {"job_id", "status", "progress", "key"}; without a body, a job of kind `steps`
    GET /jobs                       the kinds, with their parameters
    GET /jobs/{id}                  the state
    GET /jobs/{id}/progress         the stream, plain; a newcomer begins at the newest event and sees at once where it stands
    DELETE /jobs/{id}               204

A job is a stream (its id is the stream's) that goes on without watchers.
"""

from typing import Any

from handlers.jobs.job import Job
from sidecar.answers import Gone, Reply, base, resume, start
from sidecar.functions import Function, expected, load
from sidecar.service import Service
from sidecar.settings import Settings
from sse.errors import Full, Problem
from sse.formats import Format
from sse.http import Request, Response, json_response
from sse.stream import Opening, State, Stream, Trigger
from sse.threads import Threads
from sse.wire.payload import dumps

_STATUS = {State.RUNNING: "running", State.DONE: "completed", State.FAILED: "failed", State.CANCELLED: "cancelled"}


class Jobs:
    """The kinds of jobs by name, and their threads; its methods are the handlers."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for a module that can't be used."""
        self.kinds = load("SIDESTREAM_JOBS", ("handlers.jobs.builtin", *settings.jobs))
        self.threads = Threads(settings.job_threads, settings.job_queue)

    async def create(self, service: Service, request: Request, stream: Stream | None) -> Reply:
        """`POST /jobs`."""
        body = await request.json(limit=service.settings.max_body)
        kind, params = self._asked({} if body is None else body)

        def propose() -> Opening:
            try:
                return Opening(Job(kind, params, self.threads), Format(), linger=None, keep=service.settings.keep)
            except Full as full:
                detail = f"No room for another job: {full.what}."
                raise Problem(429, detail, headers={"retry-after": str(full.retry_after)}) from None

        stream = await start(service, request, propose, body=dumps([kind.name, params]))
        url = f"{base(service, request)}/jobs/{stream.id}"
        status = describe(*_job(stream))["status"]
        document = {"job_id": stream.id, "status": status, "progress": f"{url}/progress", "key": stream.key}
        return json_response(document, 202, {"location": url})

    def _asked(self, body: Any) -> tuple[Function, dict[str, Any]]:
        """The kind of job that is asked for, and its parameters. Raises Problem 400, or 422 that names what is wrong."""
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

    async def index(self, service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG002
        """`GET /jobs`."""
        return json_response({"kinds": [describe_kind(kind) for kind in self.kinds.values()]})

    async def show(self, service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG002
        """`GET /jobs/{id}`."""
        return json_response(describe(*_job(stream)))

    async def progress(self, service: Service, request: Request, stream: Stream | None) -> Reply:
        """`GET /jobs/{id}/progress`."""
        known = stream is not None and isinstance(stream.source, Job)
        return resume(service, request, stream if known else None, newest=True)

    async def cancel(self, service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG002
        """`DELETE /jobs/{id}`."""
        stream, _ = _job(stream)
        await service.store.end(stream, Trigger.DELETED)
        return Response(204)


def _job(stream: Stream | None) -> tuple[Stream, Job]:
    """The job that the path names. Raises Gone."""
    if stream is None or not isinstance(stream.source, Job):
        raise Gone("job")
    return stream, stream.source


def describe_kind(kind: Function) -> dict[str, Any]:
    """A kind of job, as the list of kinds has it."""
    params = {
        name: {"expected": expected(schema)} | ({"default": schema["default"]} if "default" in schema else {})
        for name, schema in kind.parameters.get("properties", {}).items()
    }
    return {"kind": kind.name, "description": kind.description, "params": params}


def describe(stream: Stream, job: Job) -> dict[str, Any]:
    """The state document. Times: seconds since 1970. progress: 0 to 100."""
    document = {
        "job_id": stream.id,
        "kind": job.kind,
        "status": "pending" if stream.state is State.RUNNING and job.started is None else _STATUS[stream.state],
        "progress": job.progress,
        "step": job.step,
        "message": job.message,
        "details": job.details,
        "created": job.created,
        "started": job.started,
        "ended": stream.ended,
    }
    if stream.state is State.DONE:
        document["result"] = job.result
    if stream.failure is not None:
        document["error"] = {"error": stream.failure.message, "code": stream.failure.code}
    return document
