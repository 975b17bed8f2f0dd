"""Jobs over HTTP: start one, see how far it is, stream its progress, cancel it.

    POST /jobs {"kind", "params"}   202 {"job_id", "status", "progress", "key"}; without a body, a job of kind `steps`
    GET /jobs                       the kinds, with their parameters
    GET /jobs/{id}                  the state
    GET /jobs/{id}/progress         the stream, plain; a newcomer begins at the newest event and sees at once where it stands
    DELETE /jobs/{id}               204

A job is a stream (its id is the stream's) that goes on without watchers.
"""

from typing import Any

from handlers.jobs.kinds import load
from handlers.jobs.run import Job
from handlers.service import Proposal, Reply, Service
from sse.bridge import Bridge
from sse.errors import Full, Problem
from sse.formats import Plain
from sse.http import Request, Response, json_response
from sse.state import State, Trigger
from sse.store import Opening
from sse.stream import Stream
from sse.wire.payload import dumps

_STATUS = {State.RUNNING: "running", State.DONE: "completed", State.FAILED: "failed", State.CANCELLED: "cancelled"}


def start(service: Service) -> None:
    """Load the kinds, make the threads' bridge. Raises ValueError for a module that can't be used."""
    try:
        service.state["kinds"] = load(service.settings.jobs)
    except ImportError as error:
        raise ValueError(f"SIDESTREAM_JOBS: {error}") from None
    service.state["bridge"] = Bridge(service.settings.job_threads, service.settings.job_queue)


async def create(service: Service, request: Request) -> Reply:
    """`POST /jobs`."""
    body = await request.json(limit=service.settings.max_body)
    wishes = {"kind": "steps"} if body is None else body
    if not isinstance(wishes, dict):
        raise Problem(400, "The body must be an object with kind and params.")
    kind = service.state["kinds"].get(wishes.get("kind", "steps"))
    if kind is None:
        raise Problem(422, "There is no such kind of job; GET /jobs lists them.", parameter="kind")
    params = wishes.get("params") or {}
    if not isinstance(params, dict):
        raise Problem(422, "params must be an object.", parameter="params")
    kind.check(params)

    def propose(identity: str) -> Proposal:
        settings = service.settings
        try:
            job = Job(kind, params, service.state["bridge"])
        except Full as full:
            headers = {"retry-after": str(full.retry_after)}
            raise Problem(429, "All job threads are busy and their queue is full.", headers=headers) from None
        opening = Opening(identity, Plain(ascii=settings.ascii), linger=None, keep=settings.keep)
        return Proposal(lambda: job, opening)

    stream = service.open(request, propose, body=dumps(wishes))
    url = f"{service.base(request)}/jobs/{stream.id}"
    status = describe(stream, find_job(stream))["status"]
    document = {"job_id": stream.id, "status": status, "progress": f"{url}/progress", "key": stream.key}
    return json_response(document, 202, {"location": url})


async def index(service: Service, request: Request) -> Reply:  # noqa: ARG001
    """`GET /jobs`."""
    return json_response({"kinds": [kind.describe() for kind in service.state["kinds"].values()]})


async def show(service: Service, request: Request) -> Reply:
    """`GET /jobs/{id}`."""
    stream = find(service, request)
    return json_response(describe(stream, find_job(stream)))


async def progress(service: Service, request: Request) -> Reply:
    """`GET /jobs/{id}/progress`."""
    stream = service.store.find(request.params["id"])
    known = stream is not None and isinstance(stream.source, Job)
    return service.watch_named(request, request.params["id"] if known else "", newest=True)


async def cancel(service: Service, request: Request) -> Reply:
    """`DELETE /jobs/{id}`."""
    find(service, request).end(Trigger.DELETED)
    return Response(204)


def find(service: Service, request: Request) -> Stream:
    stream = service.store.find(request.params["id"])
    if stream is None or not isinstance(stream.source, Job):
        raise Problem(404, "The job is unknown or has expired.", code="stream_gone")
    return stream


def find_job(stream: Stream) -> Job:
    assert isinstance(stream.source, Job)
    return stream.source


def describe(stream: Stream, job: Job) -> dict[str, Any]:
    """The state document."""
    document = {
        "job_id": stream.id,
        "kind": job.kind.name,
        "status": "pending" if job.pending else _STATUS[stream.state],
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
