"""What a value may be: on a command line and in a file by the same rule, with the same message."""

import argparse
import difflib
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something that the user can fix, in one line."""


@dataclass(frozen=True)
class Rule:
    """What a value may be, on a command line and in a config.json, and the one message that says so.

    Attributes:
      read: makes the value from a command line's word; `ValueError` if it cannot.
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
        return self.check(value, repr(word if len(word) <= 40 else f"{word[:40]}..."))

    def check(self, value: Any, shown: str | None = None) -> Any:
        """Returns a value that is right; else `argparse.ArgumentTypeError` tells the rule."""
        if not self.holds(value):
            raise argparse.ArgumentTypeError(self.says.format(value=shown or str(value)[:40]))
        return value


def _reader(kind):
    """Reads words as `kind` does, but that Python's `1_0` is no number: it may be meant for `1,0`."""

    def read(word):
        if kind is not str and "_" in word:
            raise ValueError(word)
        return kind(word)

    return read


MOST = 10**6
"""The largest count: far more than any run can reach."""


def _is_whole(value, least, most=MOST):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def whole(least: int, most: int = MOST) -> Rule:
    """A whole number of at least `least` and at most `most`."""
    says = f"{{value}} must be a whole number of at least {least} and at most {most}"
    return Rule(_reader(int), lambda value: _is_whole(value, least, most), says)


def number(holds: Callable[[float], bool], says: str) -> Rule:
    """A number with a property, of a size that float32 keeps."""

    def right(value):
        fits = isinstance(value, float) and math.isfinite(value) and (value == 0 or 1e-30 <= abs(value) <= MOST)
        return fits and holds(value)

    return Rule(_reader(float), right, f"{{value}} must be a number {says}", "X")


AT_LEAST_0 = number(lambda x: x >= 0, "of at least 0 (at most 1e6)")


@dataclass(frozen=True)
class _Choice(Rule):
    names: tuple = ()

    def check(self, value: Any, shown: str | None = None) -> Any:
        """As `Rule.check`; a name that is nearly right is suggested."""
        try:
            return super().check(value, shown)
        except argparse.ArgumentTypeError as error:
            words = [str(word).strip("' ") for word in (value if isinstance(value, tuple) else [value or shown])]
            close = [nearest(word, self.names) for word in words if word not in map(str, self.names)]
            raise argparse.ArgumentTypeError(f"{error}{''.join(close[:1])}") from error


def nearest(word: str, names) -> str:
    """The end of a message: which of some names was meant, if one is near."""
    plain = {str(name).lower().replace("-", "_"): str(name) for name in names}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), plain, 1)
    return f"; did you mean {plain[found[0]]}?" if found else ""


def one_of(names, read: type = str, shown: str | None = None) -> Rule:
    """One of some names or numbers."""
    names = tuple(names)
    listed = ", ".join(map(str, names))
    right = lambda value: isinstance(value, read) and not isinstance(value, bool) and value in names  # noqa: E731
    shown = shown or f"{{{','.join(map(str, names))}}}"
    return _Choice(_reader(read), right, f"invalid choice: {{value}} (choose from {listed})", shown, names)


def some_of(names, read: type = str) -> Rule:
    """Some of some names or numbers, separated by commas, none twice."""
    names, each = tuple(names), one_of(names, read)

    def right(values):
        return bool(values) and all(map(each.holds, values)) and len(set(values)) == len(values)

    says = f"{{value}} must be some of {', '.join(map(str, names))}, none twice"
    part_of = _reader(read)
    return _Choice(lambda word: tuple(part_of(part.strip()) for part in word.split(",")), right, says, "A,B,...", names)


def _are_seeds(value):
    fine = isinstance(value, (list, tuple)) and bool(value) and all(_is_whole(v, 0, 2**32 - 1) for v in value)
    return fine and len(set(value)) == len(value)


SEED_LIST = Rule(
    lambda word: tuple(map(_reader(int), word.split(","))),
    _are_seeds, "{value} must be whole numbers of at least 0 and below 2^32, none twice", "A,B,...",
)  # fmt: skip


def share(word: str) -> tuple[int, int]:
    """An argparse type: "I/N" with 1 <= I <= N -> (index from 0, count)."""
    try:
        index, count = map(_reader(int), word.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"{word!r} must be I/N with 1 <= I <= N")
    return index - 1, count


def path(word: str | os.PathLike) -> Path:
    """An argparse type: a path, "~" and "~user" being home folders wherever they stand on the command line."""
    word = os.fspath(word)
    found = os.path.expanduser(word)
    if not word or "\0" in word:
        raise argparse.ArgumentTypeError(f"{word!r} is not a path")
    if found.startswith("~"):
        raise argparse.ArgumentTypeError(f"{word!r}: there is no such home folder; ./~NAME is a folder called ~NAME")
    try:
        # The libraries that write checkpoints and data decode every name as UTF-8.
        fits = os.fsencode(found) == found.encode()
    except UnicodeError:
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{word!r} must be a name in UTF-8, in a locale of UTF-8 (LC_ALL=C.UTF-8)")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(found).parts):
        raise argparse.ArgumentTypeError(f"{word[:40]!r}...: a name in it cannot be longer than {LONGEST_NAME} bytes")
    return Path(found)


LONGEST_NAME = 255
"""Bytes of a file's or folder's name; that of every common file system."""
_OF_RUN = ("--resume", "--overwrite", "--dataset", "--data-dir", "--seeds", "--batch-size")


class Parser(argparse.ArgumentParser):
    """A command line whose error is one line, about options that it has.

    `of_run`: options that messages name for one run's sake, though this command has them too, for all of its runs.
    """

    def __init__(self, *, of_run: tuple[str, ...] = (), **options):
        super().__init__(allow_abbrev=False, **options)
        self._of_run = of_run

    def error(self, message: str):
        """Ends the program with exit code 2."""
        super().error(self.line(message))

    def line(self, message: str) -> str:
        """A message in one line; an option that is meant of `experiments.run` is said to be its."""
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            message += nearest(unknown[1], self._option_string_actions)
        own = set(self._option_string_actions) - set(() if message.startswith("argument ") else self._of_run)
        for option in _OF_RUN:
            if option not in own and not unknown:
                message = re.sub(rf"(?<![\w-]){option}(?![\w-])", f"experiments.run {option}", message)
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
