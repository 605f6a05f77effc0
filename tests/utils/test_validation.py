"""Config values against their declared types: what passes, and the line that says what is wrong."""
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Le, Len, MinLen, MultipleOf
from easydict import EasyDict

from utils.errors import ConfigError
from utils.key_types import (
    Because,
    Fraction,
    FractionAboveZero,
    FractionBelowOne,
    Listed,
    NonNegativeInt,
    OneOf,
    PathLike,
    PositiveFloat,
    PositiveInt,
    ProperFraction,
    Section,
)
from utils.validation import check, describe


class Inner(Section):
    width: PositiveInt
    rate: Fraction = 0.5


class Outer(Section):
    inner: Inner
    kind: Annotated[str, OneOf({"rand": 1, "block": 2})] = "rand"
    scales: Listed[PositiveInt] = (1, 2)
    radius: PositiveFloat | Listed[PositiveFloat] = 1.0
    extra: dict[str, Any] | None = None
    on: bool = True


@pytest.mark.parametrize(("annotation", "text"), [
    (int, "a whole number"), (PositiveInt, "a whole number of at least 1"), (Fraction, "a number from 0 to 1"),
    (FractionBelowOne, "a number of at least 0 and below 1"), (FractionAboveZero, "a number above 0 and at most 1"),
    (ProperFraction, "a number between 0 and 1"), (Annotated[float, Le(3)], "a number of at most 3"),
    (Annotated[float, Ge(0), Le(0)], "0"), (Annotated[PositiveInt, MultipleOf(4)],
                                            "a whole number of at least 1, a multiple of 4"),
    (bool, "true or false"), (str | None, "a text, or null"), (PathLike, "a path"), (Literal[10, 40], "one of 10, 40"),
    (Literal["AdamW"], "AdamW"), (Listed[PositiveInt], "a list of whole numbers of at least 1"),
    (Annotated[Listed[str], Len(2, 2)], "a list of 2 texts"), (Annotated[Listed[float], MinLen(1)],
                                                            "a non-empty list of numbers"),
    (Annotated[NonNegativeInt, Because("it counts")], "a whole number of at least 0: it counts"),
    (Inner, "a section of width, rate"), (Any, "a value")])
def test_types_in_words(annotation, text):
    assert describe(annotation) == text


def test_what_passes_and_what_becomes_of_it():
    section = check(Outer, EasyDict(inner={"width": 3, "rate": 1}, scales=[4], radius=[1, 2], extra={"a": [1]}))
    assert section.inner == Inner(width=3, rate=1.0)
    assert isinstance(section.inner.rate, float)
    assert (section.scales, section.radius, section.extra) == ((4,), (1.0, 2.0), {"a": [1]})
    assert section.resolved() == {"inner": {"width": 3, "rate": 1.0}, "kind": "rand", "scales": [4],
                                  "radius": [1.0, 2.0], "extra": {"a": [1]}, "on": True}
    assert check(Outer, {"inner": {"width": 1}, "scales": (7, 8)}).scales == (7, 8)


@pytest.mark.parametrize(("given", "message"), [
    ({"inner": {"width": "3"}}, "x.inner.width is '3'; it must be a whole number of at least 1"),
    ({"inner": {"width": True}}, "x.inner.width is True; it must be a whole number of at least 1"),
    ({"inner": {"width": 3.0}}, "x.inner.width is 3.0; it must be a whole number of at least 1"),
    ({"inner": {"width": 1, "rate": "0.5"}}, "x.inner.rate is '0.5'; it must be a number from 0 to 1"),
    ({"inner": {"width": 1, "rate": float("nan")}}, "x.inner.rate is nan; it must be a number from 0 to 1"),
    ({"inner": {"width": 1}, "on": 1}, "x.on is 1; it must be true or false"),
    ({"inner": {"width": 1}, "kind": "blok"}, "x.kind 'blok' is not one of rand, block (did you mean 'block'?)"),
    ({"inner": {"width": 1}, "kind": 3}, "x.kind is 3; it must be one of rand, block"),
    ({"inner": {"width": 1}, "scales": [1, 0]}, "x.scales is [1, 0]; it must be a list of whole numbers of at least 1"),
    ({"inner": {"width": 1}, "scales": 4},
     "x.scales is 4; it must be a list of whole numbers of at least 1, as in [4]"),
    ({"inner": {"width": 1}, "scales": {1, 2}}, "x.scales is {1, 2}; it must be a list of whole numbers of at least 1"),
    ({"inner": {"width": 1}, "radius": [0]},
     "x.radius is [0]; it must be a number above 0, or a list of numbers above 0"),
    ({"inner": 3}, "x.inner is 3; it must be a section of width, rate"),
    ({"inner": None}, "key 'x.inner.width' is missing"), ({}, "key 'x.inner.width' is missing"),
    ({"inner": {"width": 0, "wide": 1}}, "unknown key 'x.inner.wide' (did you mean 'width'?)"),
    ({"iner": {}, "on": 3}, "unknown key 'x.iner' (did you mean 'inner'?)"),
    ({"inner": {"width": "y" * 300}}, f"x.inner.width is '{'y' * 199} …; it must be a whole number of at least 1"),
])
def test_the_line_that_says_what_is_wrong(given, message):
    with pytest.raises(ConfigError) as error:
        check(Outer, given, "x")
    assert str(error.value) == message
