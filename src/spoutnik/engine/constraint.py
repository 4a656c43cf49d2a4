"""What an answer may be, token by token: the seam between the engine and whatever knows a grammar."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """Follows one answer; it belongs to one request, which it sees from its first token on.

    Both methods may raise UserError: the request then ends with the reason "error", and nobody else notices.
    """

    @property
    def finished(self) -> bool:
        """Whether the answer is whole and nothing may follow. It then ends at once, without an end-of-sequence token."""
        ...

    def allowed(self) -> NDArray[np.uint32] | None:
        """A bit for each token that may come next: token t is bit t % 32 of word t // 32. Tokens beyond the words may not.

        The end-of-sequence tokens are among them where the answer may end. None allows everything, as while a model still thinks.
        """
        ...

    def advance(self, token: int) -> None:
        """Takes the next token, drawn or forced. It is not told of an end-of-sequence token."""
        ...
