"""Functions that are offered by name: to a model as tools, to clients as kinds of jobs.

In:  a Python function. Out: its name, its docstring, and a JSON schema made from its signature. Arguments are checked against
the schema before the function is called. `SIDESTREAM_TOOLS` and `SIDESTREAM_JOBS` name modules with such functions:

    from sidecar.functions import Between, function

    @function
    def render(on_progress, pages: Annotated[int, Between(1, 500)] = 10, paper: Literal["a4", "a5"] = "a4") -> dict:
        "Render a report."
        for page in range(pages):
            on_progress("render", {"progress": 100 * page // pages, "message": f"page {page}"})
            ...
        return {"pages": pages}

    @function(timeout=5)
    async def lookup(word: str, limit: int = 3) -> list[str]:
        "Find a word in the dictionary."
        return await dictionary.find(word, limit)

An async function runs in the event loop, any other in a thread (`sse.threads`). A function with a parameter `on_progress` can
report its progress with it. What a function returns is its result; what it raises is its failure.

    annotation                           keywords of JSON Schema (2020-12)     in words
    int float bool str list dict None    type                                  an integer, a number, true or false, …
    list[X]                              items                                 a list, each item …
    Annotated[int, Between(1, 500)]      minimum, maximum                      an integer from 1 to 500
    Literal["a4", "a5"]                  enum                                  one of a4, a5
    X | Y                                anyOf                                 … or …
    any other, or none                   none                                  any JSON

Limit: a schema may also be given. Only the keywords of this table are checked in it, and not the members of its objects.
"""

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from traceback import walk_tb
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, overload

from sse.errors import Problem, describe
from sse.wire.payload import dumps

Schema = Mapping[str, Any]

_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "integer": ((int,), "an integer"),
    "number": ((float, int), "a number"),
    "boolean": ((bool,), "true or false"),
    "string": ((str,), "a text"),
    "array": ((list,), "a list"),
    "object": ((dict,), "an object"),
    "null": ((NoneType,), "null"),
}
_NUMBERS: Final = (int, float)
_NAMES: Final = {types[0]: name for name, (types, _) in _TYPES.items()}


class Between(NamedTuple):
    """Bounds of a number, both included: `Annotated[int, Between(1, 10)]`."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Function:
    """parameters: a JSON schema of type object. timeout: seconds that a call may take; None: the caller's default."""

    call: Callable[..., Any]
    name: str
    description: str
    parameters: Schema
    timeout: float | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def check(self, arguments: Mapping[str, Any], place: str = "") -> None:
        """Raise Problem 422 for the first argument that is unknown, wrong or missing. place: is put before its name.

        The detail is a sentence that says what is expected.
        """
        properties, open_ = self.parameters.get("properties", {}), self.parameters.get("additionalProperties", False)
        for name in (*arguments, *self.parameters.get("required", ())):
            parameter, schema = place + name[:100], properties.get(name, {})
            if name not in properties and open_ is False:
                wrong = f"is no parameter of {self.name}, which has: {', '.join(properties) or 'none'}"
            elif name not in arguments:
                wrong = f"is missing: it must be {expected(schema)}"
            elif not fits(schema, arguments[name]):
                wrong = f"must be {expected(schema)}"
            else:
                continue
            raise Problem(422, f"{parameter} {wrong}.", parameter=parameter)


@overload
def function(call: Callable[..., Any], /) -> Function: ...
@overload
def function(
    *, name: str | None = None, timeout: float | None = None, parameters: Schema | None = None
) -> Callable[[Callable[..., Any]], Function]: ...
def function(
    call: Callable[..., Any] | None = None, /, *, name: Any = None, timeout: Any = None, parameters: Any = None
) -> Function | Callable[[Callable[..., Any]], Function]:
    """Offer a function: `@function`, or `@function(timeout=5)`.

    name: instead of the function's own. timeout: seconds that a call may take. parameters: a JSON schema, instead of the
    signature's.
    Raises TypeError for a generator.
    """

    def offer(call: Callable[..., Any]) -> Function:
        if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
            raise TypeError(f"{call.__name__} is a generator: a function returns its result, and reports with on_progress")
        description = inspect.getdoc(call) or ""
        return Function(call, name or call.__name__, description, parameters or _signature(call), timeout)

    return offer if call is None else offer(call)


def load(variable: str, modules: Iterable[str]) -> dict[str, Function]:
    """The functions of these modules by name; of two with the same name, the later. variable: the setting of the modules.

    Raises ValueError with one line that says which module can't be used and why.
    """
    found: dict[str, Function] = {}
    for module in modules:
        try:
            values = vars(importlib.import_module(module)).values()
        except BaseException as error:  # sys.exit() as well
            raise ValueError(f"{variable}: {module} can't be imported: {_one_line(error)}") from None
        functions = {value.name: value for value in values if type(value) is Function}
        if not functions:
            raise ValueError(f"{variable}: there are no functions in {module} (see sidecar.functions.function)")
        found |= functions
    return found


