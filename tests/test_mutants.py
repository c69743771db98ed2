"""The mutation tester changes each place once, and what it makes is Python."""

import ast
from pathlib import Path

import pytest

from tests import mutants

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b <= c", ["Lt -> LtE", "LtE -> Lt", "removed"]),
        ("x = a + 2 * b", ["Add -> Sub", "Mult -> Div", "2 -> 3"]),
        ("x = not a and True", ["And -> Or", "Not removed", "True -> False"]),
        ("def f(n: int = 1) -> str:\n    'Said.'\n    return n", ["1 -> 2", "returns None"]),
        ("def f():\n    return None", []),
        ("if a:\n    raise ValueError(f'{1}' + 'said')", ["condition negated", "removed"]),
        ("x = f'{1}'\n__all__ = ['f']", []),
        ("x = 'a' if b == 1 else c", ["'a' -> 'xa'", "Eq -> NotEq", "1 -> 2"]),
        ("@cache(1)\ndef f():\n    a += 1\n    g()", ["Add -> Sub", "removed", "1 -> 2", "removed"]),
    ],
)
def test_what_is_changed(source, changes):
    found = list(mutants.mutants(source))
    assert sorted(mutant.change for mutant in found) == sorted(changes)
    same = ast.unparse(ast.parse(source))
    assert all(ast.unparse(ast.parse(mutant.source)) != same for mutant in found)
    assert all(mutant.text == source.splitlines()[mutant.line - 1].strip() for mutant in found)


def test_equivalent_mutants_are_there_to_be_found():
    """An entry of a line that has changed since is no excuse."""
    known = mutants.equivalent()
    assert known
    for module in {module for module, _, _ in known}:
        expected = {(text, change) for name, text, change in known if name == module}
        made = mutants.mutants((ROOT / module).read_text(), only={text for text, _ in expected})
        assert expected <= {(mutant.text, mutant.change) for mutant in made}
