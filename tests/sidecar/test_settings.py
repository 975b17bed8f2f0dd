"""Every knob: what it takes, and the one line that says what is wrong with the rest."""

from dataclasses import fields
from typing import Any

import pytest

from sidecar.settings import PREFIX, Settings, from_environment, warn_of_unknown

GOOD: list[tuple[str, str, Any]] = [
    ("host", "0.0.0.0", "0.0.0.0"),
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("root_path", "/sidestream", "/sidestream"),
    ("root_path", "/a/b.c", "/a/b.c"),
    ("token", "secret", ("secret",)),
    ("token", "old, new", ("old", "new")),
    ("token", "off", ("off",)),
    ("token", "OFF", ("off",)),
    ("token", "officer", ("officer",)),
    ("origins", "https://app.example,http://localhost:3000", ("https://app.example", "http://localhost:3000")),
    ("hosts", "app.example app.example:8443", ("app.example", "app.example:8443")),
    ("hosts", "[::1]", ("[::1]",)),
    ("hosts", "App.Example", ("app.example",)),
    ("hosts", "my_service:8090 10.0.0.1", ("my_service:8090", "10.0.0.1")),
    ("origins", "HTTPS://App.example", ("https://app.example",)),
    ("origins", "https://app.example:443 http://app.example:80", ("https://app.example", "http://app.example")),
    ("origins", "https://app.example:80", ("https://app.example:80",)),
    ("origins", "http://[0:0::1]:3000", ("http://[::1]:3000",)),
    ("origins", "app://", ("app://",)),
    ("origins", "capacitor://localhost tauri://localhost", ("capacitor://localhost", "tauri://localhost")),
    ("origins", "chrome-extension://abcdefghijklmnop", ("chrome-extension://abcdefghijklmnop",)),
    ("trusted_proxies", "10.0.0.0/8,::1", ("10.0.0.0/8", "::1")),
    ("heartbeat", "0.5", 0.5),
    ("retry", "0", 0),
    ("send_timeout", "1", 1.0),
    ("linger", "0", 0.0),
    ("linger", "none", None),
    ("keep", "0", 0.0),
    ("drain", "0", 0.0),
    ("max_body", "65536", 65536),
    ("max_body", "64KiB", 65536),
    ("max_body", "4 MiB", 4 << 20),
    ("memory", "1GiB", 1 << 30),
    ("store", "rediss://app:pass@redis.example:6379/1", "rediss://app:pass@redis.example:6379/1"),
    ("store", "unix:///run/redis.sock", "unix:///run/redis.sock"),
    ("store_required", "off", False),
    ("replay_bytes", "65536", 65536),
    ("replay_events", "16", 16),
    ("max_streams", "1", 1),
    ("max_watchers", "1", 1),
    ("job_threads", "2", 2),
    ("job_queue", "0", 0),
    ("jobs", "package.jobs,more_jobs", ("package.jobs", "more_jobs")),
    ("tools", "package.tools", ("package.tools",)),
    ("model", "gpt-4o-mini", "gpt-4o-mini"),
    ("system", "Be brief.", "Be brief."),
    ("max_stages", "1", 1),
    ("first_token_timeout", "10", 10.0),
    ("upstream_timeout", "1e1", 10.0),
    ("demo_interval", "0", 0.0),
    ("ascii", "on", True),
    ("ascii", "No", False),
    ("log_level", "DEBUG", "debug"),
]

ORIGINS = "origins such as https://app.example or app://name, separated by commas"
HOSTS = "host names, each with a port or without, separated by commas"
NETWORKS = "addresses or networks such as 10.0.0.0/8, separated by commas"

