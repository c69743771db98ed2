"""Changes one place of a module after another and counts the changes that its tests notice.

python -m tests.mutants --module experiments/runs/results.py

Each change (a mutant) is made in a copy of the tree, where the module's own tests run in a forked process that stops at
the first failure. What no test can notice stands in `equivalent_mutants.tsv` with the reason, and is left out.
"""

import argparse
import ast
import contextlib
import copy
import csv
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TREES = ("fconv_jax", "experiments", "tests", "checkpoints", "results", "docs", "examples", "benchmarks")
# Imported once, before the forks; nothing of the project, and nothing that starts jax's devices.
WARM = (
    "jax", "jax.numpy", "flax.nnx", "optax", "orbax.checkpoint", "numpy", "scipy.ndimage", "tensorflow_datasets",
    "array_record.python.array_record_module", "matplotlib.figure", "rich.table", "filelock", "pytest",
    "_pytest.doctest", "_pytest.assertion.rewrite",
)  # fmt: skip
NOTICED, SURVIVED, HUNG = "noticed", "SURVIVED", "hung"


class Mutant(NamedTuple):
    """A changed module: the line of the change, that line's text, what was done to it, and the new source."""

    line: int
    text: str
    change: str
    source: str


_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
               ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip
_BOOLEAN = {ast.And: ast.Or, ast.Or: ast.And}


def mutants(source: str, only: Container[str] | None = None) -> Iterator[Mutant]:
    """Every change of one comparison, operation, constant, condition, returned value or statement.

    `only`: of lines with these texts.
    """
    lines, tree = source.splitlines(), ast.parse(source)
    for number, (node, _) in enumerate(_places(tree)):
        if only is not None and lines[node.lineno - 1].strip() not in only:
            continue
        for change, _ in _changes(node):
            changed = copy.deepcopy(tree)
            place, put = _places(changed)[number]
            replacement = dict(_changes(place))[change]()
            put(ast.copy_location(replacement, place))
            new = ast.unparse(ast.fix_missing_locations(changed))
            yield Mutant(node.lineno, lines[node.lineno - 1].strip(), change, new)


def _places(tree) -> list[tuple[ast.AST, Callable]]:
    """Every node that may be changed, and the function that puts another one there."""
    found = []

    def visit(node):
        for name, value in ast.iter_fields(node):
            if _is_left_alone(node, name):
                continue
            if isinstance(value, list):
                for i, entry in enumerate(value):
                    if isinstance(entry, ast.AST) and not _is_docstring(entry):
                        found.append((entry, lambda new, value=value, i=i: value.__setitem__(i, new)))
                        visit(entry)
            elif isinstance(value, ast.AST):
                found.append((value, lambda new, node=node, name=name: setattr(node, name, new)))
                visit(value)

    visit(tree)
    return [(node, put) for node, put in found if hasattr(node, "lineno")]


def _is_left_alone(node, name):
    """Types, words that are said to the user, and the list of public names."""
    if name in ("annotation", "returns", "decorator_list") or isinstance(node, (ast.JoinedStr, ast.Raise)):
        return True
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node) -> list[tuple[str, Callable[[], ast.AST]]]:
    """(what is done, function that makes the changed node) of each change of a node."""
    if isinstance(node, ast.Compare):
        return [
            (f"{type(op).__name__} -> {_COMPARE[type(op)].__name__}", lambda i=i, op=op: _with_operator(node, i, op))
            for i, op in enumerate(node.ops)
        ]
    for kind, table in ((ast.BinOp, _ARITHMETIC), (ast.AugAssign, _ARITHMETIC), (ast.BoolOp, _BOOLEAN)):
        if isinstance(node, kind) and type(node.op) in table:
            new = table[type(node.op)]
            made = [(f"{type(node.op).__name__} -> {new.__name__}", lambda new=new: _with(node, op=new()))]
            return made + _removal(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        return [(f"{type(node.op).__name__} removed", lambda: node.operand)]
    if isinstance(node, ast.Constant):
        return _of_constant(node)
    if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        return [("returns None", lambda: _with(node, value=ast.Constant(None)))]
    if isinstance(node, (ast.If, ast.IfExp, ast.While)) and not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        return [("condition negated", lambda: _with(node, test=ast.UnaryOp(ast.Not(), node.test)))]
    return _removal(node)


def _removal(node):
    """Statements that stand for themselves may go."""
    return [("removed", ast.Pass)] if isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise)) else []


