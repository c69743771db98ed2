"""Equations as MathML, which browsers draw themselves: no script, and nothing fetched from another site."""

import html

from latex2mathml.converter import convert


def setup(app):
    """Registers the renderer that `html_math_renderer` names."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator, node):
    _write(translator, node, "inline", "span")


def _block(translator, node):
    _write(translator, node, "block", "div")


def _write(translator, node, display, tag):
    from docutils.nodes import SkipNode

    latex = node.astext()
    label = html.escape(latex, quote=True)
    mathml = convert(latex, display=display).replace("<math ", f'<math aria-label="{label}" ', 1)
    translator.body.append(f'<{tag} class="math">{mathml}</{tag}>')
    raise SkipNode
