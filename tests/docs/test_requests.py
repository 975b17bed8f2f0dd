"""docs/chat.md, docs/publishing.md and docs/jobs.md: the fields, events and members of their tables are those of the code."""

import json
import re
import shlex
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app import Sidestream
from handlers.chat.formats.plain import Plain
from handlers.chat.items import CODES
from handlers.chat.request import FIELDS, MAX_LINGER, MAX_MESSAGES, OWN_FIELDS, Offer
from handlers.jobs.job import Progress
from handlers.publish.bodies import MAX_LIST, READERS, RESERVED
from handlers.publish.routes import DEFAULT_TTL, MAX_DURATION
from handlers.publish.source import Published
from sidecar.answers import NOT_OF_THE_STREAM
from sidecar.conversations import MAX_KEY
from sidecar.settings import Settings
from sse.errors import SourceFailed
from sse.formats import Format
from sse.wire.parser import Parser
from tests.support.app import EVENT_STREAM, ROUTES, Answer, ask

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("chat", "publishing", "jobs")}
README = (ROOT / "README.md").read_text()
CHAT, PUBLISHING, JOBS = PAGES.values()

FAILURE = SourceFailed("m", "c")

CURL = ArgumentParser()
"""As much of curl's as the pages use."""
CURL.add_argument("-N", action="store_true")
CURL.add_argument("-H", action="append", default=[])
for option in ("-X", "-T", "-d", "--json"):
    CURL.add_argument(option)
CURL.add_argument("url")


@pytest.fixture
async def sidestream() -> AsyncIterator[Sidestream]:
    sidestream = Sidestream(Settings(demo_interval=0))
    sidestream.start()
    yield sidestream
    await sidestream.stop()


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column has this head."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def names(page: str, head: str) -> list[str]:
    """The names in the first column of a table."""
    return [name for row in rows(page, head) for name in re.findall(r"`(\w+)`", row[0])]


async def post(app: Sidestream, path: str, value: Any, **headers: str) -> Answer:
    return await ask(app, path, method="POST", json=value, headers=headers)


