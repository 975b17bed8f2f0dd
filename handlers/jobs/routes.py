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
from handlers.jobs.kinds import Kind, load
from sidecar.answers import Reply
from sidecar.service import Proposal, Service
from sse.errors import Full, Problem
from sse.formats import Plain
from sse.http import Request, Response, json_response
from sse.state import State, Trigger
from sse.store import Opening
from sse.stream import Stream
from sse.threads import Bridge
from sse.wire.payload import dumps

_STATUS = {State.RUNNING: "running", State.DONE: "completed", State.FAILED: "failed", State.CANCELLED: "cancelled"}


def start(service: Service) -> None:
    """Load the kinds, make the threads' bridge. Raises ValueError for a module that can't be used."""
    try:
        service.state["kinds"] = load(service.settings.jobs)
    except (ImportError, ValueError) as error:
        raise ValueError(f"SIDESTREAM_JOBS: {error}") from None
    service.state["bridge"] = Bridge(service.settings.job_threads, service.settings.job_queue)


async def create(service: Service, request: Request) -> Reply:
    """`POST /jobs`."""
    body = await request.json(limit=service.settings.max_body)
    kind, params = _wishes(service, {} if body is None else body)

    def propose(identity: str) -> Proposal:
        opening = Opening(identity, Plain(ascii=service.settings.ascii), linger=None, keep=service.settings.keep)
        return Proposal(lambda: Job(kind, params, service.state["bridge"]), opening)

    try:
        stream = service.open(request, propose, body=dumps([kind.name, params]))
    except Full as full:
        raise Problem(429, f"No room for another job: {full.what}.", headers={"retry-after": str(full.retry_after)}) from None
    url = f"{service.base(request)}/jobs/{stream.id}"
    status = describe(stream, _job(stream))["status"]
    document = {"job_id": stream.id, "status": status, "progress": f"{url}/progress", "key": stream.key}
    return json_response(document, 202, {"location": url})


def _wishes(service: Service, body: Any) -> tuple[Kind, dict[str, Any]]:
    """What kind of job is asked for, and its parameters. Raises Problem 400, or 422 that names what is wrong."""
    if not isinstance(body, dict):
        raise Problem(400, "The body must be an object with kind and params.")
    for name in body.keys() - {"kind", "params"}:
        raise Problem(422, f"{name} is not known here.", parameter=name)
    name, params = body.get("kind", "steps"), body.get("params", {})
    kind = service.state["kinds"].get(name) if isinstance(name, str) else None
    if kind is None:
        raise Problem(422, "There is no such kind of job; GET /jobs lists them.", parameter="kind")
    if not isinstance(params, dict):
        raise Problem(422, "params must be an object.", parameter="params")
    kind.check(params)
    return kind, params


async def index(service: Service, request: Request) -> Reply:  # noqa: ARG001
    """`GET /jobs`."""
    return json_response({"kinds": [kind.describe() for kind in service.state["kinds"].values()]})


async def show(service: Service, request: Request) -> Reply:
    """`GET /jobs/{id}`."""
    stream = _find(service, request)
    return json_response(describe(stream, _job(stream)))


async def progress(service: Service, request: Request) -> Reply:
    """`GET /jobs/{id}/progress`."""
    stream = service.store.find(request.params["id"])
    known = stream is not None and isinstance(stream.source, Job)
    return service.watch_named(request, request.params["id"] if known else "", newest=True)


async def cancel(service: Service, request: Request) -> Reply:
    """`DELETE /jobs/{id}`."""
    _find(service, request).end(Trigger.DELETED)
    return Response(204)


def _find(service: Service, request: Request) -> Stream:
    """The stream of the job that the path names. Raises Problem 404."""
    stream = service.store.find(request.params["id"])
    if stream is None or not isinstance(stream.source, Job):
        raise Problem(404, "The job is unknown or has expired.", code="stream_gone")
    return stream


def _job(stream: Stream) -> Job:
    assert isinstance(stream.source, Job)
    return stream.source


def describe(stream: Stream, job: Job) -> dict[str, Any]:
    """The state document. Times: seconds since 1970. progress: 0 to 100."""
    document = {
        "job_id": stream.id,
        "kind": job.kind.name,
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
