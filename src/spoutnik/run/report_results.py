"""The report's results: the sentence at its head, accuracy and faithfulness, costs, lineage."""

import html
from collections.abc import Sequence
from typing import Any

from spoutnik.run.progress import duration
from spoutnik.run.record import Event
from spoutnik.run.report_charts import Interval, bars, dot_plot
from spoutnik.run.report_data import RunLog, ancestors
from spoutnik.run.report_lineage import lineage_graph

PANELS = {"Accuracy": "accuracy", "Supported": "supported", "Right sums": "faithful_steps"}
NONE = "\N{EN DASH}"
COST_SUMS = ("wall_s", "cpu_s", "tokens", "flops", "energy_joules", "money")


def summary(log: RunLog) -> str:
    """What came out, in a sentence or two."""
    unfinished = [stage.name for stage in log.makers if not stage.costs]
    going = f"Not finished: {', '.join(unfinished)}. " if unfinished else ""
    if not log.evaluations:
        return html.escape(going + "Nothing was evaluated yet.")
    task = log.evaluations[0]["task"]
    scores = {event["model"]: event for event in log.evaluations if event["task"] == task}
    parts = []
    for stage in log.makers:
        before = next((scores[name] for name in ancestors(log, stage.name) if name in scores), None)
        if stage.name in scores and before is not None:
            after = scores[stage.name]
            parts.append(f"{stage.name} {after['accuracy']:.1%} (from {before['model']}, {before['accuracy']:.1%})")
    if not parts:
        parts = [f"{event['model']} {event['accuracy']:.1%}" for event in scores.values()]
    return html.escape(f"{going}Share of {log.evaluations[0]['n']:,} problems of {task} solved: {'; '.join(parts)}.")


def key_figures(log: RunLog) -> str:
    """Tiles: time, money, energy, tokens, operations."""
    total = {key: sum(stage.costs.get(key, 0) for stage in log.stages) for key in COST_SUMS}
    currency = next((stage.costs["currency"] for stage in log.stages if stage.costs.get("currency")), "")
    tiles = [
        ("Time", duration(total["wall_s"]), log.machine),
        ("Money", f"{total['money']:.2f} {currency}", "at the recipe's prices"),
        ("Energy", energy(total["energy_joules"]), energy_source(log)),
        ("Tokens", quantity(total["tokens"]), "trained on or sampled"),
        ("Operations", f"{quantity(total['flops'])}FLOP", "counted from the models' sizes"),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}<small>{html.escape(note)}</small></dd></div>" for name, value, note in tiles
    )
    return f'<dl class="figures">{cells}</dl>'


def accuracy_section(log: RunLog) -> str:
    """Per task: dots with intervals, and the table with everything measured."""
    if not log.evaluations:
        return ""
    parts = ["<h2>Accuracy, and whether the thinking supports it</h2>"]
    parts.append(
        '<p class="note">Bars are 95% Wilson intervals. “Supported” is the share of the right answers that a written sum, itself right, '
        "reaches; “right sums” is the share of all written sums that are. A model can answer well with thinking that does not hold.</p>"
    )
    for task in dict.fromkeys(event["task"] for event in log.evaluations):
        events = [event for event in log.evaluations if event["task"] == task]
        measured = {name: key for name, key in PANELS.items() if any(_share(event, key) for event in events)}
        rows = [(event["model"], [_share(event, key) for key in measured.values()]) for event in events]
        counts = ", ".join(dict.fromkeys(f"{event['n']:,}" for event in events))
        title = f"{task}: {counts} problems"
        parts.append(f"<h3>{html.escape(title)}</h3><figure>{dot_plot(rows, list(measured), title)}</figure>")
        parts.append(_evaluation_table(events))
        parts.append(_pair_table([pair for pair in log.pairs if pair["task"] == task]))
    return "".join(parts)


