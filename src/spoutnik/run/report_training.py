"""The report's view into the training: curves, lengths, router balance, rates of waste, samples of thinking, warnings."""

import html

from spoutnik.run.record import Event
from spoutnik.run.report_charts import Series, heat_map, line_chart
from spoutnik.run.report_data import RunLog, StageLog
from spoutnik.run.report_results import NONE, table

LEARNING = {
    "pretrain": [("loss", ["loss", "ce", "mtp_loss"], False)],
    "sft": [("loss", ["loss"], False)],
    "rl": [("reward", ["reward"], False), ("accuracy and format", ["accuracy", "format", "language", "faithful"], True)],
    "dpo": [
        ("loss", ["loss"], False),
        ("pairs whose better answer gained more", ["preferred"], True),
        ("gain", ["chosen_gain", "rejected_gain"], False),
    ],
    "distill": [
        ("loss", ["loss"], False),
        ("KL of the teacher to the student", ["forward_kl"], False),
        ("KL of the student to the teacher", ["reverse_kl"], False),
        ("accuracy", ["accuracy"], True),
    ],
}
WASTE = {"truncated": "cut off", "no_signal": "groups without signal", "clip_fraction": "clipped tokens"}
VERDICTS = {"True": ("right", "✓ right"), "False": ("wrong", "✗ wrong")}
SAMPLES = 3
"""Samples shown of each group, from its first on."""
HEALTH = {
    "grad_norm": "gradient norm",
    "kl": "KL to the reference",
    "entropy": "entropy",
    "mismatch": "mean gap of log-probs, sampler to trainer",
    "forward_gap": "mean gap of log-probs, sampler to torch modules",
    "learning_rate": "learning rate",
    "tokens_per_s": "tokens per second",
}


def learning_section(log: RunLog) -> str:
    """What each stage optimises, by step."""
    charts = []
    for stage in log.stages:
        for title, metrics, percent in LEARNING.get(stage.kind, []):
            series = [Series(metric.replace("_", " "), stage.curve(metric)) for metric in metrics]
            charts.append(line_chart(series, f"{stage.name}: {title}", percent=percent))
    note = "Thin: every step. Thick: the mean over a twenty-fifth of the steps. Every axis starts at zero."
    return _section("Learning curves", note, charts)


def held_out_section(log: RunLog) -> str:
    """What each pretrained model reached on tokens that it never saw."""
    rows = []
    for stage in log.stages:
        balance = [f"{stage.held_out[key]:.3g}" if key in stage.held_out else NONE for key in ("max_violation", "dead_experts")]
        for source in stage.held_out.get("sources", []):
            losses = [f"{source['nats_per_token']:.4f}", f"{source['bits_per_byte']:.4f}"]
            rows.append([stage.name, source["source"], f"{source['tokens']:,}", *losses, *balance])
    if not rows:
        return ""
    note = (
        "Of the main head alone, on tokens set aside from each source. The experts' figures are over all of these tokens: the largest load "
        "over the mean, less 1, in the worst layer, and experts with under a tenth of the mean."
    )
    heads = ["stage", "source", "tokens", "nats a token", "bits a byte", "violation", "dead experts"]
    return f'<h2>Held-out loss</h2><p class="note">{note}</p>{table(heads, rows)}'


def length_section(log: RunLog) -> str:
    """How much the model writes, and how much of the work was for nothing."""
    charts = []
    for stage in log.stages:
        charts.append(line_chart([Series("tokens", stage.curve("response_length"))], f"{stage.name}: tokens per response"))
        waste = [Series(name, stage.curve(metric)) for metric, name in WASTE.items()]
        charts.append(line_chart(waste, f"{stage.name}: shares that teach nothing", percent=True))
    note = (
        "A response is cut off at its largest length. A group whose samples all earn the same says nothing about which was better, so it "
        "is skipped; the update of a clipped token is left out."
    )
    return _section("Response length, truncation, groups without signal", note, charts)


