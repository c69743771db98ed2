"""Reads what runs left behind, and refuses what contradicts other fields or files of the run.

The one reader of results.json and angles.csv, for all programs; jax is not needed.
"""

import csv
import itertools
import re
from pathlib import Path

import numpy as np

from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs.results import OF_CONFIG, derived
from experiments.settings import DATASETS, FIELDS, SETTINGS, RunConfig

_ROUNDING = 1e-9  # between means that were summed in different orders
_LARGEST_LOSS = 3.5e38  # of float32
_LARGEST = 1e15  # of a count or a number of seconds
DENIALS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What a file of another form makes of reading it."""


def read(folder: Path) -> dict:
    """Returns the results.json of a finished run, with the fields that older versions did not write.

    Raises:
      InputError: not a run's results, a field that does not follow from the others, or files of different runs.
    """
    found = check_run(folder)
    if found is None:
        raise InputError(f"{folder} is not a finished run: it has no {folders.RESULTS}")
    return found


def check_run(folder: Path) -> dict | None:
    """Checks that what is in a run's folder belongs to one run; returns its results, or None if it has none.

    Raises:
      InputError: as for `read`.
    """
    results = _results(folder / folders.RESULTS)
    record = folders.best_record(folder)
    said = {folders.CONFIG: _json(folder / folders.CONFIG), f"{folders.BEST}/": (record or {}).get("config")}
    said |= {folders.RESULTS: results and {name: results[name] for name in OF_CONFIG}}
    said = {name: contents for name, contents in said.items() if isinstance(contents, dict)}
    for (first, here), (second, there) in itertools.combinations(said.items(), 2):
        differ = [name for name in FIELDS if name in here and name in there and here[name] != there[name]]
        if differ:
            name = differ[0]
            raise InputError(
                f"{folder} holds files of different runs: {name} is {here[name]!r:.60} in {first} and "
                f"{there[name]!r:.60} in {second}; put its own files back, or use another copy"
            )
    if not (results and record):
        return results
    own, digest = results.get("best_digest"), record.get("digest")
    if (own != digest) if own else (results["best_epoch"] != record.get("best_epoch")):
        raise InputError(
            f"{folder} holds files of different runs: {folders.BEST}/ is not what {folders.RESULTS} was made from; "
            "put its own files back, or use another copy"
        )
    return {**results, "best_digest": digest}


def read_angles(folder: Path, results: dict) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the angles and the accuracy `[seed, angle]` of a run's angles.csv; None if it has none.

    Raises:
      InputError: a file that is not one, or that was not made from the run with these results.
    """
    path = folder / folders.ANGLES
    return _measured(path, results, _table_of_angles, "--angles", lambda found: _fits(found[0], found[1], results))


def read_uniform(folder: Path, results: dict) -> dict[str, np.ndarray] | None:
    """Returns the accuracies `[seed, set of angles]` of each interpolation in a run's uniform.csv; None if it has none.

    Raises:
      InputError: as for `read_angles`.
    """
    return _measured(folder / folders.UNIFORM, results, _table_of_uniform, "--uniform")


def _measured(path, results, table, option, fits=lambda found: True):
    """What `table` makes of a file's rows and the run's seeds; the file must be of the run with these results."""
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = table(rows, results["seeds"])
    except (OSError, *DENIALS, csv.Error) as error:
        raise InputError(f"{path} is not a table of angles ({_shown(error)}): evaluate the run again") from error
    whose = {(row.get("best_digest"), row.get("dataset", results["dataset"])) for row in rows}
    if whose != {(results.get("best_digest"), results["dataset"])} or not fits(found):
        raise InputError(
            f"{path} was not made from this run on {results['dataset']}: evaluate it again with {option}, or remove it"
        )
    return found


def _table_of_angles(rows, seeds):
    found = {(int(row["seed"]), float(row["angle"])): float(row["accuracy"]) for row in rows}
    angles = np.unique([angle for _, angle in found])
    if not (len(angles) and len(found) == len(rows) and (np.abs(angles) <= 360).all()):
        raise ValueError("angles must be from -360 to 360, none twice")
    return angles, _accuracies(found, seeds, angles.tolist())


def _table_of_uniform(rows, seeds):
    found = {(int(row["seed"]), (row["interpolation"], int(row["angle_seed"]))): float(row["accuracy"]) for row in rows}
    sets = sorted({number for _, (_, number) in found})
    if not sets or len(found) != len(rows):
        raise ValueError("there must be a set of angles, none twice")
    names = sorted({name for _, (name, _) in found})
    accuracy = _accuracies(found, seeds, list(itertools.product(names, sets)))
    return dict(zip(names, np.split(accuracy, len(names), axis=1), strict=True))


