"""A run's record, sorted by what the report shows."""

from dataclasses import dataclass, field
from typing import Any

from spoutnik.run.record import Event
from spoutnik.run.report_svg import Point
from spoutnik.run.summary import latest, latest_evaluations


@dataclass
class StageLog:
    """What one stage wrote. `predicted` holds p10, p50 and p90 in seconds, where they were. `costs` and `held_out` are empty until the
    stage is finished."""

    name: str
    kind: str
    inputs: dict[str, str] = field(default_factory=dict)
    minutes: float = 0.0
    predicted: dict[str, float] = field(default_factory=dict)
    steps: list[Event] = field(default_factory=list)
    samples: list[Event] = field(default_factory=list)
    warnings: list[Event] = field(default_factory=list)
    held_out: Event = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)
    starts: int = 0

    def curve(self, metric: str) -> list[Point]:
        """(step, value) where the value is a finite number."""
        return [(event["step"], float(event[metric])) for event in self.steps if isinstance(event.get(metric), int | float)]


@dataclass(frozen=True)
class RunLog:
    recipe: str
    seed: int | None
    machine: str
    stages: list[StageLog]
    evaluations: list[Event]
    perplexities: list[Event]
    pairs: list[Event]
    measures: list[Event] = field(default_factory=list)
    contaminations: list[Event] = field(default_factory=list)

    def stage(self, name: str) -> StageLog | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def makers(self) -> list[StageLog]:
        """Stages that make something others build on."""
        return [stage for stage in self.stages if stage.kind not in ("eval", "report")]


def sort_events(events: list[Event]) -> RunLog:
    """Stages in the order in which they first began; of a stage begun several times, the last definition."""
    stages: dict[str, StageLog] = {}
    run: Event = {}
    for event in events:
        name, what = event.get("stage"), event["event"]
        if what == "run_start":
            run = event
        if not name:
            continue
        stage = stages.setdefault(name, StageLog(name, event.get("kind", "")))
        if what == "stage_start":
            stage.kind, stage.inputs, stage.minutes = event["kind"], event.get("inputs", {}), event.get("minutes", 0.0)
            stage.predicted = event.get("predicted", {})
            stage.starts += 1
        elif what == "stage_end":
            stage.costs = event.get("costs", {})
        elif what == "held-out":
            stage.held_out = event
        elif what in ("step", "sample", "warning"):
            {"step": stage.steps, "sample": stage.samples, "warning": stage.warnings}[what].append(event)
    return RunLog(
        run.get("recipe", "run"), run.get("seed"), run.get("machine", ""), list(stages.values()), latest_evaluations(events),
        latest(events, "perplexity", "model", "text"), latest(events, "pair", "task", "a", "b"),
        latest(events, "measure", "task", "model", "metric", "filter"), latest(events, "contamination", "task", "data"),
    )  # fmt: skip


def ancestors(log: RunLog, model: str) -> list[str]:
    """The models that a model was made from, nearest first."""
    found: list[str] = []
    stage = log.stage(model)
    while stage is not None and "from" in stage.inputs:
        found.append(stage.inputs["from"])
        stage = log.stage(stage.inputs["from"])
    return found
