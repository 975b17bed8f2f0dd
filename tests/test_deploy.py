"""What the files for nginx, containers and Kubernetes say, against the settings and routes they speak of."""

import re
from pathlib import Path

import pytest

from sidecar.server import FLUSH
from sidecar.settings import PREFIX, Settings
from tests.support.app import ROUTES

ROOT = Path(__file__).parents[1]
NGINX = (ROOT / "nginx.conf").read_text()
CONTAINERFILE = (ROOT / "Containerfile").read_text()
COMPOSE = (ROOT / "deploy/compose.yaml").read_text()
KUBERNETES = (ROOT / "deploy/kubernetes.yaml").read_text()
COMPOSE_REDIS = (ROOT / "deploy/compose-redis.yaml").read_text()
KUBERNETES_REDIS = (ROOT / "deploy/kubernetes-redis.yaml").read_text()
DEFAULT = Settings()
FILES = {
    "nginx.conf": NGINX,
    "Containerfile": CONTAINERFILE,
    "compose.yaml": COMPOSE,
    "compose-redis.yaml": COMPOSE_REDIS,
    "kubernetes.yaml": KUBERNETES,
    "kubernetes-redis.yaml": KUBERNETES_REDIS,
}


def directives(name: str) -> list[str]:
    """The values that nginx.conf gives a directive."""
    return re.findall(rf"^ +{name} ([^;\n]+);", NGINX, re.MULTILINE)


def number(pattern: str, text: str) -> int:
    [value] = re.findall(pattern, text)
    return int(value)


# -- nginx.conf


def test_every_directive_has_a_remark_above_it() -> None:
    """Or stands in a group of them that has one: no directive begins a paragraph without a word."""
    bare = []
    for paragraph in re.split(r"\n[ \t]*\n", NGINX):
        first = paragraph.lstrip().partition("\n")[0]
        if not re.match(r"#|\}|(http|events|server|location|upstream) ?[^;]*\{$|proxy_pass ", first):
            bare.append(first)
    assert bare == []


def test_nginx_waits_longer_than_the_sidecar_is_ever_silent() -> None:
    everywhere, for_v1 = int(directives("proxy_read_timeout")[0][:-1]), int(directives("proxy_read_timeout")[-1][:-1])
    assert everywhere >= 3 * DEFAULT.heartbeat
    assert for_v1 > DEFAULT.first_token_timeout
    assert directives("send_timeout") == [f"{DEFAULT.send_timeout:g}s"]


def test_nginx_and_the_sidecar_agree_on_the_address_and_on_the_size_of_bodies() -> None:
    assert directives("server") == [f"{DEFAULT.host}:{DEFAULT.port}"]
    assert directives("client_max_body_size") == [f"{DEFAULT.max_body >> 20}m", "0"]


@pytest.mark.parametrize("directive", ["proxy_buffering", "proxy_cache", "gzip"])
def test_what_holds_events_back_is_off_everywhere(directive: str) -> None:
    assert directives(directive) == ["off"]


def test_chunks_stay() -> None:
    assert directives("chunked_transfer_encoding") == []
    assert "chunked_transfer_encoding off" in NGINX, "a remark says why"


# -- the image


def test_the_base_has_a_version_and_is_named_once() -> None:
    assert re.findall(r"^ARG BASE=(\S+)$", CONTAINERFILE, re.MULTILINE) == ["python:3.13-slim"]
    assert re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]


def test_all_that_is_copied_into_the_image_is_there_and_not_ignored() -> None:
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE)
        for source in sources.split()
    }
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert {"app.py", "handlers", "sidecar", "sse"} <= copied
    assert all((ROOT / source).exists() for source in copied)


def test_every_module_that_the_application_is_made_of_is_copied() -> None:
    """A module beside app.py that is imported there has to be in the image too."""
    modules = {path.name for path in ROOT.glob("*.py")}
    assert modules == {name for name in modules if f"{name} " in CONTAINERFILE}


# -- compose and Kubernetes


@pytest.mark.parametrize("name", FILES)
def test_every_setting_that_is_named_exists(name: str) -> None:
    named = set(re.findall(rf"{PREFIX}([A-Z_]+)", FILES[name]))
    assert {setting.lower() for setting in named} <= set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("text", [FILES[name] for name in FILES if name.endswith(".yaml")], ids=lambda text: text[2:40])
def test_images_have_a_version_and_lines_have_no_tabs(text: str) -> None:
    images = set(re.findall(r"image: (\S+)", text)) - {"sidestream"}  # that one is built here
    assert images
    assert all(re.search(r":[\d.]+", image) for image in images)
    assert "\t" not in text


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"stop_grace_period: (\d+)s", COMPOSE), (r"terminationGracePeriodSeconds: (\d+)", KUBERNETES)],
    ids=["compose", "kubernetes"],
)
def test_the_grace_period_is_above_the_drain(pattern: str, text: str) -> None:
    assert number(pattern, text) > DEFAULT.drain + FLUSH


def test_two_replicas_share_a_store_and_have_time_to_drain() -> None:
    drain = number(r'SIDESTREAM_DRAIN\n +value: "(\d+)"', KUBERNETES_REDIS)
    before = number(r'command: \["sleep", "(\d+)"\]', KUBERNETES_REDIS)
    assert number(r"terminationGracePeriodSeconds: (\d+)", KUBERNETES_REDIS) > before + drain + FLUSH
    assert number(r"replicas: (\d+)", KUBERNETES_REDIS) == 2
    assert set(re.findall(r"path: (\S+)", KUBERNETES_REDIS)) == {"/healthz", "/readyz"}
    assert number(r"stop_grace_period: (\d+)s", COMPOSE_REDIS) > DEFAULT.drain + FLUSH
    for text in (KUBERNETES_REDIS, COMPOSE_REDIS):
        assert "SIDESTREAM_STORE" in text
    assert "noeviction" in COMPOSE_REDIS


def test_the_pod_asks_for_paths_and_ports_that_there_are() -> None:
    open_paths = {route.path for route in ROUTES}
    assert set(re.findall(r"path: (\S+)", KUBERNETES)) == {"/healthz", "/readyz"} <= open_paths
    assert number(r"name: events\n +containerPort: (\d+)", KUBERNETES) == DEFAULT.port


def test_the_sidecar_in_the_pod_is_a_native_one_and_reads_no_service_for_its_port() -> None:
    sidecar, _, application = KUBERNETES.partition("initContainers:")[2].partition("\n      containers:")
    assert "restartPolicy: Always" in sidecar
    assert "restartPolicy" not in application
    assert "enableServiceLinks: false" in KUBERNETES


def test_nothing_is_writable_or_root_in_the_pod_and_in_compose() -> None:
    for line in ("runAsNonRoot: true", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false", "drop: [ALL]"):
        assert line in KUBERNETES
    for line in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"):
        assert line in COMPOSE
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", CONTAINERFILE, re.MULTILINE)