def _accuracies(found, seeds, columns):
    """`[seed, column]` of {(seed, column): accuracy}."""
    if found.keys() != set(itertools.product(seeds, columns)):
        raise ValueError("every seed of the run, and no other, must have every angle")
    accuracy = np.array([[found[seed, column] for column in columns] for seed in seeds])
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError("accuracies must be from 0 to 1")
    return accuracy


def _fits(angles, accuracy, results):
    """Whether upright digits give the accuracy of a test on upright digits, for tables without a digest."""
    if "best_digest" in results or SETTINGS[results["setting"]].test_rotated or 0 not in angles:
        return True
    another_machine = 0.002
    return np.allclose(accuracy[:, angles == 0][:, 0], results["test_accuracy"], rtol=0, atol=another_machine)


def _json(path):
    try:
        return folders.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({_shown(error)}): use another copy, or train again") from error


def _results(path):
    contents = _json(path)
    try:
        return None if contents is None else _checked(contents)
    except DENIALS as error:
        raise InputError(
            f"{path} is not a run's results ({_shown(error)}): use another copy, or train again"
        ) from error


def _shown(error):
    text = " ".join(str(error).split())[:160]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _checked(contents):
    config = RunConfig.checked({"seed_map": "auto", **contents}).to_json()
    seeds, epochs, classes = len(config["seeds"]), config["epochs"], DATASETS[config["dataset"]].num_classes
    check_numbers(contents, "train_loss", (seeds, epochs), 0, _LARGEST_LOSS, gaps=True)
    check_numbers(contents, "validation_curve", (seeds, epochs), 0, 1)
    check_numbers(contents, "confusion", (seeds, classes, classes), 0, _LARGEST, whole=True)
    check_numbers(contents, "num_parameters", (), 1, _LARGEST, whole=True)
    for name in ("train_images_per_second", "compile_seconds", "wall_seconds"):
        check_numbers(contents, name, (), 0, _LARGEST)
    _check_counts(np.array(contents["confusion"]), config)
    follows = derived(config["seeds"], np.array(contents["confusion"]), contents["train_loss"],
                      contents["validation_curve"])  # fmt: skip
    wrong = [name for name, value in follows.items() if not _is_same(contents[name], value)]
    if wrong:
        raise ValueError(f"{wrong[0]} does not follow from the other fields")
    versions = contents["versions"]
    texts = [versions[name] for name in ("python", "jax", "flax", "optax")]
    texts += [contents["command"], contents["device"], contents.get("commit", "")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("command, device, versions and commit must be texts")
    if not re.fullmatch("[0-9a-f]{64}", contents.get("best_digest", "0" * 64)):
        raise ValueError("best_digest must be 64 hexadecimal digits")
    return {**contents, **{name: config[name] for name in OF_CONFIG}}


def check_numbers(contents, name, shape, least, most, *, gaps=False, whole=False):
    """Checks nested lists of numbers from `least` to `most`; a gap is null.

    Raises:
      ValueError: a list of another shape, or a number out of range.
    """

    def right(value, shape):
        if shape:
            return isinstance(value, list) and len(value) == shape[0] and all(right(one, shape[1:]) for one in value)
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        return (gaps and value is None) or (is_number and least <= value <= most)

    if not right(contents[name], shape):
        what = f"numbers [{', '.join(map(str, shape))}]" if shape else "a number"
        raise ValueError(f"{name} must be {what} from {least:g} to {most:g}")


def _check_counts(confusion, config):
    """All seeds are tested on the same images, in a known data set on those of its setting."""
    in_class = confusion.sum(2)
    if not in_class.sum(1).all() or (in_class != in_class[0]).any():
        raise ValueError("confusion must count the same images for each seed")
    sizes = {n: DATASETS[config["dataset"]].num_images("test", n) for n in SETTINGS}
    total = int(in_class[0].sum())
    if total in sizes.values() and total != sizes[config["setting"]]:
        raise ValueError(f"confusion counts {total} images, setting {config['setting']} has {sizes[config['setting']]}")


def _is_same(value, expected):
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(map(_is_same, value, expected))
    if expected is None or value is None or isinstance(value, bool):
        return value is expected
    return isinstance(value, (int, float)) and abs(value - expected) <= _ROUNDING
