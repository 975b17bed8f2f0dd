"""The probe: whether something between a client and a sidecar buffers, compresses, strips or cuts event streams.

In:  passages. A passage is an event stream of a known pace as a client received it: when each event arrived, the headers, how
it ended (`GET /lab/probe` sends it). Out: findings, each with the line of configuration that mends it. `judge` is sans-IO;
`measure` does the I/O for the command line. The page measures with its own fetch, and `POST /lab/probe` judges.

    passage   X-Accel-Buffering: no    then silence    what only this passage can show
    paced     yes, as every stream     no              buffering that no header turns off, compression, what is stripped
    plain     no                       no              buffering that only this header turns off
    silent    yes                      yes             that idle connections are cut

Limit: a passage takes seconds. A proxy that cuts or holds back only after a longer time is not noticed.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from sse.errors import SSEError
from sse.wire.parser import Parser

if TYPE_CHECKING:
    import httpx2

PATH: Final = "/lab/probe"
EVENTS: Final = 12
INTERVAL: Final = 0.1
SILENCE: Final = 16.0
"""Seconds: a little more than a heartbeat's interval, for so long an idle stream is silent."""

HELD: Final = 0.35
"""Seconds between the delays of two events that count as holding back: more than jitter, less than a passage takes."""

LAST_EVENT_ID: Final = "probe"
COMMENT: Final = b": probe\n"
"""Before each event."""


class ProbeFailed(SSEError):
    """No answer came at all."""


class Passage(NamedTuple):
    """One stream as it arrived.

    arrivals: (number, sent, arrived), seconds by the server's and by the client's clock. events: how many were to come.
    silence: seconds without an event, before the last one. seen: the request as the server saw it. lasted: seconds to the end.
    """

    status: int
    headers: Mapping[str, str]
    arrivals: Sequence[tuple[int, float, float]] = ()
    comments: int = 0
    lasted: float = 0.0
    seen: Mapping[str, Any] | None = None
    events: int = EVENTS
    silence: float = 0.0

    @classmethod
    def read(cls, document: Any) -> "Passage":
        """From JSON of the same fields. Raises ValueError."""
        try:
            arrivals = [(int(number), float(sent), float(arrived)) for number, sent, arrived in document["arrivals"]]
            headers = {str(name).lower(): str(value) for name, value in document["headers"].items()}
            status, comments, events = int(document["status"]), int(document["comments"]), int(document["events"])
            lasted, silence, seen = float(document["lasted"]), float(document["silence"]), document["seen"]
            return cls(status, headers, arrivals, comments, lasted, None if seen is None else dict(seen), events, silence)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a passage: {error!r}") from None

    @property
    def complete(self) -> bool:
        return len(self.arrivals) == self.events + bool(self.silence)

    @property
    def held(self) -> float:
        """Seconds between the shortest and the longest delay of an event."""
        late = [arrived - sent for _, sent, arrived in self.arrivals[: self.events]]
        return max(late) - min(late) if late else 0.0

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def times(self) -> int:
        """How many of the paced events have arrived."""
        return min(len(self.arrivals), self.events)


class Passages(NamedTuple):
    paced: Passage
    plain: Passage
    silent: Passage


class Finding(NamedTuple):
    """level: good, note or bad. says: a sentence or two. mend: lines of nginx's configuration, or another advice."""

    name: str
    level: str
    says: str
    mend: str = ""


def judge(passages: Passages) -> list[Finding]:
    """The findings: bad ones first, good ones last."""
    for passage in passages:
        if not passage.is_stream:
            kind = passage.headers.get("content-type", "no type")
            says = f"The answer was {passage.status} with {kind}: no event stream comes through here."
            return [Finding("refused", "bad", says, f"Let {PATH} pass to the sidecar, as its streams do.")]
    found = [*_held_back(passages), *_cut(passages), *_lost(passages.paced)]
    if not any(finding.level == "bad" for finding in found):
        held, silence = 1000 * passages.paced.held, passages.silent.silence
        says = (
            f"Nothing buffers: no event was held back for longer than {held:.0f} ms. "
            f"Nothing compresses or strips, and {silence:g} s of silence cut nothing."
        )
        found.append(Finding("clear", "good", says))
    return sorted(found, key=lambda finding: ("bad", "note", "good").index(finding.level))


