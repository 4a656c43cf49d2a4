"""What a stage function is given besides its own settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoutnik.run.ledger import Ledger
from spoutnik.run.progress import Progress
from spoutnik.run.record import Record

if TYPE_CHECKING:
    from spoutnik.recipe.teachers import TeacherSpec


@dataclass
class StageContext:
    """Signature of every stage: `run_X(stage: XStage, context: StageContext) -> None`.

    directory       the stage's own folder, for its state while it works and for files it hands on (samples.jsonl, token files)
    checkpoint_dir  where the finished Hugging Face directory goes
    resolve         name of an earlier stage -> its checkpoint folder (models), or its own folder (corpus and sample stages);
                    any other name -> where that model is. Raises UserError.
    seed            of this stage alone
    save_every_s    seconds between saved states; save_every_steps, where above 0, counts steps instead
    lineage         what goes into the checkpoint's spoutnik.json: recipe, stage, its definition and hash, seed, parents, and the
                    teachers of all that it builds on, if any
    teachers        the recipe's [[teacher]] tables by name
    """

    name: str
    directory: Path
    checkpoint_dir: Path
    resolve: Callable[[str], Path]
    record: Record
    ledger: Ledger
    seed: int
    save_every_s: float = 60.0
    save_every_steps: int = 0
    progress: Callable[..., Progress] = Progress
    lineage: dict[str, Any] = field(default_factory=dict)
    teachers: "dict[str, TeacherSpec]" = field(default_factory=dict)

    def log(self, event: str, **values: Any) -> None:
        """Appends an event of this stage to the record."""
        self.record.append({"event": event, "stage": self.name, **values})
