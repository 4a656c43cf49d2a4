"""cons@k: what the majority of k answers says, as DeepSeek-R1 reports it (arXiv 2501.12948, table 2), after Wang et al. (arXiv 2203.11171).

Votes are final answers in the form in which verifiers compare them, not texts: numbers by value, words without regard to white space and
case. The verdict plays no part in counting, so right answers that are written in different ways (two expressions of the same value, two
forms in LaTeX) do not add up.
"""

from collections import defaultdict
from collections.abc import Sequence

from spoutnik.tasks.base import Problem
from spoutnik.tasks.values import read_number


def has_votes(problems: Sequence[Problem]) -> bool:
    """Whether a vote makes sense: not where answers are programs, of which no two are written alike."""
    return not any(problem.task.startswith("code:") for problem in problems)


def ballot(problem: Problem, answer: str) -> str:
    """The form in which an answer is counted. Of `expression = value` only the part counts that the task's verifier judges."""
    if problem.task == "countdown":
        return "".join(answer.partition("=")[0].split())
    value = answer.rpartition("=")[2] if problem.task == "arithmetic" else answer
    number = read_number(value)
    return str(number) if number is not None else " ".join(answer.split()).casefold()


def consensus(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the most frequent of (ballot, right) is right, from 0 to 1. None abstains; 0 where nobody votes.

    A tie is drawn by lot, and this is the chance that the lot falls on a right answer, so neither the order of the answers nor another
    random number matters. R1's report does not say how it breaks ties.
    """
    parties: defaultdict[str, list[bool]] = defaultdict(list)
    for said, right in votes:
        if said is not None:
            parties[said].append(right)
    most = max(map(len, parties.values()), default=0)
    first = [right for party in parties.values() if len(party) == most for right in party]
    return sum(first) / len(first) if first else 0.0