def contamination_section(log: RunLog) -> str:
    """How much of the evaluations stands in training data, and what is solved of the rest."""
    if not log.contaminations:
        return ""
    note = (
        '<p class="note">Problems that share 13 words with the training data which few other problems have, or stand there whole; others '
        "share only wording that many have. Problems made from templates share runs without being copies: look at the whole ones.</p>"
    )
    heads = ["task", "training data", "problems", "contaminated", "whole", "wording only", "model", "of all", "clean", "of the clean"]
    rows = []
    for event in log.contaminations:
        counts = [f"{event[key]:,}" for key in ("problems", "contaminated", "whole", "wording")]
        for model in event["models"]:
            reached = [_with_interval(model["all"]), f"{model['n']:,}", _with_interval(model["clean"])]
            rows.append([event["task"], ", ".join(event["data"]), *counts, model["model"], *reached])
    unknown = list(dict.fromkeys(name for event in log.contaminations for name in event["not_looked_into"]))
    rest = f'<p class="note">What {html.escape(", ".join(unknown))} was made of cannot be looked into.</p>' if unknown else ""
    return f"<h2>Contamination</h2>{note}{table(heads, rows)}{rest}"


def _with_interval(estimate: dict[str, float] | None) -> str:
    return f"{estimate['value']:.1%} ({estimate['low']:.1%} to {estimate['high']:.1%})" if estimate else NONE


def measure_section(log: RunLog) -> str:
    """Every metric of lm-evaluation-harness's tasks."""
    if not log.measures:
        return ""
    heads = ["task", "model", "metric", "filter", "n", "value", "95% interval"]
    rows = [
        [event["task"], event["model"], event["metric"], event["filter"], f"{event['n']:,}", f"{event['value']:.4f}",
         NONE if event["low"] is None else f"{event['low']:.4f} to {event['high']:.4f}"]
        for event in log.measures
    ]  # fmt: skip
    return f"<h2>Metrics of lm-evaluation-harness</h2>{table(heads, rows)}"


def text_section(log: RunLog) -> str:
    """How well each model still predicts general text."""
    if not log.perplexities:
        return ""
    note = (
        '<p class="note">General text, given as it stands. The perplexity is e to the mean of the nats a token; nats a byte also compare '
        "models with different tokenizers. What rises was forgotten.</p>"
    )
    heads = ["model", "text", "tokens", "perplexity", "nats a token", "nats a byte"]
    rows = [
        [event["model"], event["text"], f"{event['tokens']:,}", f"{event['perplexity']:.2f}", f"{event['nats_per_token']:.3f}",
         f"{event['nats_per_byte']:.3f}"]
        for event in log.perplexities
    ]  # fmt: skip
    return f"<h2>General text</h2>{note}{table(heads, rows)}"


def _share(event: Event, key: str) -> Interval | None:
    """A measured share; the accuracy has an interval."""
    value = event.get(key)
    if not isinstance(value, int | float):
        return None
    return Interval(value, event["low"], event["high"]) if key == "accuracy" else Interval(value, value, value)


def _evaluation_table(events: Sequence[Event]) -> str:
    found = {key for event in events for key in event if key.startswith(("pass@", "cons@"))}
    passes = sorted(found, key=lambda key: (int(key.partition("@")[2]), key))
    heads = ["model", "n", "correct", "accuracy", "95% interval", *passes, "supported", "right sums", "format", "cut off", "mean length"]
    rows = []
    for event in events:
        shares = [percent(event.get(key)) for key in (*passes, "supported", "faithful_steps", "format", "truncated")]
        length = event.get("mean_length")
        interval = f"{event['low']:.1%} to {event['high']:.1%}"
        last = f"{length:.0f} tokens" if isinstance(length, int | float) else NONE
        rows.append([event["model"], f"{event['n']:,}", f"{event['correct']:,}", percent(event["accuracy"]), interval, *shares, last])
    return table(heads, rows)


def _pair_table(pairs: Sequence[Event]) -> str:
    """The same problems, model against model."""
    if not pairs:
        return ""
    heads = ["less the second's accuracy", "points", "95% interval", "better on", "worse on", "p", "p, all pairs"]
    rows = []
    for pair in pairs:
        value, low, high = (100 * pair["difference"][key] for key in ("value", "low", "high"))
        chances = [NONE if pair[key] is None else f"{pair[key]:.2g}" for key in ("p", "p_holm")]
        counts = [f"{pair[key]:,}" for key in ("better", "worse")]
        rows.append([f"{pair['a']}, {pair['b']}", f"{value:+.1f}", f"{low:+.1f} to {high:+.1f}", *counts, *chances])
    note = '<p class="note">Exact p values, of one pair and corrected for all of them (Holm); the intervals are of one pair each.</p>'
    return f"{table(heads, rows)}{note}"