def monitor_section(log: RunLog) -> str:
    """The reward against an independent check of the same samples."""
    charts = []
    for stage in log.stages:
        if not stage.curve("checked"):
            continue
        judged = [Series("rewarded as right", stage.curve("accuracy")), Series("right by the check", stage.curve("checked"))]
        charts.append(line_chart(judged, f"{stage.name}: right answers, by the reward and by the check", percent=True))
        doubts = [Series(metric, stage.curve(metric)) for metric in ("disputed", "overlooked", "unearned")]
        charts.append(line_chart(doubts, f"{stage.name}: shares in doubt", percent=True))
    note = (
        "A second judge that no policy is paid by looks at the same samples. Disputed: rewarded as right, rejected by it. Overlooked: the "
        "reverse. Unearned: the share of the reward that answers without a right result got, for instance for their format. A reward that "
        "rises while the check does not is being gamed."
    )
    return _section("The reward against an independent check", note, charts)


def router_section(log: RunLog) -> str:
    """Load of the experts, first and last, and its imbalance over time."""
    charts = []
    for stage in log.stages:
        loads = [event for event in stage.steps if event.get("load")]
        if not loads:
            continue
        charts.append(heat_map(loads[0]["load"], f"{stage.name}: load at step {loads[0]['step']:,}"))
        if len(loads) > 1:
            charts.append(heat_map(loads[-1]["load"], f"{stage.name}: load at step {loads[-1]['step']:,}"))
        charts.append(line_chart([Series("violation", stage.curve("max_violation"))], f"{stage.name}: largest load over the mean, less 1"))
        charts.append(line_chart([Series("dead", stage.curve("dead_experts"))], f"{stage.name}: experts with under a tenth of the mean"))
    note = "A row is a layer with experts, a field its share of the tokens over an even share. A cross marks an expert that got none."
    return _section("Router balance", note, charts)


def health_section(log: RunLog) -> str:
    """What tells an engineer that a run is sound, or why it is not."""
    charts = [
        line_chart([Series(metric, stage.curve(metric))], f"{stage.name}: {title}")
        for stage in log.stages
        for metric, title in HEALTH.items()
    ]
    return _section("Inside the training", "", charts) + _warnings(log)


def _warnings(log: RunLog) -> str:
    lines = [f"<li>{html.escape(f'{stage.name}{_at(event)}: {_words(event)}')}</li>" for stage in log.stages for event in stage.warnings]
    return f"<h3>Warnings</h3><ul>{''.join(lines)}</ul>" if lines else ""


def _at(event: Event) -> str:
    return f", step {event['step']:,}" if "step" in event else ""


def _words(event: Event) -> str:
    if "message" in event:
        return str(event["message"])
    return ", ".join(f"{key} = {value}" for key, value in event.items() if key not in ("event", "stage", "time", "step"))


def samples_section(log: RunLog) -> str:
    """Samples of thinking from early and late in each stage, as written."""
    parts = [_stage_samples(stage) for stage in log.stages if stage.samples]
    note = '<p class="note">As the models wrote them, not chosen by how they look.</p>'
    return f"<h2>Samples of thinking, early and late</h2>{note}{''.join(parts)}" if parts else ""


def _stage_samples(stage: StageLog) -> str:
    shown = []
    groups = dict.fromkeys((event.get("model", ""), event.get("when", "")) for event in stage.samples)
    for model, when in groups:
        name = f"{model}, {when}" if model else when
        for event in [event for event in stage.samples if (event.get("model", ""), event.get("when", "")) == (model, when)][:SAMPLES]:
            mark, verdict = VERDICTS.get(str(event.get("correct")), ("", "not graded"))
            prompt, text = (html.escape(str(event.get(key, "")).strip()) for key in ("prompt", "text"))
            head = f"<h4>{html.escape(f'{name}{_at(event)}')}: <b>{verdict}</b></h4>"
            shown.append(f'<div class="sample {mark}">{head}<pre class="prompt">{prompt}</pre><pre>{text}</pre></div>')
    return f'<h3>{html.escape(stage.name)}</h3><div class="charts">{"".join(shown)}</div>'


def _section(heading: str, note: str, charts: list[str]) -> str:
    """A heading over charts in two columns; nothing at all where there is no chart."""
    drawn = [f"<div>{chart}</div>" for chart in charts if chart]
    said = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f'<h2>{html.escape(heading)}</h2>{said}<div class="charts">{"".join(drawn)}</div>' if drawn else ""
