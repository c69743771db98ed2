"""Docstrings of this project as reStructuredText.

In a terminal a docstring's equations are plain text, indented by four.  Here they become mathematics: `sum_{u, v}` a
sum sign, `theta` a letter, names of several letters upright.
"""

import ast
import inspect
import re
import textwrap

from flax import nnx

SECTION = re.compile(r"(Args|Attributes|Returns|Raises):$")
LEAD = re.compile(r"^(Law|Args|Parameters|Returns|Raises)((?:, \w+)*(?: \(\w+\))?): ")
CODE = re.compile(r"(``.+?``|`[^`]+`)")
NAME = re.compile(r"`[\w.]+(\(\))?`")

_GREEK = {"alpha", "beta", "pi", "sigma", "theta"}
_FUNCTIONS = {"cos", "exp", "max", "min", "sin"}
_WORDS = {"and": r"\text{ and }", "proportional to": r"\propto", "mod": r"\bmod"}
_SYMBOLS = {"->": r"\to", "<=": r"\le", "..": r"\ldots", "~": r"\sim", "*": r"\cdot", "//": r"\mathbin{/\!/}"}
_TOKEN = re.compile(
    r"(?P<space> +)|(?P<word>(?:and|proportional to|mod)\b)|(?P<sum>sum(?=_| ))"
    r"|(?P<name>[A-Za-z]{2,}(?:_[A-Za-z]{2,})*\d*'*|[A-Za-z]\d*'*)|(?P<number>\d+(?:\.\d+)?)|(?P<symbol>->|<=|\.\.|//|.)"
)
_SCRIPT = re.compile(r"\{(?P<braces>.*?)\}|(?P<plain>\([^)]*\)|-?(?:\d+|[A-Za-z]+))")


def latex(equation: str) -> str:
    """Returns a line of plain-text mathematics as LaTeX.

    `a b` is a product, three spaces part equations, `x_r`, `x_{r, s}` and `x^-1` are scripts of a letter.
    """
    out, position, operand = "", 0, False
    while position < len(equation):
        token = _TOKEN.match(equation, position)
        position, text, kind = token.end(), token[0], token.lastgroup
        if kind == "space":
            ahead = _TOKEN.match(equation, position)
            product = operand and ahead and (ahead.lastgroup in ("name", "number", "sum") or ahead[0] in "([|")
            out += r"\qquad " if len(text) > 2 else r"\," if product else " "
            continue
        if text in ("_", "^"):
            script = _SCRIPT.match(equation, position)
            position, inside = script.end(), script["braces"] or script["plain"]
            out += f"{text}{{{inside if inside.isalpha() and len(inside) < 3 else latex(inside)}}}"
            continue
        out += _written(text, kind)
        operand = kind in ("name", "number") or text in (")", "]", "}", "|")
    return out


def _written(text, kind):
    """A token that is no space and no script, as LaTeX."""
    if kind == "word":
        return _WORDS[text] + " "
    if kind == "symbol":
        return _SYMBOLS[text] + " " if text in _SYMBOLS else rf"\{text}" if text in "{}#%&" else text
    name = text.rstrip("'")
    primes = text[len(name) :]
    if kind == "sum" or name in _GREEK | _FUNCTIONS:
        return rf"\{name}{primes} "
    if len(name) == 1 or kind == "number":
        return text
    if len(name.rstrip("0123456789")) == 1:
        return f"{name[0]}_{{{name[1:]}}}{primes}"
    return rf"\mathrm{{{name}}}{primes}".replace("_", r"\_")


def rewrite(lines: list[str]) -> list[str]:
    """Returns a docstring's lines as reStructuredText."""
    out, inside_section, position = [], False, 0
    while position < len(lines):
        line = lines[position]
        if line and not line.startswith(" "):
            inside_section = bool(SECTION.match(line))
        if line.startswith("    ") and not inside_section:
            block = []
            while position < len(lines) and lines[position].startswith("    "):
                block.append(lines[position].strip())
                position += 1
            out += [line for row in block for line in ("", f".. math:: {latex(row)}", "")]
            continue
        out.append(line if line.lstrip().startswith((">>>", "...")) else _plain(line))
        position += 1
    return out


def _plain(line):
    """A line of prose: names of its parts are bold, and bars and stars outside of code are not markup."""
    line = LEAD.sub(r"**\1\2.** ", line).replace("**Parameters.**", "**Trained parameters.**")
    parts = CODE.split(line)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = (r"\ " if i and part[:1].isalnum() else "") + part.replace("|", r"\|")
        elif not NAME.fullmatch(part) and not part.startswith("``"):
            parts[i] = f"`{part}`"
    return "".join(parts)


def _process(app, what, name, obj, options, lines):
    lines[:] = rewrite(lines)


def _signature(app, what, name, obj, options, signature, returns):
    """The signature of a module of Flax: its metaclass hides that of `__init__`.  Defaults stay as they are written."""
    if what != "class" or not issubclass(obj, nnx.Module):
        return None
    source = textwrap.dedent(inspect.getsource(obj.__init__))
    arguments = ast.parse(source).body[0].args
    del arguments.args[0]  # self
    return f"({ast.unparse(arguments)})", None


def setup(app):
    """Works before napoleon, which reads the sections."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
