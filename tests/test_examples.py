"""Each example runs, for a few steps, and writes its table and its figure."""

import importlib.util
import pathlib

import matplotlib as mpl
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(name, tmp_path, capsys):
    mpl.use("agg")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--quick", "--output", str(tmp_path)])
    text = (tmp_path / f"{name}.md").read_text()
    assert text in capsys.readouterr().out
    assert all(f"| {network} |" in text for network in example.NETWORKS)
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_the_page_shows_what_an_example_wrote(name):
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    table = (EXAMPLES / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert all(line in page for line in table.splitlines() if line.startswith("|"))
    assert f"results/{name}.png" in page
