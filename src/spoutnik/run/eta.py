"""How long a recipe still takes: its stages' predicted times, corrected by how the finished ones went."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spoutnik.run.progress import duration

SHORT_S = 5.0
"""Of a shorter stage nothing is said."""
ENOUGH_S = 60.0
"""So many predicted seconds must have run before their error says anything of the rest."""


@dataclass
class Eta:
    """`expected` are predictions by stage in the order in which they run, as the record has them: {p10, p50, p90} seconds."""

    expected: Mapping[str, Mapping[str, float]]
    taken: dict[str, float] = field(default_factory=dict)

    def finish(self, stage: str, seconds: float) -> str | None:
        """Notes that a stage took so long and says what is left; nothing of a short one or one without prediction."""
        before = self.expected.get(stage)
        if before is None:
            return None
        self.taken[stage] = seconds
        if max(seconds, before["p50"]) < SHORT_S:
            return None
        left = self.left()
        rest = f"; about {duration(left)} left" if left else ""
        return f"{stage} took {duration(seconds)} (predicted {duration(before['p50'])}){rest}"

    def left(self) -> float:
        """Seconds that the stages which did not finish are expected to take."""
        predicted = sum(self.expected[stage]["p50"] for stage in self.taken)
        pace = sum(self.taken.values()) / predicted if predicted >= ENOUGH_S else 1.0
        return pace * sum(value["p50"] for stage, value in self.expected.items() if stage not in self.taken)
