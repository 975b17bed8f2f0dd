"""The two probes."""

from app import Sidestream
from sidecar.settings import Settings
from sse import __version__
from tests.support.app import ask
from tests.support.streams import open_in


async def test_alive_says_which_version() -> None:
    answer = await ask(Sidestream(Settings()), "/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok", "version": __version__})


async def test_ready_until_it_drains() -> None:
    sidestream = Sidestream(Settings())
    assert (await ask(sidestream, "/readyz")).json == {"status": "ready"}
    sidestream.service.store.draining = True
    answer = await ask(sidestream, "/readyz")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert (await ask(sidestream, "/healthz")).status == 200


async def test_a_full_server_is_still_ready() -> None:
    """Nothing new is opened, but what is kept here is watched here."""
    sidestream = Sidestream(Settings(max_streams=1))
    open_in(sidestream.service.store)
    assert (await ask(sidestream, "/readyz")).status == 200


async def test_the_probes_need_no_token_and_mind_no_host() -> None:
    sidestream = Sidestream(Settings(token=("secret",), hosts=("app.example",)))
    for path in ("/healthz", "/readyz"):
        assert (await ask(sidestream, path, headers={"host": "10.0.0.1:8090"})).status == 200
