"""Validation of whole records against their stream's JSON schema.

Two habits of taps are allowed for. A rule `multipleOf` of many digits is exact, where the SDK's
validator runs out of precision. And the boolean `exclusiveMinimum` and `exclusiveMaximum` of JSON
Schema's draft 4 mean what they mean there.
"""

from __future__ import annotations

import typing as t
from decimal import Decimal

import jsonschema
from singer_sdk.typing import DEFAULT_JSONSCHEMA_VALIDATOR

from target_moengage_cohort.core.column_names import quote_name
from target_moengage_cohort.core.errors import InputError, RowError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LIMITS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


class RecordSchema:
    """The JSON schema of one of the streams that a tap's stream becomes.

    Raise an `InputError` if the schema is not valid; it names the tap's stream, column and rule.
    """

    def __init__(self, stream: str, schema: Mapping[str, t.Any]) -> None:
        self._stream = stream
        try:
            modern = _modern(schema)
            _Validator.check_schema(modern)
        except jsonschema.SchemaError as error:
            raise _unusable(stream, _place(error.absolute_path), error.message) from None
        except RecursionError:
            raise _unusable(stream, "", "it is nested too deeply") from None
        # With the SDK's checks: types and rules, but no formats.
        self._validator = _Validator(modern, format_checker=jsonschema.FormatChecker(formats=()))

    def check(self, record: Mapping[str, t.Any]) -> None:
        """Raise a `RowError` if a record breaks a rule, and an `InputError` if a rule is broken."""
        try:
            error = next(self._validator.iter_errors(record), None)
        except Exception as failure:  # noqa: BLE001 - such as an unresolvable reference
            why = type(failure).__name__
            raise _unusable(self._stream, self._culprit(record), why) from None
        if error is not None:
            # Only the column: deeper in the path, keys may be data.
            column = f"column {error.absolute_path[0]!r}" if error.absolute_path else "the record"
            reason = f"{column} violates the rule {error.validator!r} of the stream's schema"
            raise RowError("schema_violated", reason)

    def _culprit(self, record: Mapping[str, t.Any]) -> str:
        """Return the column and rule that cannot be checked."""
        for column, schema in self._validator.schema["properties"].items():
            for rule in schema if isinstance(schema, dict) and column in record else ():
                part = self._validator.evolve(schema={rule: schema[rule]})
                try:
                    any(part.iter_errors(record[column]))
                except Exception:  # noqa: BLE001 - that is the one
                    return _place(["properties", column, rule])
        return ""


def _place(path: Iterable[t.Any]) -> str:
    """Return the column and the rule at a path in a schema, as far as it names them."""
    place, path = "", list(path)
    if path[:1] == ["properties"] and path[1:]:
        place = f" for the column {quote_name(str(path[1]))}"
        path = path[2:]
    return f"{place}, rule {str(path[-1])!r}" if path else place


def _unusable(stream: str, place: str, why: str) -> InputError:
    return InputError(
        "invalid_schema",
        f"the SCHEMA of the stream {stream!r} is not a valid JSON schema{place}: {why}. Try a "
        "newer version of the tap, fix its catalog, or set validate_records: false",
    )


def _modern(schema: t.Any) -> t.Any:
    """Return a schema of draft 4 in terms of later drafts, and any other one as it is."""
    if isinstance(schema, list):
        return [*map(_modern, schema)]
    if not isinstance(schema, dict):
        return schema
    modern = {name: _modern(value) for name, value in schema.items()}
    for limit, exclusive in _LIMITS.items():
        if isinstance(modern.get(exclusive), bool):
            is_exclusive = modern.pop(exclusive)
            if is_exclusive and limit in modern:
                modern[exclusive] = modern.pop(limit)
    return modern


def _check_multiple(
    validator: t.Any, divisor: t.Any, value: t.Any, _schema: object
) -> Iterator[jsonschema.ValidationError]:
    if validator.is_type(value, "number") and not _is_multiple(_exact(value), _exact(divisor)):
        yield jsonschema.ValidationError("not a multiple")


def _exact(number: t.Any) -> Decimal:
    return Decimal(repr(number) if isinstance(number, float) else number)


def _is_multiple(number: Decimal, divisor: Decimal) -> bool:
    """Return whether a number is a multiple, without writing out any exponent."""
    if not number.is_finite():
        return False
    (digits, exponent), (unit, unit_exponent) = map(_whole, (number, divisor))
    shift = exponent - unit_exponent
    if shift >= 0:
        return digits * pow(10, shift, unit) % unit == 0
    while digits and shift < 0 and digits % 10 == 0:
        digits, shift = digits // 10, shift + 1
    return not digits or (shift == 0 and digits % unit == 0)


def _whole(number: Decimal) -> tuple[int, int]:
    _, digits, exponent = number.as_tuple()
    return int("".join(map(str, digits))), t.cast("int", exponent)


_extend: t.Any = jsonschema.validators.extend
_Validator = _extend(DEFAULT_JSONSCHEMA_VALIDATOR, {"multipleOf": _check_multiple})
