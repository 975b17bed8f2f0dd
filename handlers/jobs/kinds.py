"""Kinds of jobs: named functions that do long work and report as they go. Two are built in.

A module for `SIDESTREAM_JOBS` is any module with kinds in it:

    from handlers.jobs.kinds import Between, kind

    @kind
    def render(on_progress, pages: Annotated[int, Between(1, 500)] = 10) -> dict:
        "Render a report."
        for page in range(pages):
            on_progress("render", {"progress": 100 * page // pages, "message": f"page {page}"})
            ...
        return {"pages": pages}

An async function runs in the event loop, and reports from there; any other runs in a thread (`sse.threads`). Both get
`on_progress(step, details)`; what they return is the result, what they raise is the failure.
"""

import asyncio
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from sse.errors import Problem

OnProgress = Callable[[str, Mapping[str, Any]], None]

_TYPES: Mapping[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a text"),
    list: ((list,), "a list"),
    dict: ((dict,), "an object"),
}


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a number, both included: `Annotated[int, Between(1, 10)]`."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kind. expected: in words, for the list of kinds and for whoever got it wrong."""

    name: str
    default: Any  # inspect.Parameter.empty: it has to be given
    types: tuple[type, ...]
    bounds: Between | None
    choices: tuple[Any, ...]
    expected: str

    def check(self, value: Any) -> None:
        """Raise Problem 422 unless `value` will do."""
        odd_type = self.types and (not isinstance(value, self.types) or (isinstance(value, bool) and bool not in self.types))
        bounds = self.bounds
        odd = odd_type or (bounds is not None and not bounds.minimum <= value <= bounds.maximum)
        if odd or (self.choices and value not in self.choices):
            raise Problem(422, f"params.{self.name} must be {self.expected}.", parameter=f"params.{self.name}")


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    function: Callable[..., Any]
    description: str
    parameters: Mapping[str, Parameter]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def check(self, params: Mapping[str, Any]) -> None:
        """Raise Problem 422 that names the first parameter that is unknown, missing or wrong."""
        for name, value in params.items():
            if name not in self.parameters:
                raise Problem(422, f"params.{name} is no parameter of {self.name}.", parameter=f"params.{name}")
            self.parameters[name].check(value)
        for name, parameter in self.parameters.items():
            if name not in params and parameter.default is inspect.Parameter.empty:
                raise Problem(422, f"params.{name} is missing.", parameter=f"params.{name}")

    def describe(self) -> dict[str, Any]:
        parameters = {
            name: {"expected": parameter.expected}
            | ({} if parameter.default is inspect.Parameter.empty else {"default": parameter.default})
            for name, parameter in self.parameters.items()
        }
        return {"kind": self.name, "description": self.description, "params": parameters}


def kind(function: Callable[..., Any]) -> Kind:
    """Make a function a kind: its name, docstring and signature say the rest."""
    signature = inspect.signature(function, eval_str=True)
    parameters = {name: _parameter(p) for name, p in signature.parameters.items() if name != "on_progress"}
    return Kind(function.__name__, function, inspect.getdoc(function) or "", parameters)


def _parameter(parameter: inspect.Parameter) -> Parameter:
    annotation, bounds = parameter.annotation, None
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        bounds = next((extra for extra in extras if isinstance(extra, Between)), None)
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    types, expected = _TYPES.get(get_origin(annotation) or annotation, ((), "any JSON"))
    if choices:
        expected = "one of " + ", ".join(map(str, choices))
    if bounds is not None:
        expected += f" from {bounds.minimum} to {bounds.maximum}"
    return Parameter(parameter.name, parameter.default, types, bounds, choices, expected)


def load(modules: Iterable[str]) -> dict[str, Kind]:
    """The built-in kinds and those of these modules, by name. Raises ImportError; ValueError for a module that has none."""
    found = {builtin.name: builtin for builtin in (steps, checksum)}
    for module in modules:
        kinds = [value for value in vars(importlib.import_module(module)).values() if isinstance(value, Kind)]
        if not kinds:
            raise ValueError(f"{module}: no kinds of jobs in this module (see handlers.jobs.kinds.kind)")
        found.update({own.name: own for own in kinds})
    return found


@kind
async def steps(
    on_progress: OnProgress, count: Annotated[int, Between(1, 100_000)] = 100, interval: Annotated[float, Between(0, 60)] = 0.05
) -> dict[str, Any]:
    """A demonstration: counts from 0 to `count`, `interval` seconds a step."""
    for number in range(count + 1):
        if number:
            await asyncio.sleep(interval)
        on_progress("count", {"progress": 100 * number / count, "message": f"step {number} of {count}"})
    return {"steps": count + 1}


@kind
def checksum(
    on_progress: OnProgress,
    mebibytes: Annotated[int, Between(1, 1 << 20)] = 256,
    algorithm: Literal["sha256", "sha512", "blake2b"] = "sha256",
) -> dict[str, Any]:
    """Really blocks a thread: digests that much data, and reports as it goes."""
    digest, block = hashlib.new(algorithm), bytes(1 << 20)
    for number in range(mebibytes):
        digest.update(block)
        on_progress("digest", {"progress": 100 * (number + 1) / mebibytes, "mebibytes": number + 1})
    return {"algorithm": algorithm, "mebibytes": mebibytes, "hexdigest": digest.hexdigest()}
