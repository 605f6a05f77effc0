"""Checking a section of a config against its schema: one line says which key is wrong, and what it may be."""
import re
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from annotated_types import Len, MaxLen, MinLen

from utils.errors import ConfigError, nearest
from utils.key_types import Because, OneOf, PathLike, Section

Checked = TypeVar("Checked", bound=Section)
UNKNOWN = ("extra_forbidden", "invalid_key")
LONGEST = 200  # of a value in a message
LIMITS = ("ge", "gt", "le", "lt", "multiple_of")
NOUNS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), bool: ("true or false", "true or false"),
    str: ("a text", "texts"), dict: ("a section of keys", "sections of keys"), type(None): ("null", "null")}


def check(schema: type[Checked], given: Any, path: str = "") -> Checked:
    """Return the section ``given``, which stands at ``path`` of a config, as a ``schema``.

    Raises ConfigError for an unknown key, a missing one, or a value of another type or range, in this order.
    """
    try:
        return schema.model_validate(given)
    except pydantic.ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        first = min(errors, key=lambda entry: 0 if entry["type"] in UNKNOWN else 1 if entry["type"] == "missing" else 2)
        raise ConfigError(_explain(schema, given, first["type"], list(first["loc"]), path)) from None


def _explain(schema: type[Section], given: Any, kind: str, location: list[Any], path: str) -> str:
    """Return one line about what pydantic calls an error of a ``kind`` at a ``location``."""
    fields, field = fields_of(schema), None
    while location and location[0] in fields:  # what follows the last key is of lists and unions
        field, key = fields[location[0]], location.pop(0)
        path = _join(path, key)
        given = given.get(key) if isinstance(given, dict) else None
        section = section_of(field)
        fields = fields_of(section) if section else {}
    if kind == "missing" and field is not None:
        return f"key '{_first_required(field, path)}' is missing"
    if kind in UNKNOWN and location and fields:
        return f"unknown key '{_join(path, location[0])}'{nearest(location[0], fields)}"
    return _wrong_value(schema if field is None else annotation_of(field), given, path)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _wrong_value(annotation: Any, given: Any, path: str) -> str:
    """Return one line about a value that is not of a type."""
    choices = choices_of(annotation)
    if len(choices) > 1 and isinstance(given, str):
        match = nearest(given, choices)
        return f"{path} '{given}' is not one of {', '.join(choices)}{match if match.startswith(' (did') else ''}"
    value, wanted = repr(given), describe(annotation)
    value = value if len(value) <= LONGEST else f"{value[:LONGEST]} …"
    single = isinstance(given, (str, int, float)) and re.match(r"a (non-empty )?list of (?!\d)", wanted)
    return f"{path} is {value}; it must be {wanted}{f', as in [{given}]' if single else ''}"


def fields_of(schema: type[Section]) -> dict[str, pydantic.fields.FieldInfo]:
    """Return key → field of a schema."""
    return {field.alias or name: field for name, field in schema.model_fields.items()}


def annotation_of(field: pydantic.fields.FieldInfo) -> Any:
    """Return a field's type as it was declared."""
    return field.rebuild_annotation()


def section_of(field: pydantic.fields.FieldInfo) -> type[Section] | None:
    """Return the schema of a field that is a section itself, else None."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def first_missing(schema: type[Section], given: dict[str, Any], path: str) -> str | None:
    """Return the path of the first key that must be given if the key at ``path`` is absent, None if it is there."""
    section: Any = given
    for key in path.split("."):
        field = fields_of(schema)[key]
        if key not in section:
            return _first_required(field, path)
        section, schema = section[key], section_of(field) or schema
    return None


def _first_required(field: pydantic.fields.FieldInfo, path: str) -> str:
    """Return the path of the first key that must be given for ``field``, which stands at ``path``."""
    section = section_of(field)
    for key, inner in (fields_of(section) if section else {}).items():
        if inner.is_required():
            return _first_required(inner, f"{path}.{key}")
    return path


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """Return the choices of a type that consists of some, none for others."""
    return _choices(*_parts(annotation))


def _choices(annotation: Any, metadata: list[Any]) -> tuple[Any, ...]:
    tables = [tuple(entry.table) for entry in metadata if isinstance(entry, OneOf)]
    if tables:
        return tables[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return choices_of(kinds[0]) if len(kinds) == 1 else ()
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def describe(annotation: Any, plural: bool = False) -> str:
    """Return in words what a key of a type may hold, as in ``a whole number of at least 1``."""
    annotation, metadata = _parts(annotation)
    reasons = [f": {entry.reason}" for entry in metadata if isinstance(entry, Because)]
    return _kind(annotation, metadata, plural) + "".join(reasons)


def _kind(annotation: Any, metadata: list[Any], plural: bool) -> str:
    choices = _choices(annotation, metadata)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if choices and origin not in (typing.Union, types.UnionType):
        return f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else str(choices[0])
    if annotation == PathLike:
        return "paths" if plural else "a path"
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(describe(argument, plural) for argument in arguments)
    if origin in (tuple, list):
        return f"a {_length(metadata)}{describe(arguments[0], plural=True)}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"a section of {', '.join(fields_of(annotation))}"
    limits = {name: getattr(entry, name) for entry in metadata for name in LIMITS if hasattr(entry, name)}
    if "ge" in limits and limits["ge"] == limits.get("le"):
        return f"{limits['ge']:g}"
    return NOUNS.get(origin or annotation, ("a value", "values"))[plural] + _range(limits, plural)


def _parts(annotation: Any) -> tuple[Any, list[Any]]:
    """Return a type without its metadata, and these."""
    if typing.get_origin(annotation) is Annotated:
        annotation, *metadata = typing.get_args(annotation)
        return annotation, metadata
    return annotation, []


def _length(metadata: Iterable[Any]) -> str:
    """Return the beginning of a description of a list, as in ``list of 2``."""
    least = next((entry.min_length for entry in metadata if isinstance(entry, (Len, MinLen))), 0)
    most = next((entry.max_length for entry in metadata if isinstance(entry, (Len, MaxLen))), None)
    if least == most:
        return f"list of {least} "
    return "non-empty list of " if least else "list of "


def _range(limits: dict[str, Any], plural: bool) -> str:
    """Return the limits of a number in words."""
    noun = "multiples" if plural else "a multiple"
    multiple = f", {noun} of {limits['multiple_of']}" if "multiple_of" in limits else ""
    if {"ge", "le"} <= limits.keys():
        return f" from {limits['ge']:g} to {limits['le']:g}{multiple}"
    if {"gt", "lt"} <= limits.keys():
        return f" between {limits['gt']:g} and {limits['lt']:g}{multiple}"
    words = {"ge": " of at least", "gt": " above", "le": " and at most" if "gt" in limits else " of at most",
             "lt": " and below" if "ge" in limits else " below"}
    return "".join(f"{word} {limits[name]:g}" for name, word in words.items() if name in limits) + multiple
