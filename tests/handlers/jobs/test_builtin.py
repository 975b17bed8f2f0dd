"""The kinds of jobs that are always there."""

from typing import Any

from handlers.jobs.builtin import checksum, steps


def test_checksum_digests_and_reports() -> None:
    reported: list[Any] = []
    result = checksum(lambda step, details: reported.append((step, details)), mebibytes=2)
    assert result["hexdigest"] == "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee"
    assert reported == [("digest", {"progress": 50.0, "mebibytes": 1}), ("digest", {"progress": 100.0, "mebibytes": 2})]


async def test_steps_reports_each_step() -> None:
    reported: list[Any] = []
    assert await steps(lambda step, details: reported.append(details["progress"]), count=4, interval=0) == {"steps": 5}
    assert reported == [0, 25, 50, 75, 100]
