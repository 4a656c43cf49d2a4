"""An evaluation in words and tables."""

from collections.abc import Sequence

from spoutnik.cli.output import table
from spoutnik.evaluate.figures import Contamination, Estimate, Evaluation, Measure, Pair, Result

LEVEL = 0.05
"""A difference with a smaller p value is spoken of as one."""
NAMED = 3
"""So many models are named of those that the best one is held against."""
NONE = "-"


def headline(evaluation: Evaluation) -> str:
    """The answer, a line for each task: who solves most, which of the others less for certain, and which perhaps not."""
    return "\n".join(_sentence(evaluation, task.name) for task in evaluation.tasks)


def tables(evaluation: Evaluation) -> str:
    """A table of the models on each task, then one of the pairs."""
    parts = [_results(evaluation, [result for result in evaluation.results if result.task == task.name]) for task in evaluation.tasks]
    parts = [part for part in parts if part]
    parts += [_pairs(evaluation.pairs)] if evaluation.pairs else []
    parts += [_measures(evaluation.measures)] if evaluation.measures else []
    parts += [_contaminations(evaluation.contaminations)] if evaluation.contaminations else []
    return "\n\n".join([*parts, *_notes(evaluation)])


def _sentence(evaluation: Evaluation, task: str) -> str:
    ranked = sorted((result for result in evaluation.results if result.task == task), key=lambda result: -result.pass_at_1.value)
    if not ranked:
        return _measured(evaluation, task)
    best, *others = ranked
    sentence = f"{best.model} solves {best.pass_at_1.value:.1%} of {best.n:,} problems of {task}"
    if not others:
        return f"{sentence} (95% interval {_interval(best.pass_at_1)}).{_failures(ranked)}"
    chances = {other.model: _chance(evaluation, task, best, other) for other in others}
    beaten = [other for other in others if chances[other.model] < LEVEL]
    level = [other for other in others if chances[other.model] >= LEVEL]
    if len(others) == 1 and beaten:
        points = 100 * (best.pass_at_1.value - others[0].pass_at_1.value)
        return f"{sentence}, {points:.1f} points more than {others[0].model} ({_p(chances[others[0].model])}).{_failures(ranked)}"
    if beaten:
        most = max(chances[other.model] for other in beaten)
        sentence += f", more than {_names(beaten)} ({_p(most)}{' or less' if len(beaten) > 1 and most >= 0.001 else ''})"
    if level:
        least = min(chances[other.model] for other in level)
        more = " or more" if len(level) > 1 and least < 0.995 else ""
        sentence += f"{';' if beaten else ','} {_names(level)}: that is no proof of a difference ({_p(least)}{more})"
    return f"{sentence}.{_failures(ranked)}"


def _measured(evaluation: Evaluation, task: str) -> str:
    """Of a task without right and wrong: its first metric."""
    measures = [measure for measure in evaluation.measures if measure.task == task]
    if not measures:
        return f"No answer to {task} came."
    metric, chosen = measures[0].metric, measures[0].filter
    shown = [one for one in measures if (one.metric, one.filter) == (metric, chosen)]
    return f"{metric} on {measures[0].n:,} documents of {task}: {', '.join(f'{one.model} {one.value:.4g}' for one in shown)}."


def _chance(evaluation: Evaluation, task: str, best: Result, other: Result) -> float:
    """The p value of these two, corrected where there are more."""
    pair = next(pair for pair in evaluation.pairs if pair.task == task and {pair.a, pair.b} == {best.model, other.model})
    return pair.p if pair.p_holm is None else pair.p_holm


def _names(results: Sequence[Result]) -> str:
    """The first of them with what they solve, and how many more there are."""
    named = [f"{result.model} {result.pass_at_1.value:.1%}" for result in results[:NAMED]]
    rest = [f"{len(results) - NAMED} more"] if len(results) > NAMED else []
    *first, last = named + rest
    return f"{', '.join(first)} and {last}" if first else last


def _failures(results: Sequence[Result]) -> str:
    lost = [f"{result.failed:,} of {result.n * result.k:,} answers of {result.model}" for result in results if result.failed]
    return f" {' and '.join(lost)} never came and count as wrong: run the same command again." if lost else ""


