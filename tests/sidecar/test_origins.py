"""Hosts and origins in normal form: what they are compared by, and what is none."""

import pytest

from sidecar.origins import is_loopback, known, normal_host, same_host, split


@pytest.mark.parametrize(
    ("authority", "parts"),
    [
        ("app.example", ("app.example", "")),
        ("App.Example:8090", ("app.example", "8090")),
        ("app.example:", ("app.example", "")),
        ("[::1]", ("[::1]", "")),
        ("[::1]:8090", ("[::1]", "8090")),
        ("", ("", "")),
        (":80", ("", "80")),
        ("::1", ("::1", "")),
        ("app.example:x", ("app.example:x", "")),
        ("app.example:123456", ("app.example:123456", "")),
        ("[::1", ("[::1", "")),
    ],
)
def test_a_host_and_its_port(authority: str, parts: tuple[str, str]) -> None:
    assert split(authority) == parts


@pytest.mark.parametrize(
    ("authority", "normal"),
    [
        ("App.Example", "app.example"),
        ("my_service:08090", "my_service:8090"),
        ("app.example.", "app.example."),
        ("[0:0::0:1]:80", "[::1]:80"),
        ("10.0.0.1", "10.0.0.1"),
        ("1.example", "1.example"),
    ],
)
def test_a_host_in_normal_form(authority: str, normal: str) -> None:
    assert normal_host(authority) == normal


@pytest.mark.parametrize(
    "authority", ["", "*", "a..b", ".a", "a b", "bücher.example", "u@a", "::1", "[::1", "[a]", "10.0.0", "10.0.0.01", "a:65536"]
)
def test_what_is_no_host(authority: str) -> None:
    with pytest.raises(ValueError):
        normal_host(authority)


@pytest.mark.parametrize(
    ("origin", "normal"),
    [
        ("HTTPS://App.Example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("app://", "app://"),
        ("app://-", "app://-"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("null", ""),
        ("file://", ""),
        ("", ""),
        ("https://", ""),
        ("https://app.example/", ""),
        ("https://app.example?x", ""),
        ("https://u@app.example", ""),
        ("https:app.example", ""),
    ],
)
def test_an_origin_in_normal_form(origin: str, normal: str) -> None:
    assert known(origin) == normal


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://app.example", "app.example", True),
        ("http://app.example", "App.Example:80", True),
        ("https://app.example", "app.example:443", True),
        ("https://app.example", "app.example", True),
        ("http://app.example:8090", "app.example:8090", True),
        ("http://app.example", "app.example:8090", False),
        ("http://app.example:8090", "app.example", False),
        ("http://app.example", "app.example:443", False),
        ("http://app.example", "other.example", False),
        ("app://app.example", "app.example", False),
        ("", "", False),
    ],
)
def test_an_origin_is_of_a_host(origin: str, host: str, same: bool) -> None:
    assert same_host(origin, host) is same


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("localhost", "Page.LOCALHOST", "127.1.2.3", "[::1]", "::1")),
        *((host, False) for host in ("localhost.example", "127.0.0.1.example", "10.0.0.1", "")),
    ],
)
def test_what_is_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
