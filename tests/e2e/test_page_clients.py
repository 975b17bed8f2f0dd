"""What the page says of other clients is what they do: computed anew with those that are installed."""

import json
from typing import Any

from tests.support import clients


def without_versions(table: dict[str, Any]) -> dict[str, Any]:
    return {**table, "clients": [{**client, "version": None} for client in table["clients"]]}


async def test_the_table_of_what_clients_make_of_each_lesson_is_true() -> None:
    assert without_versions(json.loads(clients.CLIENTS.read_text())) == without_versions(await clients.compute())
