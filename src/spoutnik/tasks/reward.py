"""Rule rewards of DeepSeek-R1 (section 2.2.2 and its language consistency, Nature version 3.2.1): accuracy, format, language.

The parts stay apart, each in [0, 1]; the trainer weighs them. A completion is `reasoning</think>` and then one `<answer>...</answer>`.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.tasks.base import Problem, Task
from spoutnik.text import reasoning as think

_ANSWER_OPEN, _ANSWER_CLOSE = "<answer>", "</answer>"
ANSWER_TAGS = (_ANSWER_OPEN, _ANSWER_CLOSE)
_SCRIPTS = {"en": "LATIN", "zh": "CJK"}
_WORD = re.compile(r"[^\W\d_]+")
_NOT_ENGLISH = frozenset(
    word
    for words in (
        "der das und nicht ist ein eine mit auf für wir aber",  # German
        "le les des une est et dans pour avec nous mais donc",  # French
        "el los las una y es con por pero entonces que",  # Spanish
        "il gli della di che sono quindi",  # Italian
    )
    for word in words.split()
)


@dataclass(frozen=True)
class Reward:
    """`fault` says why the verifier gave no verdict (it hung or raised); accuracy is then 0 but must be counted apart, not trained on."""

    accuracy: float
    format: float
    language: float
    fault: str | None = None

    @property
    def faulted(self) -> bool:
        return self.fault is not None


def grade(task: Task, problem: Problem, completion: str, thinking: bool, language: str = "en") -> Reward:
    """Grades one completion; `thinking` says that the prompt already opened `<think>`.

    Accuracy looks only at the answer (`find_answer`) outside the thinking, whatever the format: 1.0 if `task.verify` accepts it.
    """
    reasoning, content = think.split(completion, thinking)
    accuracy, fault = 0.0, None
    answer = find_answer(task, problem, content)
    if answer is not None:
        try:
            accuracy = float(task.verify(problem, answer))
        except UserError:
            raise
        except Exception as error:  # a verifier may raise anything on hostile text; grade reports it
            fault = f"{type(error).__name__}: {error}"
    return Reward(accuracy, float(is_well_formed(completion, thinking)), language_consistency(reasoning, language), fault)


def find_answer(task: Task, problem: Problem, content: str) -> str | None:
    """What counts as the answer in `content`, the part after the thinking: the only answer block, unless the task has a rule of its own."""
    own: Callable[[Problem, str], str | None] | None = getattr(task, "extract", None)
    return own(problem, content) if own else extract_answer(content)


def extract_answer(content: str) -> str | None:
    """The text of the only answer block in `content`, the part after the thinking; None if there is none, several or an empty one."""
    if any(content.count(tag) != 1 for tag in ANSWER_TAGS):
        return None
    _, _, rest = content.partition(_ANSWER_OPEN)
    answer, closed, _ = rest.partition(_ANSWER_CLOSE)
    return answer.strip() or None if closed else None


def is_well_formed(completion: str, thinking: bool) -> bool:
    """Thinking that is not empty and is closed once, then one answer block and nothing else; no tag anywhere else."""
    if completion.count(think.CLOSE) != 1 or completion.count(think.OPEN) != (0 if thinking else 1):
        return False
    reasoning, content = think.split(completion, thinking)
    content = content.strip()
    return (
        bool(reasoning.strip())
        and not any(tag in reasoning for tag in ANSWER_TAGS)
        and content.startswith(_ANSWER_OPEN)
        and content.endswith(_ANSWER_CLOSE)
        and extract_answer(content) is not None
    )


def language_consistency(reasoning: str, language: str = "en") -> float:
    """Share of the thinking's words that are in the target language; 1.0 for a thinking without words.

    Rule: a word is a run of letters, and each Han character is a word of its own. A word is in the target language if all its letters are
    of that language's script; for English, a short closed list of frequent German, French, Spanish and Italian words is taken out again.
    """
    if language not in _SCRIPTS:
        raise UserError(f"language consistency knows {', '.join(_SCRIPTS)}, not {language!r}; choose one of them.")
    words = [word for run in _WORD.findall(reasoning) for word in _words(run)]
    if not words:
        return 1.0
    return sum(_belongs(word, language) for word in words) / len(words)


def _words(run: str) -> list[str]:
    """Cuts a run of letters before and after every Han character."""
    return re.findall(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+", run)


def _belongs(word: str, language: str) -> bool:
    if language == "en" and word.lower() in _NOT_ENGLISH:
        return False
    return all(unicodedata.name(letter, "").startswith(_SCRIPTS[language]) for letter in word)