def _results(evaluation: Evaluation, results: Sequence[Result]) -> str:
    if not results:
        return ""
    k = results[0].k
    several = [f"pass@{k}", "95%", f"cons@{k}", "95%"] if k > 1 else []
    heads = [results[0].task, "pass@1", "95%", *several, "cut off", "tokens/answer", "tokens/solved", "cost/solved", "Wh/solved"]
    rows = []
    for result in results:
        shares = [result.pass_at_1, *([result.pass_at_k, result.cons_at_k] if k > 1 else [])]
        cells = [cell for share in shares for cell in ((f"{share.value:.1%}", _interval(share)) if share else (NONE, NONE))]
        cost = NONE if result.cost_per_solved is None else f"{result.cost_per_solved:.3g} {result.currency}"
        energy = NONE if result.energy_kwh_per_solved is None else f"{1000 * result.energy_kwh_per_solved:.3g}"
        counts = [NONE if count is None else f"{count:,.0f}" for count in (result.tokens_per_answer, result.tokens_per_solved)]
        rows.append([result.model, *cells, f"{result.truncated:.1%}", *counts, cost, energy])
    return table([heads, *rows])


def _pairs(pairs: Sequence[Pair]) -> str:
    corrected = any(pair.p_holm is not None for pair in pairs)
    heads = ["task", "pass@1 of", "less that of", "points", "95%", "better on", "worse on", "p", *(["p (Holm)"] if corrected else [])]
    rows = [
        [
            pair.task, pair.a, pair.b, f"{100 * pair.difference.value:+.1f}",
            f"{100 * pair.difference.low:+.1f} to {100 * pair.difference.high:+.1f}", f"{pair.better:,}", f"{pair.worse:,}",
            *(_number(p) for p in ((pair.p, pair.p_holm) if corrected else (pair.p,)) if p is not None),
        ]
        for pair in pairs
    ]  # fmt: skip
    return table([heads, *rows])


def _measures(measures: Sequence[Measure]) -> str:
    """What lm-evaluation-harness makes of its tasks: every metric."""
    heads = ["task", "model", "metric", "filter", "n", "value", "95%"]
    rows = [
        [one.task, one.model, one.metric, one.filter, f"{one.n:,}", f"{one.value:.4f}",
         NONE if one.low is None else f"{one.low:.4f} to {one.high:.4f}"]
        for one in measures
    ]  # fmt: skip
    return table([heads, *rows])


def _contaminations(found: Sequence[Contamination]) -> str:
    """How many problems stand in training data, and what is solved of the others."""
    heads = [
        "task",
        "training data",
        "problems",
        "contaminated",
        "whole",
        "wording only",
        "model",
        "pass@1",
        "clean",
        "pass@1 of the clean",
        "95%",
    ]
    rows = []
    for one in found:
        counts = [f"{count:,}" for count in (one.problems, one.contaminated, one.whole, one.wording)]
        for model in one.models:
            reached = (f"{model.clean.value:.1%}", _interval(model.clean)) if model.clean else (NONE, NONE)
            rows.append([one.task, ", ".join(one.data), *counts, model.model, f"{model.all.value:.1%}", f"{model.n:,}", *reached])
    return table([heads, *rows])


def _notes(evaluation: Evaluation) -> list[str]:
    """What the tables cannot say."""
    results = evaluation.results
    notes = ["Intervals of differences are of one pair each; p (Holm) is corrected for all pairs."] if len(evaluation.pairs) > 1 else []
    unknown = list(dict.fromkeys(name for one in evaluation.contaminations for name in one.not_looked_into))
    notes += [f"What {', '.join(unknown)} was made of cannot be looked into."] if unknown else []
    notes += [f"Energy: {source}." for source in dict.fromkeys(result.energy_source for result in results if result.energy_source)]
    for reason, key in (
        ("could not be judged and count as wrong", "faulted"), ("were refused by the model and count as wrong", "refused"),
        ("came without their usage: the most that it can have been is counted", "usage_unknown"),
    ):  # fmt: skip
        notes += [
            f"{getattr(result, key):,} answers of {result.model} to {result.task} {reason}." for result in results if getattr(result, key)
        ]
    return ["\n".join(notes)] if notes else []


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def _p(p: float) -> str:
    return f"p {'' if p < 0.001 else '= '}{_number(p)}"


def _number(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