def cost_section(log: RunLog) -> str:
    """Costs by stage, with the prediction and the plan beside the time."""
    stages = [stage for stage in log.stages if stage.costs]
    if not stages:
        return ""
    currency = next((stage.costs["currency"] for stage in stages if stage.costs.get("currency")), "")
    heads = ["stage", "time", "predicted", "planned", "core time", "tokens", "tokens/s", "operations", "energy", currency or "money"]
    rows = []
    for stage in stages:
        costs = stage.costs
        speed = f"{costs['tokens'] / costs['wall_s']:,.0f}" if costs["tokens"] and costs["wall_s"] else NONE
        times = [duration(costs["wall_s"]), _foreseen(stage.predicted), _seconds(stage.minutes * 60)]
        rows.append([stage.name, *times, *_amounts(costs, speed), str(costs.get("resumptions", 0))])
    total = {key: sum(stage.costs.get(key, 0) for stage in stages) for key in COST_SUMS}
    foreseen, plan = sum(stage.predicted.get("p50", 0.0) for stage in stages), sum(stage.minutes for stage in stages)
    foot = ["all", duration(total["wall_s"]), _seconds(foreseen), _seconds(plan * 60), *_amounts(total, ""), ""]
    chart = bars([(stage.name, stage.costs["wall_s"], duration(stage.costs["wall_s"])) for stage in stages], "Time by stage")
    note = f'<p class="note">Energy is {html.escape(energy_source(log))}. What a crash threw away was paid for and is counted.</p>'
    return f"<h2>Cost and energy</h2>{note}<figure>{chart}</figure>{table([*heads, 'resumed'], rows, foot)}"


def _foreseen(predicted: dict[str, float]) -> str:
    """The middle of a prediction, and its tenth and ninetieth percentile."""
    if not predicted:
        return NONE
    return f"{duration(predicted['p50'])} ({duration(predicted['p10'])} to {duration(predicted['p90'])})"


def _seconds(planned: float) -> str:
    return duration(planned) if planned else NONE


def _amounts(costs: dict[str, Any], speed: str) -> list[str]:
    operations = f"{quantity(costs['flops'])}FLOP" if costs["flops"] else NONE
    return [
        duration(costs["cpu_s"]),
        quantity(costs["tokens"]) or NONE,
        speed,
        operations,
        energy(costs["energy_joules"]),
        f"{costs['money']:.3f}",
    ]


def lineage_section(log: RunLog) -> str:
    makers = log.makers
    if not makers:
        return ""
    kinds, inputs = {stage.name: stage.kind for stage in makers}, {stage.name: stage.inputs for stage in makers}
    note = (
        '<p class="note">Solid lines carry weights, dashed lines data or a teacher. Every checkpoint holds the same in spoutnik.json.</p>'
    )
    return f"<h2>Lineage</h2>{note}<figure>{lineage_graph(kinds, inputs)}</figure>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] | None = None) -> str:
    """An HTML table; the first column is text, the others are figures."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) + "</tr>"

    body = "".join(cells(row, "td") for row in rows)
    tail = f"<tfoot>{cells(foot, 'td')}</tfoot>" if foot else ""
    return f'<div class="table"><table><thead>{cells(heads, "th")}</thead><tbody>{body}</tbody>{tail}</table></div>'


def percent(share: Any) -> str:
    return f"{share:.1%}" if isinstance(share, int | float) else NONE


def quantity(number: float) -> str:
    """1,234,567 -> "1.23 M"."""
    for size, sign in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {sign}"
    return f"{number:.3g} " if number else ""


def energy(joules: float) -> str:
    """In watt-hours."""
    hours = joules / 3600
    return f"{hours / 1000:.2f} kWh" if hours >= 1000 else f"{hours:.3g} Wh"


def energy_source(log: RunLog) -> str:
    """Measured or estimated, and how; both where the stages differ."""
    return "; ".join(dict.fromkeys(stage.costs["energy_source"] for stage in log.stages if stage.costs.get("energy_source"))) or "not known"
