"""Registries: an explicit tuple of classes, each with a `name`, built from specs such as `self:layers=12`."""

import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from forerun.errors import OptionError

Entry = TypeVar("Entry")

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


@dataclass(frozen=True)
class Option:
    """One option of an entry: a parameter of its constructor whose type can be written on a command line."""

    name: str
    type_name: str
    annotation: Any
    required: bool
    default: Any = None

    def describe(self) -> str:
        """`layers=INT` when it must be given, else `layers=INT (12)` with the default."""
        shown = f"{self.name}={self.type_name.upper()}"
        return shown if self.required else f"{shown} ({_format_value(self.default)})"


class Registry(Mapping[str, type[Entry]], Generic[Entry]):
    """The entries of one kind by name, in the order they were given.

    `kind` is the word that messages use, for example "drafter". Every entry is a class with a string `name`.
    """

    def __init__(self, kind: str, entries: tuple[type[Entry], ...]) -> None:
        self.kind = kind
        self._entries: dict[str, type[Entry]] = {}
        for entry in entries:
            name = entry.name  # type: ignore[attr-defined]
            assert name not in self._entries, f"two {kind} entries are named {name!r}"
            self._entries[name] = entry

    def __getitem__(self, name: str) -> type[Entry]:
        """The class called `name`; raises `KeyError` as mappings do. `find` gives a message for users."""
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> type[Entry]:
        """The class called `name`; raises `OptionError` listing the known names."""
        if name not in self._entries:
            raise OptionError(f"unknown {self.kind} {name!r}; known: {', '.join(self._entries)}")
        return self._entries[name]

    def create(self, spec: str, **context: Any) -> Entry:
        """Build the entry that `spec` (`NAME[:key=value,…]`) describes.

        Options are typed by the constructor's signature: int, float, bool, str, tuple of ints (`3+7+9`), or
        one of these `| None`. Values in `context` go to the parameters of the same name, where the class has
        them, and cannot be set by the spec. Raises `OptionError` for unknown names, unknown or repeated
        options and values that do not parse.
        """
        name, _, text = spec.partition(":")
        entry = self.find(name.strip())
        parameters = inspect.signature(entry).parameters
        given = {key: value for key, value in context.items() if key in parameters}
        options = {option.name: option for option in options_of(entry) if option.name not in given}
        where = f"{self.kind} {name.strip()!r}"
        values = _parse_options(where, text, options)
        missing = [name for name, option in options.items() if option.required and name not in values]
        if missing:
            raise OptionError(f"{where} needs {', '.join(missing)}; {_allowed(options)}")
        return entry(**given, **values)


def options_of(entry: type) -> tuple[Option, ...]:
    """The options of a class: those constructor parameters whose types can be written in a spec."""
    hints = get_type_hints(entry.__init__)  # type: ignore[misc]
    found = []
    for parameter in inspect.signature(entry).parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        type_name = _type_name(annotation)
        if type_name is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        found.append(Option(parameter.name, type_name, annotation, required, default))
    return tuple(found)


def _parse_options(where: str, text: str, options: dict[str, Option]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise OptionError(f"{where}: {item!r} is not key=value; {_allowed(options)}")
        if key not in options:
            raise OptionError(f"{where} has no option {key!r}; {_allowed(options)}")
        if key in values:
            raise OptionError(f"{where}: option {key!r} is given twice")
        values[key] = _parse_value(where, options[key], value)
    return values


def _parse_value(where: str, option: Option, text: str) -> Any:
    if text.lower() == "none" and type(None) in get_args(option.annotation):
        return None
    try:
        return _PARSERS[option.type_name](text)
    except ValueError as error:
        raise OptionError(f"{where}: {option.name}={text!r} is not {_MEANINGS[option.type_name]}") from error


def _parse_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _parse_ints(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")) if text else ()


_PARSERS: dict[str, Any] = {"int": int, "float": float, "bool": _parse_bool, "str": str, "ints": _parse_ints}
_MEANINGS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "ints": "a list of whole numbers such as 3+7+9",
}


def _type_name(annotation: Any) -> str | None:
    """The spec type of an annotation, None when it cannot be written in a spec."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        return _type_name(inner[0]) if len(inner) == 1 else None
    if annotation in (int, float, bool, str):
        return str(annotation.__name__)
    if get_origin(annotation) is tuple and set(get_args(annotation)) <= {int, Ellipsis}:
        return "ints"
    return None


def _allowed(options: dict[str, Option]) -> str:
    if not options:
        return "it has no options"
    return "options: " + ", ".join(option.describe() for option in options.values())


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(str(part) for part in value) or "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)
