"""What is known of a replica and of the requests that it has: enough to ask for them again elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spoutnik.engine.request import Begun, Request, Top
from spoutnik.serve.backend import Cost, Load, News, Shape
from spoutnik.serve.jobs import Job
from spoutnik.serve.replica import Link


@dataclass(eq=False)
class Member:
    """A replica as it is known here."""

    number: int
    link: Link
    life: str = ""
    """"" while it is not ready."""
    load: Load = field(default_factory=Load)
    jobs: "dict[int, Placed]" = field(default_factory=dict)
    asked: int = 0
    """Scores and embeddings under way."""

    @property
    def busy(self) -> int:
        """Requests under way."""
        return self.asked + sum(len(job.open) for job in self.jobs.values())

    @property
    def pages(self) -> int:
        """Of its cache."""
        return self.load.pages.used + self.load.pages.free + self.load.pages.cached

    def take_jobs(self) -> "list[Placed]":
        """All of them, out of its hands."""
        jobs, self.jobs = list(self.jobs.values()), {}
        return jobs


class _Answer:
    """A request, and what was drawn for it until now."""

    def __init__(self, request: Request):
        self.request, self.ended = request, False
        self._cost = self._before = Cost()
        self.token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._tops: list[Top] = []

    def note(self, news: News) -> News:
        """Takes an event; returns it with what replicas that were lost had spent before."""
        event, self._cost = news.event, self._before + news.cost
        self.token_ids += event.tokens
        self._logprobs += event.logprobs
        self._tops += event.top_logprobs
        self.ended = event.completion is not None
        return replace(news, cost=self._cost)

    def resume(self) -> Request:
        """What is still to be done, at whatever replica: what that spends comes on top."""
        self._before = self._cost
        return replace(self.request, begun=Begun(tuple(self.token_ids), tuple(self._logprobs), tuple(self._tops)))


class Placed(Job):
    """Requests that were submitted together, with all that is needed to ask for them again. They are at one replica at a time."""

    def __init__(self, requests: Sequence[Request], shape: Shape | None, leave: Callable[[], None]):
        super().__init__(len(requests), leave)
        self.shape, self.answers = shape, [_Answer(request) for request in requests]
        self.owner = (requests[0].owner, requests[0].adapter)
        self.member: Member | None = None
        self.number = -1
        self.indices: list[int] = []
        """Of the requests that the replica has, in its order."""
        self.settled = False
        """Whether it has accepted them."""
        self.losses = 0

    @property
    def open(self) -> list[int]:
        """The requests that have not ended."""
        return [index for index, answer in enumerate(self.answers) if not answer.ended]

    def tokens(self) -> Sequence[int]:
        """Of the first prompt and its answer."""
        return [*self.answers[0].request.prompt_ids, *self.answers[0].token_ids]

    def note(self, news: list[News]) -> None:
        """Takes what the replica wrote."""
        placed = [replace(one, index=self.indices[one.index]) for one in news]
        self.take([self.answers[one.index].note(one) for one in placed])
