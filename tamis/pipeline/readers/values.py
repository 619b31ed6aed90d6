"""JSON values to the values of declared columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa

from tamis.pipeline.readers.records import excerpt

Convert = Callable[[Any], Any]


class MismatchError(Exception):
    """A value is not of the column's type."""


def json_text(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def describe(value: Any) -> str:
    """A JSON value and its type for a message: ``"abc" (a string)``."""
    kinds = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return f"{excerpt(orjson.dumps(value)[:400])[:60]} ({kinds[type(value)]})"


def converter(type_: pa.DataType, any_as_text: bool = False) -> Convert:
    """The function that turns a JSON value (not null) into one that Arrow takes for ``type_``, or
    raises MismatchError.

    ``any_as_text`` lets a string column take any value, as JSON.
    """
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return json_text if any_as_text else _string
    if pa.types.is_boolean(type_):
        return _boolean
    if pa.types.is_integer(type_):
        low, high = (
            (0, 2**type_.bit_width) if str(type_)[0] == "u" else _signed_range(type_.bit_width)
        )
        return lambda value: _integer(value, low, high)
    if pa.types.is_floating(type_):
        return _float
    if pa.types.is_nested(type_):
        return lambda value: value if conforms(value, type_) else _mismatch()
    return lambda value: _scalar(value, type_)


def conforms(value: Any, type_: pa.DataType) -> bool:
    """Whether a JSON value fits into ``type_`` without loss: no key of an object that the struct
    has not.
    """
    if value is None:
        return True
    if pa.types.is_struct(type_):
        fields = {field.name: field.type for field in type_}
        if not isinstance(value, dict) or not value.keys() <= fields.keys():
            return False
        return all(conforms(inner, fields[key]) for key, inner in value.items())
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return isinstance(value, list) and all(conforms(inner, type_.value_type) for inner in value)
    if pa.types.is_null(type_):
        return False
    try:
        converter(type_)(value)
    except MismatchError:
        return False
    return True


def _mismatch() -> Any:
    raise MismatchError


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise MismatchError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise MismatchError
    return value


def _integer(value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise MismatchError
    return value


def _float(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isinf(value):
        raise MismatchError
    return float(value)


def _signed_range(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)), 2 ** (bits - 1)


def _scalar(value: Any, type_: pa.DataType) -> pa.Scalar[Any]:
    """Dates and times from ISO 8601 strings or from numbers in the type's unit; whatever else Arrow
    can cast.
    """
    try:
        return pa.scalar(value).cast(type_)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise MismatchError from None
