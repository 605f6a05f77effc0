"""What config keys may hold: named types, and sections of keys.

A section is a class of pydantic's. Types are strict (``"1"`` is no number, ``true`` no 1), but a whole number serves
where a number is wanted, and a list in YAML becomes a tuple. A section that is null holds no keys.
"""
import dataclasses
import enum
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Because:
    """Why a key is limited as it is, for the error message."""

    reason: str


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The keys of ``table`` as the choices of a text."""

    table: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.table))

    def __hash__(self) -> int:
        return id(self.table)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
FractionBelowOne = Annotated[float, Ge(0), Lt(1)]
FractionAboveZero = Annotated[float, Gt(0), Le(1)]
ProperFraction = Annotated[float, Gt(0), Lt(1)]
PathLike = str | pathlib.Path
Axis = Literal["y", "z"]
Listed = Annotated[tuple[T, ...], pydantic.BeforeValidator(_as_tuple)]


class Absent(enum.Enum):
    """The default of keys that some tasks need and others do not have; it is never written to a file."""

    ABSENT = enum.auto()


ABSENT: Any = Absent.ABSENT


class Section(pydantic.BaseModel):
    """A section of a config: keys with their types and defaults."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False,
                                       protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        # a section is given as a dict; its values stay strict
        return cast(CoreSchema, {**handler(source), "strict": False})

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_keys(cls, given: Any) -> Any:
        return {} if given is None else given

    def keywords(self) -> dict[str, Any]:
        """Return key → value, defaults included, for the call of what the keys are declared by."""
        named = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        return {**{key: value for key, value in named.items() if value is not ABSENT}, **(self.model_extra or {})}

    def resolved(self, path: str = "") -> dict[str, Any]:
        """Return all keys as plain dicts and lists, every default filled in; ``path`` is where the section stands."""
        return {key: _plain(value, f"{path}.{key}") for key, value in self.keywords().items()}


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, Section):
        return value.resolved(path)
    if isinstance(value, dict):
        return {key: _plain(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, path) for inner in value]
    return str(value) if isinstance(value, pathlib.Path) else value