def _one_line(error: BaseException) -> str:
    """The error that an import raised, and the line that raised it if that is known."""
    # Without the first two frames, which are `load` and importlib.
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)][2:]
    place = [f" ({file}, line {line})" for file, line in places if not file.startswith("<frozen importlib")][-1:]
    # The text of a SyntaxError names its place itself.
    text = describe(error) + "".join([] if isinstance(error, SyntaxError) else place)
    return "".join(char if char.isprintable() else " " for char in text)


# -- from a signature to a schema, and from a schema to words


def _signature(call: Callable[..., Any]) -> Schema:
    """The parameters of a function, all but `on_progress`."""
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for name, parameter in inspect.signature(call, eval_str=True).parameters.items():
        described = _schema(parameter.annotation)
        if parameter.kind is parameter.VAR_KEYWORD:
            schema["additionalProperties"] = described
        elif name != "on_progress" and parameter.kind is not parameter.VAR_POSITIONAL:
            schema["properties"][name] = described
            if parameter.default is parameter.empty:
                schema["required"].append(name)
            else:
                described["default"] = json.loads(dumps(parameter.default))
    return schema


def _schema(annotation: Any) -> dict[str, Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [extra._asdict() for extra in arguments[1:] if isinstance(extra, Between)]
        return _schema(arguments[0]) | (bounds[0] if bounds else {})
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(argument) for argument in arguments]}
    if origin is Literal:
        names = {_NAMES.get(type(choice)) for choice in arguments}
        return ({"type": names.pop()} if len(names) == 1 else {}) | {"enum": list(arguments)}
    name = _NAMES.get(origin or annotation)
    schema: dict[str, Any] = {} if name is None else {"type": name}
    return schema | ({"items": _schema(arguments[0])} if name == "array" and arguments else {})


def _names(types: Any) -> list[str]:
    """The types that a schema names, without those that aren't in `_TYPES`."""
    return [name for name in ([types] if isinstance(types, str) else types) if name in _TYPES]


# Each looks at all values at once: items of lists are many, and a function call for each would hold up the event loop.
_KEYWORDS: Final[Mapping[str, Callable[[Any, list[Any]], bool]]] = {
    # Exactly the types that JSON is parsed to: for isinstance, True would be an int.
    "type": lambda types, values: (
        not (names := _names(types)) or {*map(type, values)} <= {t for n in names for t in _TYPES[n][0]}
    ),
    "anyOf": lambda schemas, values: all(_any_fits(schemas, alike) for alike in _by_type(values)),
    "enum": lambda choices, values: all(value in choices for value in values),
    "minimum": lambda bound, values: all(value >= bound for value in values if isinstance(value, _NUMBERS)),
    "maximum": lambda bound, values: all(value <= bound for value in values if isinstance(value, _NUMBERS)),
    "items": lambda schema, values: _all_fit(schema, [item for value in values if isinstance(value, list) for item in value]),
}


def fits(schema: Schema, value: Any) -> bool:
    """Whether a value is what a schema asks for."""
    return _all_fit(schema, [value])


def _all_fit(schema: Schema, values: list[Any]) -> bool:
    return all(_KEYWORDS[keyword](limit, values) for keyword, limit in schema.items() if keyword in _KEYWORDS)


def _any_fits(schemas: Iterable[Schema], values: list[Any]) -> bool:
    """Whether each value fits one of the schemas; most often one fits all."""
    return any(_all_fit(schema, values) for schema in schemas) or (
        len(values) > 1 and all(any(fits(schema, value) for schema in schemas) for value in values)
    )


def _by_type(values: list[Any]) -> Iterable[list[Any]]:
    """The values of each type; lists, by the types of their items too."""
    types: dict[Any, list[Any]] = {}
    for value in values:
        kind = frozenset(map(type, value)) if isinstance(value, list) else type(value)
        types.setdefault(kind, []).append(value)
    return types.values()


def expected(schema: Schema) -> str:
    """What a schema asks for, in words."""
    words = [_TYPES[name][1] for name in _names(schema.get("type", ()))] or map(expected, schema.get("anyOf", ()))
    text = "one of " + ", ".join(map(str, schema["enum"])) if "enum" in schema else " or ".join(words) or "any JSON"
    text += f" from {schema['minimum']}" if "minimum" in schema else ""
    text += f" to {schema['maximum']}" if "maximum" in schema else ""
    return text + (f", each item {expected(schema['items'])}" if "items" in schema else "")
