"""The repository's own pages in the site, and links that lead out of `docs/`.

`PAGES` are written below `docs/project/` when the site is built.  In all pages a link to one of them, or to another
file of `docs/`, leads to its page; a link to any other file of the repository becomes the file's path.
"""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "checkpoints/README.md": "project/checkpoints.md",
    "examples/README.md": "project/examples.md",
    "results/against-pytorch-accuracy.md": "project/against-pytorch-accuracy.md",
    "results/benchmarks.md": "project/benchmarks.md",
    "results/errors.md": "project/errors.md",
    "results/faults.md": "project/faults.md",
    "results/input-turns.md": "project/input-turns.md",
    "results/invariant.md": "project/invariant.md",
    "results/invariant-choices.md": "project/invariant-choices.md",
    "results/mnist-rot.md": "project/mnist-rot.md",
    "results/preset.md": "project/preset.md",
    "results/table2.md": "project/table2.md",
    "results/uniform.md": "project/uniform.md",
    "results/why-fconv-lost.md": "project/why-fconv-lost.md",
}
CODE = r"^(?P<fence>```+).*?^(?P=fence)$|`[^`\n]+`"  # where brackets are no link
LINK = re.compile(
    CODE + r"|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)",
    flags=re.DOTALL | re.MULTILINE,
)
_ELSEWHERE = ("http://", "https://", "mailto:")


def relinked(text: str, source: pathlib.Path, page: pathlib.Path) -> str:
    """Returns a page's text with links that hold where it stands in the site.

    Args:
      text: Markdown.
      source: the file that it comes from.
      page: the file that it is or becomes in the site; both below `ROOT`.
    """

    def link(found):
        image, words, target, anchor = found["image"], found["text"], found["target"], found["anchor"] or ""
        if target is None or target.startswith(_ELSEWHERE):
            return found[0]
        path = (source.parent / target).resolve()
        inside = path.relative_to(ROOT).as_posix()
        if inside in PAGES and path.exists():
            path = ROOT / "docs" / PAGES[inside]
        elif not image and not (ROOT / "docs" in path.parents and path.suffix == ".md"):
            return f"{words} (`{inside}`)" if words.strip("`") != inside else f"`{inside}`"
        return f"{image}[{words}]({os.path.relpath(path, page.parent)}{anchor})"

    return LINK.sub(link, text)


def _write_pages(app):
    for name, page in PAGES.items():
        source, target = ROOT / name, ROOT / "docs" / page
        if page == "index.md":
            continue
        if not source.exists():
            target.unlink(missing_ok=True)
            continue
        text = relinked(source.read_text(encoding="utf-8"), source, target)
        target.parent.mkdir(exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def _read(app, docname, content):
    path = pathlib.Path(app.env.doc2path(docname)).resolve()
    if path.suffix == ".md" and "project" not in path.parent.parts:
        content[0] = relinked(content[0], path, path)


def setup(app):
    """Writes the pages before the site's files are listed."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
