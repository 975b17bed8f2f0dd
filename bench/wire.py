"""The wire, in events a second: writing, and reading beside the parsers of httpx2 and the openai SDK on the same bytes.

    python -m bench.wire

The readers take turns, and the best of their rounds counts. Each has to find every event, or there is no figure.
"""

import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter

from httpx2._sse import _SSEParser
from openai._streaming import SSEDecoder

from sse.wire import Event, Parser, dumps, encode, encode_json

EVENTS = 10_000
ROUNDS = 7
CHUNKS = {"one event a chunk": None, "4 KiB a chunk": 4096, "64 KiB a chunk": 65536}
PAYLOAD = {"count": 12345, "message": "x" * 81}


def sidestream(chunks: Iterable[bytes]) -> int:
    parser = Parser()
    return sum(len(parser.feed(chunk)) for chunk in chunks)


def httpx2(chunks: Iterable[bytes]) -> int:
    parser, decode = _SSEParser(16 * 1024 * 1024), getincrementaldecoder("utf-8")("replace").decode
    return sum(1 for chunk in chunks for _ in parser.decode(decode(chunk)))


def openai(chunks: Iterable[bytes]) -> int:
    return sum(1 for _ in SSEDecoder().iter_bytes(iter(chunks)))


READERS = {"sidestream": sidestream, "httpx2": httpx2, "openai": openai}


def _seconds(work: Callable[[], int]) -> float:
    start = perf_counter()
    found = work()
    seconds = perf_counter() - start
    if found != EVENTS:
        raise SystemExit(f"{found} events instead of {EVENTS}")
    return seconds


def reading() -> dict[str, dict[str, float]]:
    """Events a second, by the size of the chunks and by reader."""
    event = encode(Event(dumps(PAYLOAD), id="kT0vJc1nQmO3xZ7bRfWcZA.12345"))
    body = event * EVENTS
    figures = {}
    for label, size in CHUNKS.items():
        step = size or len(event)
        chunks = [body[start : start + step] for start in range(0, len(body), step)]
        best = dict.fromkeys(READERS, float("inf"))
        for _ in range(ROUNDS):
            for name, reader in READERS.items():
                best[name] = min(best[name], _seconds(partial(reader, chunks)))
        figures[label] = {name: EVENTS / seconds for name, seconds in best.items()}
    return figures


def writing() -> dict[str, float]:
    """Events a second, by how they are made."""
    json, built = dumps(PAYLOAD), Event(dumps(PAYLOAD), id="kT0vJc1nQmO3xZ7bRfWcZA.12345")
    ways: dict[str, Callable[[], bytes]] = {
        "encode_json(json)": lambda: encode_json(json),
        "encode_json(dumps(dict))": lambda: encode_json(dumps(PAYLOAD)),
        "encode(event)": lambda: encode(built),
        "encode(Event(…))": lambda: encode(Event(json, id="kT0vJc1nQmO3xZ7bRfWcZA.12345")),
    }
    return {label: EVENTS / min(_seconds(partial(_write, way)) for _ in range(ROUNDS)) for label, way in ways.items()}


def _write(way: Callable[[], bytes]) -> int:
    return sum(1 for _ in range(EVENTS) if way())


def main() -> None:
    size = len(encode(Event(dumps(PAYLOAD), id="kT0vJc1nQmO3xZ7bRfWcZA.12345")))
    print(f"events a second, {size} bytes each, Python {sys.version.split()[0]}\n")
    print(f"{'reading':<26}" + "".join(f"{name:>12}" for name in READERS) + f"{'ahead by':>12}")
    for label, by_reader in reading().items():
        ahead = by_reader["sidestream"] / max(by_reader["httpx2"], by_reader["openai"])
        print(f"{label:<26}" + "".join(f"{figure:>12,.0f}" for figure in by_reader.values()) + f"{ahead:>11.2f}x")
    print("\nwriting")
    for label, figure in writing().items():
        print(f"{label:<26}{figure:>12,.0f}")


if __name__ == "__main__":
    main()
