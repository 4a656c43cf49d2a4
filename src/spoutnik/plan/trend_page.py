"""What `spoutnik plan trend` tells, as text and as a page: two prices on one curve, who said them, and what each counts."""

import math
from collections.abc import Callable, Mapping, Sequence

from spoutnik.plan.answer import columns
from spoutnik.plan.figure import Figure
from spoutnik.plan.page import document, table, text_of
from spoutnik.plan.speech import Speech
from spoutnik.plan.trend import Comparison, Run, comparisons, declines, months_behind, programme_titles, programmes, run, runs
from spoutnik.plan.uncertain import Uncertain
from spoutnik.run.report_svg import dot, line, polyline, svg
from spoutnik.run.report_svg import text as label

WIDTH = 1040
FIRST, LAST = 2022.0, 2027.0
SHOWN = ("gpt-4", "sonnet-3_5", "deepseek-v3", "deepseek-r1")


def text(words: Speech, asked: Mapping[str, Figure]) -> str:
    """The answer, then the pairs, what they would cost by each decline, and what a final run leaves out."""
    parts = [answer(words)]
    parts += [paragraph(words, one) for one in comparisons()]
    parts.append(columns(expected_rows(words)))
    parts.append("\n".join([words("trend.programme"), *programme_lines(words)]))
    parts.append("\n".join([words("trend.behind"), *behind_lines(words)]))
    if asked:
        parts.append("\n".join([words("trend.asked"), *decline_lines(words, asked)]))
    parts.append("\n".join(source_lines(words)))
    return "\n\n".join(parts)


def page(words: Speech, asked: Mapping[str, Figure]) -> str:
    """The same as one HTML page with a chart."""
    parts = [f"<figure>{chart(words)}</figure>"]
    parts += [f"<p>{text_of(paragraph(words, one))}</p>" for one in comparisons()]
    parts.append(table(expected_rows(words)))
    sections = [("programme", programme_lines(words)), ("behind", behind_lines(words))]
    if asked:
        sections.append(("asked", decline_lines(words, asked)))
    for key, lines in sections:
        parts.append(f"<p>{text_of(words(f'trend.{key}'))}</p>{_list(lines)}")
    parts.append(_list(source_lines(words)))
    return document(words("trend.head"), answer(words), parts, words("trend.footer"), words)


def answer(words: Speech) -> str:
    """The sentence: what the two prices imply a year, and where that lies."""
    one = comparisons()[0]
    figures = one.figures
    return words(
        "trend.title", older=one.older.title[words.language], newer=one.newer.title[words.language], place=_place(words, figures["yearly"]),
        first=money(words, one.older.said[1]), second=money(words, one.newer.said[1]),
        times=_times(words, figures["ratio"]), years=words.number(round(figures["years"].middle, 1)),
        yearly=_times(words, figures["yearly"]),
    )  # fmt: skip


def paragraph(words: Speech, one: Comparison) -> str:
    """One pair: costs with their status, the decline that they imply."""
    figures = one.figures
    return words(
        "trend.pair", older=_said(words, one.older), newer=_said(words, one.newer), times=_range(words, figures["ratio"]),
        years=words.number(round(figures["years"].middle, 1)), yearly=_range(words, figures["yearly"]),
        counts=words(f"trend.{one.older.counts}"), place=_place(words, figures["yearly"]),
    )  # fmt: skip


def expected_rows(words: Speech) -> list[list[str]]:
    """What each older run would cost at the newer one's date, by each decline."""
    rows = [[words("trend.run"), words("trend.then"), *(f"÷ {words.number(one.times)}" for one in declines()), words("trend.now")]]
    for one in comparisons():
        costs = [money(words, one.expected[decline.name].middle) for decline in declines()]
        name = f"{one.older.title[words.language]}, {one.older.ends}"
        rows.append([name, money(words, one.older.said[1]), *costs, _said(words, one.newer)])
    return rows


def programme_lines(words: Speech) -> list[str]:
    """What a whole programme may have cost around V3's final run."""
    titles = programme_titles()
    found = programmes(run("deepseek-v3").usd)
    return [
        "  " + words("trend.item", name=money(words, figure.middle), text=titles[name][words.language]) for name, figure in found.items()
    ]


