"""The site: every public name is in the reference, equations become mathematics, links lead somewhere."""

import importlib
import importlib.util
import inspect
import pathlib
import re
import types

import pytest

import fconv_jax as fc

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"


def extension(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docstrings, repository = extension("docstrings"), extension("repository")


def documented():
    """The full names that the reference's pages document."""
    names = set()
    for page in DOCS.glob("api/*.rst"):
        module = ""
        pattern = r"\.\. (currentmodule|autofunction|autoclass|autoexception|autodata|automodule):: (\S+)"
        for kind, name in re.findall(pattern, page.read_text(encoding="utf-8")):
            if kind == "currentmodule":
                module = name
                continue
            names.add(name if name.startswith("fconv_jax") else f"{module}.{name}")
    return names


def public():
    """{full name: object} of what `__all__` lists, and of the modules in it their own functions and classes."""
    found = {}
    for name in fc.__all__:
        value = getattr(fc, name)
        if not isinstance(value, types.ModuleType):
            found[f"fconv_jax.{name}"] = value
            continue
        members = getattr(value, "__all__", None) or [n for n in vars(value) if not n.startswith("_")]
        for member in members:
            inner = getattr(value, member)
            own = getattr(inner, "__module__", "").startswith(value.__name__) or "__all__" in vars(value)
            if callable(inner) and own and not (inspect.isclass(inner) and value is fc.models):
                found[f"{value.__name__}.{member}"] = inner
    return found


def test_every_public_name_is_in_the_reference():
    missing = public().keys() - documented()
    # `create` makes these; `initialize` is the layers' own.
    missing -= {f"fconv_jax.models.{name}" for name in fc.models.MODELS} | {"fconv_jax.initializers.initialize"}
    assert not missing
    assert {"fconv_jax.GroupFConv", "fconv_jax.initializers.he", "fconv_jax.models.create"} <= public().keys()


def test_every_name_in_the_reference_exists():
    for name in documented():
        module, _, last = name.rpartition(".")
        assert inspect.getdoc(getattr(importlib.import_module(module), last)), name


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("y[i] = sum_{u, v} x[s i + u] F[u]", r"y[i] = \sum _{u, v} x[s\,i + u]\,F[u]"),
        ("x' = cos(theta) X,   s^-1", r"x' = \cos (\theta )\,X,\qquad s^{-1}"),
        ("residual_scale * n2(c_r)", r"\mathrm{residual\_scale} \cdot  n_{2}(c_{r})"),
        ("a and b mod t", r"a \text{ and }  b \bmod  t"),
        ("sum_ij B_(i,j) -> 0..p-1", r"\sum _{ij} B_{(i,j)} \to  0\ldots p-1"),
    ],
)
def test_plain_text_becomes_mathematics(plain, latex):
    assert docstrings.latex(plain) == latex


def test_every_equation_of_the_reference_is_mathematics():
    count = 0
    for name, value in public().items():
        lines = docstrings.rewrite(inspect.getdoc(value).split("\n"))
        equations = [line for line in lines if line.startswith(".. math::")]
        count += len(equations)
        for line in equations:
            assert line.count("{") == line.count("}"), name
    assert count > 20


def test_prose_and_sections_stay_what_they_are():
    lines = ["One | two `a`s.", "", "Args:", "  x: `[batch, 2]`,", "    more.", "", "Law: f(e x) = e f(x)."]
    assert docstrings.rewrite(lines) == [
        r"One \| two `a`\ s.", "", "Args:", "  x: ``[batch, 2]``,", "    more.", "", "**Law.** f(e x) = e f(x)."
    ]  # fmt: skip


def test_links_out_of_the_site_become_pages_or_paths():
    page = DOCS / "performance.md"

    def relinked(text):
        return repository.relinked(text, page, page)

    assert relinked("[a](../results/benchmarks.md#b)") == "[a](project/benchmarks.md#b)"
    assert relinked("[a](../README.md)") == "[a](index.md)"
    assert relinked("[a](../results/figures/errors.json)") == "a (`results/figures/errors.json`)"
    assert relinked("[a](group.md#b) ![c](../results/angles.png)") == "[a](group.md#b) ![c](../results/angles.png)"
    for code in ("`networks[name](x)`", '```python\nnetworks["a"](x)\n```', "`````text\n```\n[a](b)\n`````"):
        assert relinked(f"{code}\n[a](../README.md)") == f"{code}\n[a](index.md)"
    assert relinked("[a](https://flax.readthedocs.io)") == "[a](https://flax.readthedocs.io)"


def test_every_page_of_the_repository_is_there():
    later = {"SECURITY.md", "examples/README.md", "results/preset.md"}
    assert {name for name in repository.PAGES if not (ROOT / name).exists()} <= later


PRIVATE = r"\b(pictures?|begun|mend(s|ed|ing)?|turned (digit|image|copy|copies|one)s?|what was asked for)\b"


def test_pages_and_docstrings_use_the_fields_words():
    """A rotated image, not a turned picture (CONTRIBUTING)."""
    pages = [*ROOT.glob("*.md"), *(page for page in DOCS.rglob("*.md") if "project" not in page.parts)]
    pages += [page for folder in ("results", "examples", "checkpoints", "demo") for page in ROOT.glob(f"{folder}/*.md")]
    pages += [page for folder in ("fconv_jax", "experiments") for page in (ROOT / folder).rglob("*.py")]
    assert len(pages) > 100
    assert re.search(PRIVATE, "a turned digit")
    found = {page.name: re.search(PRIVATE, page.read_text(encoding="utf-8")) for page in pages}
    assert not {name: match[0] for name, match in found.items() if match}


def test_the_tests_that_pages_name_exist():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    pages = [*DOCS.rglob("*.md"), *(ROOT / "results").glob("*.md"), ROOT / "README.md"]
    named = {name for page in pages for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert not [name for name in sorted(named) if not any(f"def {name}(" in source for source in sources)]
