"""docs/wire-protocol.md can't drift: its bytes are parsed, its Python is run, its links are followed."""

import ast
import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sse.wire.parser import Parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "wire-protocol.md").read_text()

BLOCK = re.compile(
    r"^```(event-stream|http)( next chunk| next connection| next request)?\n(.*?)^```\n\n(.*?)(?=^```|^#)", re.M | re.S
)
ROW = re.compile(r'^\| `(".*?")` \| `(".*?")` \| `(".*?")` \|$', re.M)
LINK = re.compile(r"\[`([^`]+)`\]\(\.\./([^)]+)\)")


class Block(NamedTuple):
    """bytes: of an event stream, or of a request. says: the page, from there to the next block or heading."""

    kind: str
    continues: str
    bytes: bytes
    says: str


def _conversations() -> Iterator[list[Block]]:
    """The blocks of the page, those together that one client gets to see."""
    conversation: list[Block] = []
    for kind, continues, text, says in BLOCK.findall(PAGE):
        content = text.encode()
        if kind == "event-stream":
            content = content.replace(b"\n", b"").decode("unicode_escape").encode("latin-1")
        if conversation and not continues:
            yield conversation
            conversation = []
        conversation.append(Block(kind, continues.strip(), content, says))
    yield conversation


CONVERSATIONS = list(_conversations())


@pytest.mark.parametrize("size", [1, 10_000], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("blocks", CONVERSATIONS, ids=[repr(blocks[0].bytes[:40]) for blocks in CONVERSATIONS])
def test_example_comes_out_as_the_page_says(blocks: list[Block], size: int) -> None:
    parser = Parser()
    for block in blocks:
        if block.kind == "http":
            _check_request(block, parser)
            continue
        if block.continues == "next connection":
            parser.reset()
        chunks = [block.bytes[start : start + size] for start in range(0, len(block.bytes), size)]
        dispatched = [tuple(event) for chunk in chunks for event in parser.feed(chunk)]
        expected = [tuple(json.loads(cell) for cell in row) for row in ROW.findall(block.says)]
        assert dispatched == expected
        assert bool(expected) != block.says.startswith("_Nothing is dispatched._")
        _check_afterwards(block, parser)


def _check_afterwards(block: Block, parser: Parser) -> None:
    then = re.search(r"^.*Then the .*$", block.says, re.M)
    if then is None:
        return
    last_event_id = re.search(r'last event ID is `(".*?")`', then[0])
    reconnection_time = re.search(r"reconnection time is `(\d+)`", then[0])
    assert last_event_id or reconnection_time
    if last_event_id:
        assert parser.last_event_id == json.loads(last_event_id[1])
    if reconnection_time:
        assert parser.reconnection_time == int(reconnection_time[1])


def _check_request(block: Block, parser: Parser) -> None:
    """A request carries the last event ID that the client has by then, and no header if it has none."""
    sent = re.search(rb"^Last-Event-ID: (.*)$", block.bytes, re.M)
    assert (sent[1].decode() if sent else "") == parser.last_event_id


def test_every_block_of_the_page_is_among_the_examples() -> None:
    assert sum(len(blocks) for blocks in CONVERSATIONS) == PAGE.count("\n```event-stream") + PAGE.count("\n```http")
    assert PAGE.count("\n```") == 2 * (PAGE.count("\n```event-stream") + PAGE.count("\n```http"))
    assert len(CONVERSATIONS) > 15


def test_every_row_of_events_is_read() -> None:
    after_blocks = [row for blocks in CONVERSATIONS for block in blocks for row in ROW.findall(block.says)]
    assert len(after_blocks) == len(re.findall(r'^\| `"', PAGE, re.M))


def test_python_of_the_page_does_as_it_says() -> None:
    test = doctest.DocTestParser().get_doctest(PAGE, {}, "wire-protocol.md", None, 0)
    assert len(test.examples) > 5
    report: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert outcome.failed == 0, "".join(report)


def _names(path: Path) -> set[str]:
    """What a module defines, `Class.method` and `Class.attribute` included; of the vectors, the names of the cases."""
    if path.suffix == ".json":
        return {case["name"] for case in json.loads(path.read_text())["cases"]}
    return set(_defined(ast.parse(path.read_text()).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name
            yield from _defined(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize(("name", "path"), sorted(set(LINK.findall(PAGE))))
def test_link_of_the_page_leads_somewhere(name: str, path: str) -> None:
    assert name == path or name in _names(ROOT / path)


def test_every_section_number_of_the_page_exists() -> None:
    titles = {"9.2", "9.2.2", "9.2.3", "9.2.4", "9.2.5", "9.2.6"}
    assert set(re.findall(r"\b9\.2(?:\.\d+)?\b", PAGE)) == titles