# -- all three


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_the_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert links
    for path, _, anchor in (link.partition("#") for link in links):
        assert (ROOT / "docs" / path).exists(), path
        heads = re.findall(r"^#+ (.*)", (ROOT / "docs" / path).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads], anchor


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)}
    assert links >= {f"docs/{name}.md" for name in PAGES}
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_the_paths_are_routes(page: str) -> None:
    shown = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?]*)`", page))
    assert shown
    assert shown <= {(route.method, route.path) for route in ROUTES}


def written(format: Format, *items: Any) -> set[tuple[str, tuple[str, ...]]]:
    """The events of a format: its name, and the members of its data or, if that is no JSON, the data itself."""
    ends = (format.done(), format.cancelled("r"), format.failed(FAILURE))
    events = [format.opening("s") or b"", *(format.item(item) for item in items), *ends]
    raw = b"".join(event if isinstance(event, bytes) else b"".join(event) for event in events)
    return {shape(event.type, event.data) for event in Parser().feed(raw)}


def shape(name: str, data: str) -> tuple[str, tuple[str, ...]]:
    return name, tuple(json.loads(data)) or ("{}",) if data.startswith("{") else (data,)


def told(page: str, head: str) -> set[tuple[str, tuple[str, ...]]]:
    """The events of a page's table, in the same form."""
    found = set()
    for name, data, *_ in rows(page, head):
        members = re.findall(r"`([^`]+)`", re.sub(r"\([^)]*\)", "", data))
        found.add(("message" if name == "(no name)" else name.strip("`"), tuple(members)))
    return found


REPORT = {"status": "running", "progress": 1, "step": "s", "message": None, "details": {}}
RESULT = {"status": "completed", "progress": 100, "result": 1}


def test_the_events_are_those_of_the_formats() -> None:
    assert told(CHAT, "event") == written(Format(), {"content": "x"}) | {("gap", ("first", "last")), ("item_error", ("error",))}
    assert {shape(e.type, e.data) for e in Parser().feed(Format().gap(1, 2) + Format().item_error("x"))} <= told(CHAT, "event")
    assert told(PUBLISHING, "terminal event") == written(Published())
    assert told(JOBS, "event") | {("connected", ("status", "stream"))} == written(Progress(), REPORT, RESULT)


def commands(page: str) -> list[str]:
    """The lines that have curl ask the sidecar, with what is piped into it."""
    whole = page.replace("\\\n", " ")
    return re.findall(r"^ {4}((?:printf .*\| )?curl .*127\.0\.0\.1:8090.*)$", whole, re.MULTILINE)


@pytest.mark.parametrize("command", [command for page in (*PAGES.values(), README) for command in commands(page)])
async def test_the_commands_are_answered(command: str, sidestream: Sidestream) -> None:
    """With a stream that is there, in place of the one that is named."""
    stream = (await post(sidestream, "/streams", {})).json["stream_id"]
    piped, _, curl = command.rpartition("| ")
    given = CURL.parse_args(shlex.split(curl)[1:])
    path = re.sub(r"(?<=/streams/)[^/]+", stream, given.url.removeprefix("http://127.0.0.1:8090"))
    headers = {name.lower(): value for name, value in (one.split(": ") for one in given.H) if value.isascii()}
    if given.json:
        headers |= {"content-type": "application/json", "accept": "application/json"}
    body = given.d or given.json or "".join(shlex.split(piped)[1:]).replace("\\n", "\n")
    method = given.X or ("PUT" if given.T else "POST" if body else "GET")
    answer = await ask(sidestream, path, method=method, headers=headers, body=body.encode())
    assert answer.status in (200, 201, 202, 204), answer.body


# -- chat


def test_the_stream_that_is_shown_has_events_of_the_table() -> None:
    (shown,) = re.findall(r"^```event-stream\n(.*?)^```", CHAT, re.MULTILINE | re.DOTALL)
    events = Parser().feed(shown.encode())
    assert len(events) > 3
    assert {shape(event.type, event.data) for event in events} <= told(CHAT, "event")


def test_every_field_that_a_chat_reads_is_there_and_no_other() -> None:
    assert sorted(names(CHAT, "field")) == sorted({**FIELDS, **OWN_FIELDS})
    for text in (f"1 to {MAX_MESSAGES:,} messages", f"0 to {MAX_LINGER:,}, that the work", f"1 to {MAX_KEY} characters"):
        assert text in CHAT


@pytest.mark.parametrize("name", [*FIELDS, *OWN_FIELDS])
async def test_a_wrong_value_is_answered_with_the_name_of_its_field(sidestream: Sidestream, name: str) -> None:
    answer = await post(sidestream, "/chat", {"messages": [{"role": "user", "content": "Hi"}], name: -1})
    assert (answer.status, answer.json["parameter"].partition("[")[0]) == (422, name)


def test_fields_that_the_sidecar_does_not_know_are_passed_on() -> None:
    shown = re.search(r"^\| any other \| (.*?): (.*) \|", CHAT, re.MULTILINE)
    assert shown is not None
    others = dict.fromkeys(re.findall(r"`(\w+)`", shown[2]), 1)
    assert others
    assert others.items() <= Plain({"prompt": "Hi", **others}, Offer()).request.parameters.items()


def test_every_query_parameter_is_there() -> None:
    assert sorted(names(CHAT, "parameter")) == sorted(("prompt", "model", *NOT_OF_THE_STREAM))


async def test_the_query_of_get_chat_is_read(sidestream: Sidestream) -> None:
    assert (await ask(sidestream, "/chat?model=demo")).json["parameter"] == "prompt"
    first = await ask(sidestream, "/chat?prompt=Hi&key=k", headers=EVENT_STREAM)
    again = await ask(sidestream, "/chat?prompt=Hi&key=k&from=now", headers=EVENT_STREAM)
    assert (first.headers["location"], again.events[-1].data) == (again.headers["location"], "[DONE]")
    for name in ("last_event_id", "lastEventId"):
        assert (await ask(sidestream, f"/chat?prompt=Hi&{name}=x.end", headers=EVENT_STREAM)).status == 204


def test_the_codes_after_which_to_ask_again_are_those_of_the_code() -> None:
    shown = re.search(r"succeed later after (.*?)\.", CHAT, re.DOTALL)
    assert shown is not None
    assert re.findall(r"`(\w+)`", shown[1]) == [code for code, (retryable, _) in CODES.items() if retryable]


async def test_the_example_calls_the_tool(sidestream: Sidestream) -> None:
    (body,) = re.findall(r"-d '(.*calculate.*)'", CHAT)
    answer = await post(sidestream, "/chat", json.loads(body))
    (summary,) = [json.loads(event.data)["tool_summary"] for event in answer.events if event.type == "tool_summary"]
    (call,) = summary["calls"]
    assert (call["name"], call["arguments"], call["result"]) == ("calculate", {"expression": "6*7"}, 42)


# -- publishing


async def test_every_field_of_a_stream_is_there_and_no_other(sidestream: Sidestream) -> None:
    fields = names(PUBLISHING, "field")
    assert (await post(sidestream, "/streams", dict.fromkeys(fields, 1))).status == 201
    source = (ROOT / "handlers" / "publish" / "routes.py").read_text()
    (known,) = re.findall(r"wishes\.keys\(\) - {(.*?)}", source)
    assert fields == re.findall(r"\w+", known)
    limit, metadata = f"0 to {MAX_DURATION:,.0f}, that", f"| {DEFAULT_TTL:g} |"
    assert (PUBLISHING.count(limit), metadata in PUBLISHING) == (2, True)


def test_every_kind_of_body_is_there_and_every_reserved_name() -> None:
    kinds = re.findall(r"^\| `(\w+/[\w-]+)`", PUBLISHING, re.MULTILINE)
    assert [*dict.fromkeys(kinds)] == ["application/json", *READERS]
    assert f"up to {MAX_LIST:,} events" in PUBLISHING
    (reserved,) = re.findall(r"reserved, and answered 422: (.*)\.", PUBLISHING)
    assert set(re.findall(r"`(\w+)`", reserved)) == RESERVED


async def test_an_event_has_the_members_that_are_there_and_so_has_the_answer(sidestream: Sidestream) -> None:
    url = (await post(sidestream, "/streams", {})).json["url"]
    event = dict.fromkeys(names(PUBLISHING, "member of an event in JSON"), "1")
    assert (await post(sidestream, f"{url}/events", {**event, "other": 1})).status == 422
    answer = await post(sidestream, f"{url}/events?first=1", event)
    assert list(answer.json) == names(PUBLISHING, "member of the answer")


# -- jobs


async def test_the_state_of_a_job_has_the_members_that_are_there(sidestream: Sidestream) -> None:
    shown = names(JOBS, "member of `GET /jobs/{id}`")
    job = (await post(sidestream, "/jobs", {"params": {"count": 1, "interval": 0}})).json
    await ask(sidestream, job["progress"], headers=EVENT_STREAM)
    document = (await ask(sidestream, f"/jobs/{job['job_id']}")).json
    assert {*document, "error"} == {*shown}
    (started,) = re.findall(r'^    ({"job_id".*)', JOBS, re.MULTILINE)
    assert list(job) == list(json.loads(started))


def test_the_states_are_those_of_the_code() -> None:
    source = (ROOT / "handlers" / "jobs" / "routes.py").read_text()
    (table,) = re.findall(r"_STATUS = {(.*)}", source)
    assert sorted(names(JOBS, "`status`")) == sorted(["pending", *re.findall(r'"(\w+)"', table)])
