"""What a value may be: on a command line and in a file by the same rule, with the same message."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class InputError(ValueError):
    """Something that the user can fix, in one line."""


@dataclass(frozen=True)
class Rule:
    """What a value may be, on a command line and in a config.json, and the one message that says so.

    Attributes:
      read: makes the value from a command line's word; `ValueError` if it is none.
      holds: whether a value is right.
      says: the message, after the value.
      shown: the option's placeholder in the usage.
    """

    read: Callable[[str], Any]
    holds: Callable[[Any], bool]
    says: str
    shown: str = "N"

    def __call__(self, word: str) -> Any:
        """An argparse type."""
        try:
            value = self.read(word)
        except ValueError:
            value = None
        return self.check(value, repr(word))

    def check(self, value: Any, shown: str | None = None) -> Any:
        """Returns a value that is right; else `argparse.ArgumentTypeError` tells the rule."""
        if not self.holds(value):
            raise argparse.ArgumentTypeError(self.says.format(value=shown or str(value)[:40]))
        return value


def _is_whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def whole(least: int) -> Rule:
    """A whole number of at least `least`."""
    return Rule(int, lambda value: _is_whole(value, least), f"{{value}} must be a whole number of at least {least}")


def number(holds: Callable[[float], bool], says: str) -> Rule:
    """A finite number with a property."""
    right = lambda value: isinstance(value, float) and math.isfinite(value) and holds(value)  # noqa: E731
    return Rule(float, right, f"{{value}} must be a number {says}", "X")


def one_of(names, read: type = str, shown: str | None = None) -> Rule:
    """One of some names or numbers."""
    names = tuple(names)
    listed = ", ".join(map(str, names))
    right = lambda value: isinstance(value, read) and not isinstance(value, bool) and value in names  # noqa: E731
    return Rule(
        read, right, f"invalid choice: {{value}} (choose from {listed})", shown or f"{{{','.join(map(str, names))}}}"
    )


def some_of(names, read: type = str) -> Rule:
    """Some of some names or numbers, separated by commas, none twice."""
    names, each = tuple(names), one_of(names, read)

    def right(values):
        return bool(values) and all(map(each.holds, values)) and len(set(values)) == len(values)

    says = f"{{value}} must be some of {', '.join(map(str, names))}, none twice"
    return Rule(lambda word: tuple(read(part.strip()) for part in word.split(",")), right, says, "A,B,...")


def _are_seeds(value):
    fine = isinstance(value, (list, tuple)) and bool(value) and all(_is_whole(v, 0) and v < 2**32 for v in value)
    return fine and len(set(value)) == len(value)


SEED_LIST = Rule(
    lambda word: tuple(int(part) for part in word.split(",")),
    _are_seeds, "{value} must be whole numbers of at least 0 and below 2^32, none twice", "A,B,...",
)  # fmt: skip


def share(word: str) -> tuple[int, int]:
    """An argparse type: "I/N" with 1 <= I <= N -> (index from 0, count)."""
    try:
        index, count = map(int, word.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"{word!r} must be I/N with 1 <= I <= N")
    return index - 1, count
