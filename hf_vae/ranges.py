"""Ranges of numbers, declared in the annotation of a setting and checked by one function."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from typeguard import TypeCheckError, check_type


@dataclass(frozen=True)
class Range:
    """The range of a finite number. A bound that is None does not exist.

    Args:
        least: Lower bound, included.
        above: Lower bound, excluded.
        most: Upper bound, included.
        below: Upper bound, excluded.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        named = [f"{words} {bound}" for words, bound in bounds.items() if bound is not None]
        return " and ".join(named) or "of any size"

    def __call__(self, default: str) -> str:
        """The text that `--help` shows after the description of a flag."""
        return f"({self}; default: {default})"


def limited(
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    **options: Any,
) -> Any:
    """Annotates a setting with its `Range`, as in `Annotated[float, limited(least=0)]`. `--help` shows the range, and
    `refuse_out_of_range` enforces it. `options` are other options of `tyro.conf.arg`."""
    return tyro.conf.arg(help_behavior_hint=Range(least, above, most, below), **options)


def range_of(annotation: Any) -> Range | None:
    """The range in an annotation, or None if there is none."""
    hints = (getattr(extra, "help_behavior_hint", None) for extra in getattr(annotation, "__metadata__", ()))
    return next((hint for hint in hints if isinstance(hint, Range)), None)


def refuse_out_of_range(annotated: type | Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Refuses a number outside the range of its setting, and a value of another type than its setting.

    Args:
        annotated: The dataclass or function whose fields or arguments have the ranges.
        values: The values of all or some of them, by name.

    Raises:
        ValueError: If a value is refused. The message names the setting, the value and what is allowed.
    """
    for name, annotation in get_type_hints(annotated, include_extras=True).items():
        if name not in values or values[name] in _words(annotation):
            continue
        allowed, value = range_of(annotation), values[name]
        if allowed is None:
            _refuse_another_kind(name, value, annotation)
            continue
        kind, words = (Real, "a finite number") if float in _members(annotation) else (Integral, "a whole number")
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or value not in allowed:
            must = allowed if is_number and math.isfinite(value) else f"{words}, {allowed}"
            raise ValueError(f"{name}={value} is not possible; it must be {must}.")


def _refuse_another_kind(name: str, value: Any, annotation: Any) -> None:
    try:
        check_type(value, annotation)
    except TypeCheckError as error:
        words = ", ".join(str(word) for word in _words(annotation) if word is not None)
        kind = f"one of {words}" if words else inspect.formatannotation(_plain(annotation))
        raise ValueError(f"{name}={value} is not possible; it must be {kind}.") from error


def with_ranges(command: Callable[..., None]) -> Callable[..., None]:
    """Wraps a function so that it first refuses arguments outside their ranges."""

    @wraps(command)
    def checked(*arguments: Any, **named: Any) -> None:
        refuse_out_of_range(command, inspect.signature(command).bind(*arguments, **named).arguments)
        command(*arguments, **named)

    return checked


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that a value may have: the members of a union, or the one type."""
    annotation = _plain(annotation)
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _plain(annotation: Any) -> Any:
    return annotation.__origin__ if get_origin(annotation) is Annotated else annotation


def _words(annotation: Any) -> list[Any]:
    """The values that are allowed besides numbers: None, and words such as "auto"."""
    words: list[Any] = []
    for member in _members(annotation):
        words += get_args(member) if get_origin(member) is Literal else [None] if member is type(None) else []
    return words
