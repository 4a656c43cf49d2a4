"""report.html: one self-contained page about a run, made from its record alone. No script, no font, no image from elsewhere."""

import html
import time
from importlib.resources import files
from pathlib import Path

from spoutnik.run.directory import RunDirectory, write_whole
from spoutnik.run.record import Event, read
from spoutnik.run.report_data import RunLog, sort_events
from spoutnik.run.report_results import (
    accuracy_section,
    contamination_section,
    cost_section,
    key_figures,
    lineage_section,
    measure_section,
    summary,
    text_section,
)
from spoutnik.run.report_teachers import teachers_section
from spoutnik.run.report_training import (
    health_section,
    held_out_section,
    learning_section,
    length_section,
    monitor_section,
    router_section,
    samples_section,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page holds text that models wrote: it is escaped, and the browser is told to fetch and run nothing."""


def write_report(directory: RunDirectory) -> Path:
    """Writes the run's report.html, whole or not at all; a run that is not finished gets a report of what there is."""
    write_whole(directory.report_path, render(read(directory.record_path)))
    return directory.report_path


def render(events: list[Event]) -> str:
    """The page for these events."""
    log = sort_events(events)
    sections = [
        accuracy_section(log),
        contamination_section(log),
        measure_section(log),
        text_section(log),
        learning_section(log),
        held_out_section(log),
        length_section(log),
        monitor_section(log),
        samples_section(log),
        router_section(log),
        cost_section(log),
        teachers_section(events),
        lineage_section(log),
        health_section(log),
    ]
    style = files("spoutnik.run").joinpath("report.css").read_text(encoding="utf-8")
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{html.escape(log.recipe)}: report</title><style>{style}</style>"
    )
    header = f'<h1>{html.escape(log.recipe)}</h1><p class="summary">{summary(log)}</p>{key_figures(log)}'
    footer = f'<p class="note">{html.escape(_when(log, events))}</p>'
    body = f"<header>{header}</header><main>{''.join(sections)}</main><footer>{footer}</footer>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _when(log: RunLog, events: list[Event]) -> str:
    """Which run this was."""
    if not events:
        return "The record is empty."
    first, last = (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(event["time"])) for event in (events[0], events[-1]))
    seed = f" with seed {log.seed}" if log.seed is not None else ""
    return f"Recipe {log.recipe}{seed}, {first} to {last}. Made from record.jsonl, which holds every figure on this page."