def _of_constant(node):
    value = node.value
    if isinstance(value, bool):
        return [(f"{value} -> {not value}", lambda: ast.Constant(not value))]
    if isinstance(value, (int, float)):
        return [(f"{value} -> {value + 1}", lambda: ast.Constant(value + 1))]
    if isinstance(value, str):
        return [(f"{value!r} -> {'x' + value!r}", lambda: ast.Constant("x" + value))]
    return []


def _with(node, **fields):
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _with_operator(node, i, op):
    operators = list(node.ops)
    operators[i] = _COMPARE[type(op)]()
    return _with(node, ops=operators)


def _is_none(node):
    return isinstance(node, ast.Constant) and node.value is None


def tests_of(module: Path) -> list[str]:
    """The module itself (its doctests) and the tests that bear its name."""
    own = Path("tests") / module.parent
    return [
        str(module),
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / own).glob(f"test_{module.stem}*.py"))),
    ]


def copy_tree(folder: Path) -> None:
    """Copies what tests read; the large parts as links."""
    for name in TREES:
        if (ROOT / name).exists() and name in ("fconv_jax", "experiments", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "goldens"))
        elif (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    goldens = ROOT / "tests" / "goldens"
    (folder / "tests" / "goldens").mkdir()
    for path in goldens.iterdir():
        copied = folder / "tests" / "goldens" / path.name
        shutil.copy(path, copied) if path.suffix == ".py" else copied.symlink_to(path)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder / name)


def outcome(folder: Path, tests: list[str], seconds: float, log: Path) -> str:
    """Runs tests in a forked process; "noticed" if one fails, "SURVIVED" if none does, "hung" after `seconds`."""
    pid = os.fork()
    if pid == 0:
        _become_pytest(folder, tests, log)
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return SURVIVED if os.waitstatus_to_exitcode(status) == 0 else NOTICED
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HUNG


def _become_pytest(folder, tests, log):
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
        for name in [name for name in sys.modules if name.split(".")[0] in ("fconv_jax", "experiments", "tests")]:
            del sys.modules[name]
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        import pytest

        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(int(code))


def equivalent() -> set[tuple[str, str, str]]:
    """(module, line, change) of the mutants that no test can notice."""
    with (Path(__file__).parent / "equivalent_mutants.tsv").open(encoding="utf-8", newline="") as file:
        return {(row["module"], row["line"], row["change"]) for row in csv.DictReader(file, delimiter="\t")}


def main() -> int:
    """Prints the mutants that survive and the score; the exit code is 1 below `--least`."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--module", type=Path, required=True, help="its path in the repository")
    parser.add_argument("--tests", nargs="*", help="default: the module's doctests and tests/.../test_MODULE*.py")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--least", type=float, default=0.85, help="share of noticed mutants (default 0.85)")
    options = parser.parse_args()
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", JAX_PLATFORMS="cpu")
    sys.dont_write_bytecode = True
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as work:
        return int(measure(options, Path(work)) < options.least)


def measure(options, work: Path) -> float:
    """The share of mutants that the tests notice; prints the others."""
    copied, log, known = work / "tree", work / "log", equivalent()
    copy_tree(copied)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(work / "compiled")
    module, tests = options.module, options.tests or tests_of(options.module)
    source = (ROOT / module).read_text(encoding="utf-8")
    started = time.monotonic()
    for _ in range(2):  # the second one with compiled programs
        started = time.monotonic()
        if outcome(copied, tests, 600, log) != SURVIVED:
            raise SystemExit(f"the tests fail on the module as it is:\n{log.read_text()[-3000:]}")
    seconds = time.monotonic() - started
    every = list(mutants(source))
    counted = [each for each in every if (str(module), each.text, each.change) not in known]
    chosen = random.Random(options.seed).sample(counted, min(options.sample or len(counted), len(counted)))
    print(f"{module}: {len(every)} mutants, {len(every) - len(counted)} of them equivalent, {len(chosen)} tried; "
          f"tests take {seconds:.1f} s", flush=True)  # fmt: skip
    survived = 0
    for mutant in sorted(chosen, key=lambda each: each.line):
        (copied / module).write_text(mutant.source, encoding="utf-8")
        if outcome(copied, tests, 10 + 5 * seconds, log) == SURVIVED:
            survived += 1
            print(f"  {module}:{mutant.line}: {mutant.change}: {mutant.text}", flush=True)
    score = 1 - survived / max(len(chosen), 1)
    print(f"{module}: {len(chosen) - survived} of {len(chosen)} noticed, {100 * score:.0f} %", flush=True)
    return score


if __name__ == "__main__":
    sys.exit(main())