def behind_lines(words: Speech) -> list[str]:
    """What performance of 7 to 10 months ago costs, by each decline, from what was said of Sonnet."""
    return decline_lines(words, {one.name: months_behind(run("sonnet-3_5").usd, one) for one in declines()})


def decline_lines(words: Speech, figures: Mapping[str, Figure]) -> list[str]:
    """One line for each decline."""
    return [
        "  " + words("trend.item", name=_range(words, figures[one.name], "USD"), text=_by(words, one.times, one.title[words.language]))
        for one in declines()
    ]


def source_lines(words: Speech) -> list[str]:
    """Who said each cost."""
    return [
        words("trend.item", name=one.title[words.language], text=f"{words.phrase(one.usd.source)} [{words(f'status.{one.usd.status}')}]")
        for one in runs().values()
    ]


def chart(words: Speech) -> str:
    """Costs over the years by powers of ten: three declines from GPT-4's, and what was said of others."""
    left, right, top, bottom = 90.0, WIDTH - 230.0, 30.0, 330.0
    low, high = 5.0, 8.3

    def place(year: float, usd: float) -> tuple[float, float]:
        x = left + (year - FIRST) / (LAST - FIRST) * (right - left)
        return x, bottom - (math.log10(usd) - low) / (high - low) * (bottom - top)

    parts = [label(0, 14, words("trend.chart"), "title")]
    for power in range(math.ceil(low), math.floor(high) + 1):
        y = place(FIRST, 10.0**power)[1]
        parts += [line(left, y, right, y), label(left - 8, y + 4, words.quantity(10.0**power, "USD"), anchor="end")]
    parts += [label(place(year, 10**low)[0], bottom + 17, f"{year:.0f}", anchor="middle") for year in range(int(FIRST), int(LAST) + 1)]
    start = run("gpt-4")
    cost = start.said[1]
    for index, one in enumerate(declines()):
        end = cost / one.times ** (LAST - start.year)
        parts.append(polyline([place(start.year, cost), place(LAST, end)], f"s{index}"))
        parts.append(
            label(
                right + 8,
                place(LAST, end)[1] + 4,
                _by(words, one.times, money(words, end)),
                "value",
            )
        )
    for name in SHOWN:
        parts += _marks(words, run(name), place(run(name).year, run(name).said[1]), place)
    return svg(WIDTH, bottom + 26, parts, words("trend.chart"))


def _marks(words: Speech, one: Run, at: tuple[float, float], place: Callable[[float, float], tuple[float, float]]) -> Sequence[str]:
    parts = [dot(*at, 4, "s3"), label(at[0] + 8, at[1] - 6, f"{one.title[words.language]} ({words(f'status.{one.usd.status}')})", "label")]
    low, _, high = one.said
    if low != high:
        parts.append(line(at[0], place(one.year, low)[1], at[0], place(one.year, high)[1], "whisker s3"))
    return parts


def _said(words: Speech, one: Run) -> str:
    low, mode, high = (money(words, value) for value in one.said)
    ends = f" ({words('trend.named', low=low, high=high)})" if low != high else ""
    return f"{one.title[words.language]} {mode}{ends} [{words(f'status.{one.usd.status}')}]"


def money(words: Speech, value: float) -> str:
    """US dollars with four digits at most."""
    return words.quantity(float(f"{value:.4g}"), "USD")


def _by(words: Speech, times: float, who: str) -> str:
    return words("trend.by", times=words.number(times), who=who)


def _place(words: Speech, yearly: Figure) -> str:
    """Where a yearly decline lies among those that people name."""
    named = [one.times for one in declines()]
    below = [times for times in named if times <= yearly.middle]
    above = [times for times in named if times > yearly.middle]
    if not below:
        return words("trend.slower", times=words.number(named[0]))
    if not above:
        return words("trend.faster", times=words.number(named[-1]))
    return words("trend.between", low=words.number(below[-1]), high=words.number(above[0]))


def _times(words: Speech, figure: Figure) -> str:
    return words.number(float(f"{figure.middle:.2g}"), exact=False)


def _range(words: Speech, figure: Figure, unit: str = "") -> str:
    if not isinstance(figure.value, Uncertain):
        return words.quantity(float(f"{figure.value:.4g}"), unit)
    return f"{words.quantity(figure.value, unit)} ({words.interval(figure.value, unit)})"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{text_of(one.strip())}</li>" for one in lines) + "</ul>"