def _held_back(passages: Passages) -> Iterator[Finding]:
    paced, plain = passages.paced, passages.plain
    encoding = paced.headers.get("content-encoding", "identity")
    if encoding != "identity":
        says = f"The stream arrives compressed ({encoding}), which gathers: events were held back for up to {paced.held:.2f} s."
        yield Finding("compresses", "bad", says, "gzip off;")
    elif paced.held >= HELD:
        says = f"Events were held back for up to {paced.held:.2f} s and arrived together."
        yield Finding("buffers", "bad", says, "proxy_buffering off;\nproxy_http_version 1.1;")
    if plain.held >= HELD > paced.held:
        says = (
            f"Events without the header X-Accel-Buffering: no are held back for up to {plain.held:.2f} s. "
            "The sidecar's streams have it and pass at once; others that take this way may not."
        )
        yield Finding("buffers unless told", "note", says, "proxy_buffering off;")


def _cut(passages: Passages) -> Iterator[Finding]:
    broken = next((passage for passage in passages if passage.times < passage.events), None)
    if broken is not None:
        says = f"A stream ended after {broken.times} of {broken.events} events, while they still came."
        yield Finding("breaks", "bad", says, "proxy_read_timeout 60s;\nproxy_http_version 1.1;")
    silent = passages.silent
    if silent.times == silent.events and not silent.complete:
        quiet = silent.lasted - silent.arrivals[-1][2]
        mend = "proxy_read_timeout 60s;\n# or a heartbeat at less than half of that: SIDESTREAM_HEARTBEAT"
        yield Finding("cuts idle streams", "bad", f"The connection was cut after {quiet:.1f} s without an event.", mend)


def _lost(paced: Passage) -> Iterator[Finding]:
    seen = {"last_event_id": LAST_EVENT_ID} if paced.seen is None else paced.seen
    signs = {
        "the request's Last-Event-ID": seen.get("last_event_id") == LAST_EVENT_ID,
        "comments, which heartbeats are": paced.comments >= len(paced.arrivals),
        "Cache-Control: no-transform": "no-transform" in paced.headers.get("cache-control", ""),
    }
    if lost := [sign for sign, arrived in signs.items() if not arrived]:
        mend = "proxy_set_header Last-Event-ID $http_last_event_id;\n# and no proxy_hide_header, no expires, no body filter"
        yield Finding("strips", "bad", f"On the way these are lost: {'; '.join(lost)}.", mend)
    if seen.get("http_version") == "1.0":
        says = "The sidecar is asked with HTTP/1.0: a stream that is complete can't be told from one that was cut."
        yield Finding("speaks HTTP/1.0", "bad", says, 'proxy_http_version 1.1;\nproxy_set_header Connection "";')


# -- measuring


async def measure(url: str, *, headers: Mapping[str, str] | None = None, silence: float = SILENCE) -> Passages:
    """Ask the sidecar at `url` for all passages. Raises httpx2.InvalidURL; ProbeFailed where nothing answers."""
    import httpx2  # here, because the server judges without it

    base = url.rstrip("/").removesuffix(PATH) + PATH
    timeout = httpx2.Timeout(10.0, read=silence + 20.0)
    pace = f"{base}?interval={INTERVAL}&count="
    async with httpx2.AsyncClient(headers=headers, timeout=timeout) as client:
        return Passages(
            *await asyncio.gather(
                _passage(client, f"{pace}{EVENTS}"),
                _passage(client, f"{pace}{EVENTS}&plain=1"),
                _passage(client, f"{pace}1&silence={silence:g}", events=1, silence=silence),
            )
        )


async def _passage(client: "httpx2.AsyncClient", url: str, *, events: int = EVENTS, silence: float = 0.0) -> Passage:
    import httpx2

    wanted = {"accept": "text/event-stream", "last-event-id": LAST_EVENT_ID}
    arrivals: list[tuple[int, float, float]] = []
    seen, status, told, body = None, 0, {}, b""
    parser, begin = Parser(), time.monotonic()
    try:
        async with client.stream("GET", url, headers=wanted) as response:
            status, told = response.status_code, {name.lower(): value for name, value in response.headers.items()}
            async for chunk in response.aiter_bytes():
                body += chunk
                for event in parser.feed(chunk):
                    document = orjson.loads(event.data)
                    seen = document.get("seen", seen)
                    arrivals.append((document["number"], document["sent"], time.monotonic() - begin))
    except httpx2.TransportError as error:
        if not status:
            raise ProbeFailed(f"{url}: {error or type(error).__name__}") from error
    except (orjson.JSONDecodeError, AttributeError, KeyError) as error:
        raise ProbeFailed(f"{url} is an event stream, but not the sidecar's probe") from error
    lasted = time.monotonic() - begin
    return Passage(status, told, arrivals, body.count(COMMENT), lasted, seen, events, silence)
