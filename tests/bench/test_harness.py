"""A benchmark's figures count only if the client has what it asked for: the checks notice when it hasn't."""

from importlib.util import find_spec

import pytest

from bench.__main__ import BENCHMARKS, chosen
from bench.harness import PEERS, Counter, check

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def body(*numbers: int) -> bytes:
    """Events of these numbers, each in a chunk of its own, after the head of the answer."""
    events = (b'id: %d\ndata: {"n":%d,"pad":"x"}\n\n' % (number + 1, number) for number in numbers)
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def test_events_are_counted_wherever_the_bytes_are_cut() -> None:
    data = body(0, 1, 2)
    for cut in range(len(data)):
        counter = Counter()
        counter(data[:cut])
        counter(data[cut:])
        check([counter], 3)


@pytest.mark.parametrize(
    "numbers",
    [(0, 1), (0, 1, 2, 3), (1, 2, 3), (0, 0, 1), (0, 1, 3)],
    ids=["one too few", "one too many", "the first missing", "one twice", "one skipped"],
)
def test_other_events_than_expected_end_the_benchmark(numbers: tuple[int, ...]) -> None:
    right, wrong = Counter(), Counter()
    right(body(0, 1, 2))
    wrong(body(*numbers))
    with pytest.raises(SystemExit, match=r"^1 of 2 connections got other events than 3 in order"):
        check([right, wrong], 3)


def test_every_benchmark_and_every_peer_has_its_module() -> None:
    modules = [benchmark.arguments[0] for benchmark in BENCHMARKS] + [
        peer.module.partition(":")[0] for peer in PEERS if peer.module
    ]
    assert [module for module in modules if find_spec(module) is None] == []


def test_benchmarks_are_chosen_by_name_all_without_one() -> None:
    assert [benchmark.name for benchmark in chosen(["burst", "wire"])] == ["burst", "wire"]
    assert chosen([]) == list(BENCHMARKS)


def test_a_name_that_there_isnt_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"^no benchmark is called nope; there are\n    wire "):
        chosen(["nope"])
