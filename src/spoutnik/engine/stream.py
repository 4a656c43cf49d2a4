"""An answer as it is made: the engine's events of one request, with the thinking set apart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion, Event, Request
from spoutnik.text.reasoning import ThinkParser, split


@dataclass(frozen=True)
class Piece:
    """What one more token added to an answer; both texts are empty while a character or a think tag is incomplete."""

    text: str
    """Of the answer."""
    reasoning: str = ""
    """Of the thinking before it."""
    completion: Completion | None = None
    """The whole, in the last piece."""


class Reader:
    """Makes pieces of one streamed request's events, in order. `thinking` is whether the prompt left `<think>` open."""

    def __init__(self, thinking: bool) -> None:
        self._parser, self._thinking = ThinkParser(thinking), thinking

    def read(self, event: Event) -> Piece:
        """The event's piece; the pieces' texts join to those of the last one's completion."""
        reasoning, text = self._parser.feed(event.text)
        if event.completion is None:
            return Piece(text, reasoning)
        last_reasoning, last_text = self._parser.close()
        return Piece(text + last_text, reasoning + last_reasoning, apart(event.completion, self._thinking))


def plain(event: Event) -> Piece:
    """The piece of an event whose text is no conversation: think tags in it are text."""
    return Piece(event.text, completion=event.completion)


def apart(completion: Completion, thinking: bool) -> Completion:
    """The completion with its thinking and its answer set apart; see `split`."""
    reasoning, text = split(completion.text, thinking)
    return replace(completion, text=text, reasoning=reasoning or None)


def stream(
    engine: Engine, request: Request, read: Callable[[Event], Piece], cancelled: Callable[[], bool] = lambda: False
) -> Iterator[Piece]:
    """Runs one request on an idle engine and yields what `read` makes of its events.

    When `cancelled` says so, asked after every step, the answer ends with what is there. Leaving the loop early ends it, too.
    """
    if engine.busy:
        raise RuntimeError("stream() needs an idle engine; finish or leave the answer that is being streamed before")
    training = engine.model.training
    request_id = engine.add(replace(request, stream=True))
    try:
        while engine.busy:
            for event in engine.step():
                yield read(event)
            if cancelled():
                engine.cancel(request_id)
    finally:
        if engine.busy:  # the loop was left
            engine.cancel(request_id)
            engine.step()
        engine.model.train(training)
