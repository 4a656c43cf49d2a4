"""A plan as one HTML page that needs nothing else: the answer, its figures, drawings, and every formula with its inputs."""

import html
from collections.abc import Sequence
from importlib.resources import files

from spoutnik.plan.answer import (
    answer,
    compared,
    comparison_rows,
    figure_rows,
    formula,
    in_brackets,
    input_text,
    interval,
    line_rows,
    shown_unit,
    unit_of,
)
from spoutnik.plan.charts import charts
from spoutnik.plan.compare import Comparison
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.result import TOTALS, Plan
from spoutnik.plan.schedule.cells import Timeline
from spoutnik.plan.speech import Speech
from spoutnik.run.report import POLICY


def page(plan: Plan, words: Speech, capacity: float | None = None, timeline: Timeline | None = None) -> str:
    """The page of one plan; `capacity` is a device's memory in bytes, `timeline` one step of its pipeline."""
    parts = [_tiles(plan, words)]
    parts += [f"<figure>{drawing}</figure>" for drawing in charts(plan, words, capacity, timeline)]
    parts += [f"<h2>{text_of(words('head.figures'))}</h2>", table(figure_rows(plan, words))]
    if plan.setting:
        parts.append(f"<p>{text_of(words('head.setting', setting=words.phrase(plan.setting)))}</p>")
    if plan.lines:
        parts += [f"<h2>{text_of(words('head.lines'))}</h2>", table(line_rows(plan, words), foot=True)]
    parts += [f"<h2>{text_of(words('head.why'))}</h2>", *_all_reasons(plan, words)]
    return document(plan.title, answer(plan, words), parts, words("head.footer"), words)


def comparison_page(comparison: Comparison, words: Speech) -> str:
    """The page of two plans side by side."""
    parts = [table(comparison_rows(comparison, words))]
    for plan in (comparison.first, comparison.second):
        parts.append(f"<h2>{text_of(plan.title)}</h2><p>{text_of(answer(plan, words))}</p>")
        parts += [f"<figure>{drawing}</figure>" for drawing in charts(plan, words, None, None)]
    return document(words("head.compare"), compared(comparison, words), parts, words("head.shared"), words)


def document(title: str, summary: str, parts: Sequence[str], footer: str, words: Speech) -> str:
    """The whole page: its title and sentence, then what is in it."""
    style = files("spoutnik.run").joinpath("report.css").read_text(encoding="utf-8")
    style += files("spoutnik.plan").joinpath("page.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{text_of(title)}</title><style>{style}</style>"
    )
    body = (
        f'<header><h1>{text_of(title)}</h1><p class="summary">{text_of(summary)}</p></header>'
        f'<main>{"".join(parts)}</main><footer><p class="note">{text_of(footer)}</p></footer>'
    )
    return f'<!doctype html><html lang="{words.language}"><head>{head}</head><body>{body}</body></html>\n'


def _tiles(plan: Plan, words: Speech) -> str:
    cells = []
    for name in (*TOTALS, "memory_gib_per_device"):
        figure = plan.figures.get(name)
        if figure:
            unit = shown_unit(figure)
            value, ends = words.quantity(figure.value, unit), interval(figure, words, unit)
            cells.append(f"<div><dt>{text_of(words.label(name))}</dt><dd>{text_of(value)}<small>{text_of(ends)}</small></dd></div>")
    return f'<dl class="figures">{"".join(cells)}</dl>'


def table(rows: Sequence[Sequence[str]], foot: bool = False) -> str:
    """Rows as a table; the first is its head."""
    head, *body = rows
    last = f"<tfoot>{_row(body.pop(), 'td')}</tfoot>" if foot else ""
    lines = "".join(_row(row, "td") for row in body)
    return f'<div class="table"><table><thead>{_row(head, "th")}</thead><tbody>{lines}</tbody>{last}</table></div>'


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{text_of(cell)}</{tag}>' for cell in cells)}</tr>"


def _all_reasons(plan: Plan, words: Speech) -> list[str]:
    found = plan.all_figures()
    return [_reasons(name, figure, set(found), words) for name, figure in found.items()]


def _reasons(name: str, figure: Figure, known: set[str], words: Speech) -> str:
    """A figure that opens: its formula, and its inputs, of which figures are links to their own."""
    unit = unit_of(figure)
    ends = in_brackets(figure.value, unit, words)
    label = f"{words.label(figure.name)} " if words.has(f"figure.{figure.name}") else ""
    items = []
    for one in figure.inputs:
        if isinstance(one, Input):
            items.append(f"<li>{text_of(input_text(one, words))}</li>")
        else:
            shown = f"{one.name} = {words.quantity(one.value, unit_of(one))}"
            beside = f"{name.partition('.')[0]}.{one.name}"
            target = beside if beside in known else one.name
            items.append(f'<li><a href="#why-{html.escape(target)}">{text_of(shown)}</a></li>')
    inputs = f"<ul>{''.join(items)}</ul>" if items else ""
    summary = f"{text_of(label)}<code>{text_of(name)}</code> = <b>{text_of(words.quantity(figure.value, unit))}</b>{text_of(ends)}"
    note = f'<p class="note">{text_of(words.phrase(figure.note))}</p>' if figure.note else ""
    body = f'<div class="formula">= {text_of(formula(figure, words))}</div>{note}{inputs}'
    return f'<details id="why-{html.escape(name)}"><summary>{summary}</summary>{body}</details>'


def text_of(value: str) -> str:
    """Text that is safe within a page."""
    return html.escape(value)
