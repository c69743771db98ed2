"""The structure of `experiments`: imports go one way, no model is named, files are short."""

import ast
import functools
import graphlib
from pathlib import Path

from experiments.settings import NAMED

ROOT = Path(__file__).parents[2] / "experiments"
FILES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
COMMANDS = {name for name in FILES if name.count(".") == 1 and not name.endswith(("settings", "rules", "__init__"))}
PARTS = ("rules", "settings", "data", "training", "runs", "reporting")
"""In the order in which data flows: a part imports from itself and from those before it."""


@functools.cache
def tree_of(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imports(name):
    """Modules of `experiments` that a module imports."""
    found = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {other if other in FILES else f"{other}.__init__" for other in found} & FILES.keys()


def part(name):
    return name.split(".")[1]


def test_no_command_imports_another_and_no_part_imports_a_command():
    for name in FILES:
        assert not (imports(name) - {name}) & COMMANDS, name


def test_parts_import_one_way():
    for name in FILES.keys() - COMMANDS - {"experiments.__init__"}:
        for other in imports(name) - {"experiments.__init__"}:
            assert PARTS.index(part(other)) <= PARTS.index(part(name)), (name, other)


def test_there_is_no_circle():
    levels = {}
    for name in graphlib.TopologicalSorter({name: imports(name) - {name} for name in FILES}).static_order():
        levels[name] = 1 + max((levels[other] for other in imports(name) - {name}), default=0)
    assert max(levels.values()) <= 15


def test_only_commands_and_the_part_that_sets_flags_import_inside_functions():
    """To set jax's flags before jax is imported."""
    late = {
        name
        for name in FILES
        for function in ast.walk(tree_of(name))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert late <= COMMANDS | {"experiments.training.devices", "experiments.runs.exit_codes"}, late


def test_models_are_named_in_the_table_only():
    for name in FILES.keys() - {"experiments.settings", "experiments.training.ladder_networks"}:
        words = {node.value for node in ast.walk(tree_of(name)) if isinstance(node, ast.Constant)}
        assert not words & set(NAMED), name


def test_files_and_functions_have_a_size():
    """Everywhere; a function's docstring is not counted."""
    parts = ("fconv_jax", "experiments", "tests", "benchmarks", "examples", "demo", "docs")
    paths = [path for part in parts for path in sorted((ROOT.parent / part).rglob("*.py"))]
    paths = [path for path in paths if "node_modules" not in path.parts]
    commands = {FILES[name] for name in COMMANDS}
    assert commands <= set(paths)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= (66 if path in commands else 300), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                said = len((ast.get_docstring(node, clean=False) or "").splitlines())
                assert node.end_lineno - node.lineno - said < 50, (path, node.name)
