"""The page on deployment: its program runs, its table says what the files say, its links lead somewhere."""

import re
import shlex
from pathlib import Path

from experiments import export
from fconv_jax import pretrained

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_its_programs_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main(shlex.split(re.search(r"python -m experiments.export (lenet.*)", PAGE)[1])) == 0
    capsys.readouterr()
    programs = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        exec(compile(program, "deploy.md", "exec"), {"__name__": "page"})
    assert (tmp_path / "mine" / pretrained.WEIGHTS).exists()
    said = capsys.readouterr().out
    assert said.startswith("0.9782\n[")
    assert "'conv4': (5, 5, 192, 256)" in said


def test_its_table_says_what_the_files_say():
    rows = re.findall(r"^\| `(setting\d_\w+)`.*\| (\d) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert {name for name, _, _ in rows} == set(pretrained.SHIPPED.values())
    for name, seed, accuracy in rows:
        source = pretrained.read_config(name)["source"]
        assert (source["seed"], source["test_accuracy"]) == (int(seed), float(accuracy))


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
