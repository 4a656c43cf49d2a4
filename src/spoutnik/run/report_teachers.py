"""The report's section on teachers: who was asked, what it cost, and under which terms."""

import html
from collections.abc import Sequence

from spoutnik.run.record import Event
from spoutnik.run.report_results import quantity, table


def teachers_section(events: Sequence[Event]) -> str:
    """Empty where nobody was asked. Of a stage that was stopped and resumed, the last time counts."""
    bills = [event for event in events if event["event"] == "teacher"]
    asked = list({(event["stage"], event["teacher"], event.get("about")): event for event in bills}.values())
    if not asked:
        return ""
    heads = ["stage", "teacher", "requests", "answers", "tokens read", "tokens written", "worth", "spent so far", "possibly paid", "terms"]
    words = [f"Terms of {event['teacher']} accepted with: {event['accepted']}" for event in asked if event.get("accepted")]
    meaning = (
        "Worth is what the answers cost when they were given, perhaps to an earlier run. Spent so far, and possibly paid by attempts that "
        "were cut off, is the bill of all runs of this recipe."
    )
    rows = [
        [
            event["stage"], event["teacher"], f"{event['requests']:,}", f"{event['answers']:,}",
            *(quantity(event[key]) for key in ("prompt_tokens", "completion_tokens")),
            *(_money(event, key) for key in ("cost", "paid", "possibly_paid")), event.get("terms", "a model of one's own"),
        ]
        for event in asked
    ]  # fmt: skip
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in (meaning, *dict.fromkeys(words)))
    return f"<h2>Teachers</h2>{notes}{table(heads, rows)}"


def _money(event: Event, key: str) -> str:
    return f"{event.get(key, 0.0):.4f} {event.get('currency', '')}".strip()
