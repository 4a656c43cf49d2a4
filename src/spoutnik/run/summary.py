"""The figures of a run, drawn from its record: what the report shows and `--json` prints."""

from typing import Any

from spoutnik.run.record import Event


def summarise(events: list[Event]) -> dict[str, Any]:
    """The run's recipe, its stages with their last metrics and costs, and every evaluation, on tasks and on general texts."""
    stages: dict[str, dict[str, Any]] = {}
    for event in events:
        name = event.get("stage")
        if not name:
            continue
        stage = stages.setdefault(name, {"kind": None, "steps": 0, "last": {}, "costs": None, "finished": False})
        if event["event"] == "stage_start":
            stage |= {"kind": event.get("kind"), "inputs": event.get("inputs", {}), "finished": False}
        elif event["event"] == "step":
            stage["steps"] = event["step"]
            stage["last"] = {key: value for key, value in event.items() if isinstance(value, int | float) and key not in ("time", "step")}
        elif event["event"] == "stage_end":
            stage |= {"costs": event.get("costs"), "finished": True}
    run = next((event for event in reversed(events) if event["event"] == "run_start"), {})
    evaluations = [{key: value for key, value in event.items() if key != "event"} for event in latest_evaluations(events)]
    return {
        "recipe": run.get("recipe"),
        "seed": run.get("seed"),
        "machine": run.get("machine"),
        "stages": stages,
        "evaluations": evaluations,
        "perplexities": [
            {key: value for key, value in event.items() if key != "event"} for event in latest(events, "perplexity", "model", "text")
        ],
    }


def latest_evaluations(events: list[Event]) -> list[Event]:
    """Every evaluation; of several of the same model on the same task in one stage, the last."""
    return latest(events, "eval", "model", "task")


def latest(events: list[Event], kind: str, *keys: str) -> list[Event]:
    """Every event of a kind; of several of one stage that have the same under `keys`, the last."""
    found = {(event["stage"], *(str(event[key]) for key in keys)): event for event in events if event["event"] == kind}
    return list(found.values())


def best_checkpoint(events: list[Event], candidates: list[str]) -> str | None:
    """Of the candidates, the one with the best accuracy on the task evaluated first, the later of equals; the last where none was."""
    evaluations = [event for event in latest_evaluations(events) if event["model"] in candidates]
    if not evaluations:
        return candidates[-1] if candidates else None
    task = evaluations[0]["task"]
    rivals = [event for event in evaluations if event["task"] == task]
    best: str = max(reversed(rivals), key=lambda event: event["accuracy"])["model"]
    return best
