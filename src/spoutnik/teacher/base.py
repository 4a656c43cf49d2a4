"""What a teacher is asked, what it gives, and the two interfaces: answers in text, and distributions over tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from torch import Tensor

Message = dict[str, str]
FinishReason = Literal["stop", "length", "refused"]
Provenance = dict[str, Any]
"""Where answers come from, JSON-able: teacher, model, endpoint, terms, and the words in which a user accepted them (see `terms`)."""


@dataclass(frozen=True)
class Question:
    """A conversation that ends with the user's turn. Equal questions with different `sample` numbers are different requests."""

    messages: tuple[Message, ...]
    sample: int = 0


@dataclass(frozen=True)
class Sampling:
    """`max_tokens` bounds an answer with its thinking. Temperature 1.0, every provider's default, is not sent: some models refuse it."""

    max_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Usage:
    """Tokens as the teacher counted them; `known` is False where it did not say and the most that there can have been stands here."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    known: bool = True


@dataclass(frozen=True)
class Answer:
    """`text` is what the user is meant to read, `reasoning` the thinking before it ("" where none was shown).

    `cost` is in billionths of the price's currency (see `money`), 0 for a local teacher.
    """

    text: str
    reasoning: str
    finish_reason: FinishReason
    usage: Usage
    cost: int = 0
    model: str = ""


@dataclass(frozen=True)
class Failure:
    """A question that got no answer, and why."""

    error: str


Done = Callable[[int, Answer | Failure], None]


class Teacher(Protocol):
    """Whoever answers questions in text. A context manager, for a ledger must be closed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...

    @property
    def name(self) -> str: ...

    @property
    def provenance(self) -> Provenance | None:
        """What must be written into everything that is made from the answers; None for weights of one's own."""
        ...

    def answers(self, questions: Sequence[Question], sampling: Sampling, done: Done) -> list[Answer | Failure]:
        """One result a question, in order. `done` hears each when it comes: which question's, and what it is.

        Raises UserError when going on is pointless (a cap, a wrong key) and KeyboardInterrupt when a stop was asked for; what was answered
        until then is not lost where the teacher keeps a ledger.
        """
        ...


class Distributions(Protocol):
    """Whoever says how likely every token is."""

    @property
    def fingerprint(self) -> str:
        """Of the tokenizer, by content (`Tokenizer.fingerprint`): equal sizes do not make equal ids."""
        ...

    def logprobs(self, ids_BT: "Tensor", mask_BT: "Tensor") -> "Tensor | TopK":
        """What could stand at each of the N masked places, row by row, given all that precedes it in its row.

        `ids_BT` are in the teacher's own ids, padded on the right. Natural log-probabilities of the whole vocabulary [N, V], float32, or
        the likeliest.
        """
        ...


@dataclass(frozen=True)
class TopK:
    """K tokens at each of N places, the likeliest: `ids` [N, K] (int64), `logprobs` [N, K] and `rest` [N] (float32).

    `rest` is the logarithm of the probability of all other tokens together, so nothing is missing: exp(logprobs) and exp(rest) sum to 1.
    """

    ids: "Tensor"
    logprobs: "Tensor"
    rest: "Tensor"
