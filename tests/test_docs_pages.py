"""The pages' programs: those of the how-to pages run, and the model that one adds is a model."""

import pathlib
import re

import jax.numpy as jnp
import pytest
from flax import nnx

import fconv_jax as fc
from experiments import audit, evaluate, report, run, sweep

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", ["index.md", "from-escnn.md"])
def test_the_programs_run(page):
    programs = blocks(page, "python")
    assert programs
    for program in programs:
        exec(compile(program, page, "exec"), {"__name__": "page"})


@pytest.mark.slow
def test_the_model_that_is_added_is_invariant():
    names = {}
    exec(compile(blocks("add-a-model.md", "python")[0], "add-a-model.md", "exec"), names)
    model = names["TinyFConv"](rngs=nnx.Rngs(0))
    assert fc.audit(model, (28, 28, 1)).first_break is None
    assert model(jnp.zeros((2, 28, 28, 1))).shape == (2, 10)


def test_every_command_is_accepted():
    doors = {"run": run, "evaluate": evaluate, "sweep": sweep, "report": report, "audit": audit}
    text = "\n".join(blocks("reproduce.md", "bash") + blocks("add-a-model.md", "bash"))
    found = re.findall(r"python -m experiments\.(\w+)([^\n'`#&]*)", text)
    assert {name for name, _ in found} == set(doors)
    for name, arguments in found:
        arguments = arguments.replace("tiny_fconv", "lenet_fconv").replace("$SLURM_ARRAY_TASK_ID", "1")
        doors[name].parser().parse_args(arguments.split())


def test_tutorials_are_notebooks_that_the_site_lists():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = list(DOCS.glob("tutorials/*.md"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "name: python3" in text.split("---")[1], page
        cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", text, flags=re.DOTALL)
        assert cells, page
        compile("\n".join(cells), page.name, "exec")
        assert f"tutorials/{page.stem}\n" in index, page