BAD: list[tuple[str, str, str]] = [
    ("port", "x", "an integer from 0 to 65535"),
    ("port", "65536", "an integer from 0 to 65535"),
    ("port", "-1", "an integer from 0 to 65535"),
    ("root_path", "sidestream", "a path such as /sidestream, without a slash at its end"),
    ("root_path", "/a/", "a path such as /sidestream, without a slash at its end"),
    *(("origins", text, ORIGINS) for text in ("app.example", "*", ",", "null", "https://app.example/", "https://*.example")),
    *(("origins", text, ORIGINS) for text in ("https://", "https://a:99999", "https://a:x", "https://u@a", "http://[::1")),
    *(("origins", text, ORIGINS) for text in ("http://10.0.0", "http://bücher.example", "file://", "://a", "https:a")),
    *(("hosts", text, HOSTS) for text in ("app.example/x", "*", ";", "::1", "app.example:99999", "a..b", "10.0.0.256")),
    *(("trusted_proxies", text, NETWORKS) for text in ("proxy", ",", "*", "10.0.0", "10.0.0.256", "10.0.0.1/8", "10.0.0.0/33")),
    *(("trusted_proxies", text, NETWORKS) for text in ("::ffff:10.0.0.1", "::ffff:0:0/96", "10.0.0.0/8 proxy")),
    ("heartbeat", "0", "seconds, from 0.05 to 86400"),
    ("heartbeat", "nan", "seconds, from 0.05 to 86400"),
    ("heartbeat", "inf", "seconds, from 0.05 to 86400"),
    ("heartbeat", "15s", "seconds, from 0.05 to 86400"),
    ("retry", "2.5", "an integer from 0 to 3600000"),
    ("send_timeout", "0", "seconds, from 0.1 to 86400"),
    ("linger", "-1", "seconds, from 0 to 86400, or none"),
    ("linger", "never", "seconds, from 0 to 86400, or none"),
    ("keep", "-1", "seconds, from 0 to 86400"),
    ("drain", "3601", "seconds, from 0 to 3600"),
    ("max_body", "4MB", "bytes (as 65536, 64KiB or 4MiB), at least 1024"),
    ("max_body", "1", "bytes (as 65536, 64KiB or 4MiB), at least 1024"),
    ("max_streams", "0", "an integer from 1 to 1000000"),
    ("max_watchers", "0", "an integer from 1 to 1000000"),
    ("replay_events", "15", "an integer from 16 to 10000000"),
    ("replay_bytes", "1KiB", "bytes (as 65536, 64KiB or 4MiB), at least 65536"),
    ("memory", "64KiB", "bytes (as 65536, 64KiB or 4MiB), at least 1048576"),
    ("job_threads", "0", "an integer from 1 to 256"),
    ("job_queue", "-1", "an integer from 0 to 100000"),
    ("jobs", "my-jobs", "Python modules, separated by commas"),
    ("jobs", ",", "Python modules, separated by commas"),
    ("tools", "a..b", "Python modules, separated by commas"),
    ("store_required", "maybe", "on or off"),
    ("max_stages", "0", "an integer from 1 to 100"),
    ("first_token_timeout", "0", "seconds, from 0.1 to 86400"),
    ("upstream_timeout", "soon", "seconds, from 0.1 to 86400"),
    ("demo_interval", "61", "seconds, from 0 to 60"),
    ("ascii", "maybe", "on or off"),
    ("log_level", "loud", "debug, info, warning or error"),
]

ANY_TEXT = {"host", "model", "system"}
"""Knobs that take any text: there is no wrong value to name here."""


def variable(name: str) -> str:
    return PREFIX + name.upper()


@pytest.mark.parametrize(("name", "text", "value"), GOOD, ids=[f"{name}={text}" for name, text, _ in GOOD])
def test_a_value_is_read_as_meant(name: str, text: str, value: Any) -> None:
    assert getattr(from_environment({variable(name): text}), name) == value


@pytest.mark.parametrize(("name", "text", "expected"), BAD, ids=[f"{name}={text}" for name, text, _ in BAD])
def test_a_wrong_value_is_named_in_one_line_with_what_is_expected(name: str, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=PREFIX) as raised:
        from_environment({variable(name): text})
    assert str(raised.value) == f"{variable(name)}={text!r}: expected {expected}"


def test_a_line_break_in_a_wrong_value_does_not_break_the_line() -> None:
    with pytest.raises(ValueError, match="expected an integer") as raised:
        from_environment({variable("port"): "1\n2"})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("token", ["geheimnis-ä", ",", " , ,", "off,secret", "secret OFF"])
def test_a_wrong_token_is_not_shown_and_is_not_taken_for_none(token: str) -> None:
    with pytest.raises(ValueError, match="not shown") as raised:
        from_environment({variable("token"): token})
    assert str(raised.value) == "SIDESTREAM_TOKEN=(not shown): expected one or more tokens, or off alone"


def test_a_wrong_store_is_not_shown() -> None:
    with pytest.raises(ValueError, match="not shown") as raised:
        from_environment({variable("store"): "http://user:geheimnis@host"})
    assert str(raised.value) == "SIDESTREAM_STORE=(not shown): expected redis://…, rediss://… or unix://…"


def test_the_first_wrong_knob_is_the_one_that_is_told() -> None:
    with pytest.raises(ValueError, match=r"^SIDESTREAM_PORT="):
        from_environment({variable("keep"): "x", variable("port"): "x"})


def test_nothing_set_means_the_defaults() -> None:
    assert from_environment({}) == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert from_environment({variable(knob.name): " " for knob in fields(Settings)}) == Settings()


def test_a_name_that_is_misspelt_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown({"SIDESTREAM_KEPT": "1", "SIDESTREAM_TOKN": "s3cret", "SIDESTREAM_KEEP": "1", "HOME": "/"})
    assert caplog.messages == [f"{name} is not a setting, and has no effect" for name in ("SIDESTREAM_KEPT", "SIDESTREAM_TOKN")]


def test_other_variables_are_left_alone() -> None:
    assert from_environment({"PORT": "x", "OPENAI_API_KEY": "x"}) == Settings()


def test_every_knob_has_a_case_here() -> None:
    names = {knob.name for knob in fields(Settings)}
    assert {name for name, _, _ in GOOD} == names
    assert {name for name, _, _ in BAD} | ANY_TEXT | {"token", "store"} == names
