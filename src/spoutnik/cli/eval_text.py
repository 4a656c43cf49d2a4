"""An evaluation in words and tables."""

from collections.abc import Sequence

from spoutnik.cli.output import table
from spoutnik.evaluate.figures import Estimate, Evaluation, Pair, Result

LEVEL = 0.05
"""A difference with a smaller p value is spoken of as one."""
NONE = "-"


def headline(evaluation: Evaluation) -> str:
    """The answer, a line for each task: who solves most, by how much, and whether that can be chance."""
    return "\n".join(_sentence(evaluation, task.name) for task in evaluation.tasks)


def tables(evaluation: Evaluation) -> str:
    """A table of the models on each task, then one of the pairs."""
    parts = [_results(evaluation, [result for result in evaluation.results if result.task == task.name]) for task in evaluation.tasks]
    parts += [_pairs(evaluation.pairs)] if evaluation.pairs else []
    return "\n\n".join([*parts, *_notes(evaluation)])


def _sentence(evaluation: Evaluation, task: str) -> str:
    ranked = sorted((result for result in evaluation.results if result.task == task), key=lambda result: -result.pass_at_1.value)
    best = ranked[0]
    sentence = f"{best.model} solves {best.pass_at_1.value:.1%} of {best.n:,} problems of {task}"
    if len(ranked) == 1:
        return f"{sentence} (95% interval {_interval(best.pass_at_1)}).{_failures(ranked)}"
    second = ranked[1]
    pair = next(pair for pair in evaluation.pairs if pair.task == task and {pair.a, pair.b} == {best.model, second.model})
    p = pair.p if pair.p_holm is None else pair.p_holm
    if p >= LEVEL:
        return f"{sentence}, {second.model} {second.pass_at_1.value:.1%}: that is no proof of a difference ({_p(p)}).{_failures(ranked)}"
    points = 100 * (best.pass_at_1.value - second.pass_at_1.value)
    return f"{sentence}, {points:.1f} points more than {second.model} ({_p(p)}).{_failures(ranked)}"


def _failures(results: Sequence[Result]) -> str:
    lost = [f"{result.failed:,} of {result.n * result.k:,} answers of {result.model}" for result in results if result.failed]
    return f" {' and '.join(lost)} never came and count as wrong: run the same command again." if lost else ""


def _results(evaluation: Evaluation, results: Sequence[Result]) -> str:
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


def _notes(evaluation: Evaluation) -> list[str]:
    """What the tables cannot say."""
    results = evaluation.results
    notes = ["Intervals of differences are of one pair each; p (Holm) is corrected for all pairs."] if len(evaluation.pairs) > 1 else []
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
