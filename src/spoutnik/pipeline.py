"""Carries a recipe: every stage in turn, finished ones skipped, the interrupted one resumed."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spoutnik import preflight
from spoutnik.device import HOST, computing_device, describe
from spoutnik.errors import UserError
from spoutnik.recipe import SAMPLE_KINDS, AnyStage, Recipe, is_data
from spoutnik.run import interrupt, machine
from spoutnik.run.context import StageContext
from spoutnik.run.directory import RunDirectory
from spoutnik.run.eta import Eta
from spoutnik.run.ledger import Costs, Ledger
from spoutnik.run.record import Record
from spoutnik.teacher import card
from spoutnik.teacher.base import Provenance
from spoutnik.teacher.terms import check_terms

STAGE_FUNCTIONS = {
    "corpus": "spoutnik.data.corpus:run_corpus",
    "pretrain": "spoutnik.train.pretrain:run_pretrain",
    "rl": "spoutnik.train.rl:run_rl",
    "traces": "spoutnik.train.traces:run_traces",
    "sample": "spoutnik.train.rejection:run_sample",
    "judge": "spoutnik.train.judged:run_judge",
    "sft": "spoutnik.train.sft:run_sft",
    "dpo": "spoutnik.train.preference:run_dpo",
    "logits": "spoutnik.train.logits:run_logits",
    "distill": "spoutnik.train.distill:run_distill",
    "eval": "spoutnik.evaluate.evaluate:run_eval",
}
StageFunction = Callable[[Any, StageContext], None]


def run_recipe(
    recipe: Recipe,
    out: Path,
    origin: str = "recipe",
    only: str | None = None,
    save_every_s: float = 60.0,
    save_every_steps: int = 0,
    functions: dict[str, StageFunction] | None = None,
    expected: Mapping[str, Mapping[str, float]] | None = None,
) -> RunDirectory:
    """Runs the stages of a recipe in `out`; with `only`, that stage and the unfinished ones that it builds on.

    Raises UserError before anything runs if the recipe cannot be carried out here, and KeyboardInterrupt after the state was saved when
    a stop was asked for. Calling it again with the same arguments goes on where it stopped. `functions` replaces stage functions by kind.
    `expected` are predictions by stage ({p10, p50, p90} in seconds, memory in bytes), for the record and for saying what is left.
    """
    directory = RunDirectory(out)
    stages, eta = wanted(recipe, only), Eta(expected or {})
    with directory.locked():
        pending = [stage for stage in stages if stage.kind == "report" or not directory.is_done(stage.name)]
        for stage in stages:
            _refuse_changed(directory, recipe, stage)
        preflight.check(recipe, pending, out, origin)
        record = Record(directory.record_path)
        if pending:
            record.append(
                {
                    "event": "run_start",
                    "recipe": recipe.name,
                    "seed": recipe.seed,
                    "spoutnik": _version(),
                    "machine": str(machine.inspect()),
                    "device": describe(computing_device()),
                }
            )
        with interrupt.between_steps():
            for stage in pending:
                if stage.kind == "report":
                    _write_report(directory)
                    continue
                function = (functions or {}).get(stage.kind) or _load(STAGE_FUNCTIONS[stage.kind])
                costs = _run_one(recipe, stage, directory, record, function, save_every_s, save_every_steps, eta.expected.get(stage.name))
                if said := eta.finish(stage.name, costs.wall_s):
                    print(said, file=sys.stderr, flush=True)
                machine.give_back_memory()
                interrupt.check()
    return directory


def definition(recipe: Recipe, stage: AnyStage) -> dict[str, Any]:
    """All that decides what a stage makes: its settings, its seed, and the same of the stages that it builds on (as a hash)."""
    settings = stage.model_dump(by_alias=True, mode="json", exclude={"minutes"})
    by_name = {other.name: other for other in recipe.stages}
    inputs = {name: digest(definition(recipe, by_name[name])) for name in stage.inputs().values() if name in by_name}
    asked = {spec.name: spec.decisive for spec in recipe.teachers if spec.name in stage.inputs().values()}
    return {**settings, "seed": recipe.stage_seed(stage.name), "inputs": inputs, **({"teachers": asked} if asked else {})}


def digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _run_one(
    recipe: Recipe,
    stage: AnyStage,
    directory: RunDirectory,
    record: Record,
    function: StageFunction,
    save_every_s: float,
    save_every_steps: int,
    predicted: Mapping[str, float] | None,
) -> Costs:
    """One stage, from its start or its newest state to its `done`."""
    folder = directory.stage(stage.name)
    defined = definition(recipe, stage)
    directory.begin(stage.name, defined)
    if not (folder / "latest").exists():  # a stage that saves no states begins anew
        record.truncate_stage(stage.name, 0)
    ledger = Ledger(folder / "ledger.json", recipe.price, accelerators=int(computing_device().type != HOST))
    lineage: dict[str, Any] = {
        "recipe": recipe.name,
        "stage": stage.name,
        "kind": stage.kind,
        "definition": defined,
        "definition_sha256": digest(defined),
    }
    teachers = _teachers(recipe, stage, directory)
    lineage |= {card.KEY: teachers} if teachers else {}
    context = StageContext(
        name=stage.name,
        directory=folder,
        checkpoint_dir=directory.checkpoint(stage.name),
        resolve=lambda name: resolve(recipe, directory, name),
        record=record,
        ledger=ledger,
        seed=recipe.stage_seed(stage.name),
        save_every_s=save_every_s,
        save_every_steps=save_every_steps,
        lineage={**lineage, "seed": recipe.stage_seed(stage.name), "parents": stage.inputs(), "spoutnik": _version()},
        teachers={spec.name: spec for spec in recipe.teachers},
    )
    foreseen = {"predicted": dict(predicted)} if predicted else {}
    context.log("stage_start", kind=stage.kind, inputs=stage.inputs(), definition=defined, minutes=stage.minutes, **foreseen)
    try:
        function(stage, context)
    finally:
        costs = ledger.save()
    for made in (folder / "samples.jsonl", folder / "header.json", context.checkpoint_dir / "config.json"):
        if teachers and made.exists():
            card.write_card(made.parent, f"{recipe.name}: {stage.name}", context.lineage, teachers)
    context.log("stage_end", kind=stage.kind, costs=vars(costs))
    directory.mark_done(stage.name)
    return costs


def _teachers(recipe: Recipe, stage: AnyStage, directory: RunDirectory) -> list[Provenance]:
    """Whose answers are in what this stage makes: of those it asks, and of all that it builds on. An evaluation makes nothing of them."""
    specs = {spec.name: spec for spec in recipe.teachers}
    inputs = stage.inputs().values()
    inherited = [card.teachers_of(resolve(recipe, directory, name)) for name in inputs if name not in specs]
    asked = [] if stage.kind == "eval" else [check_terms(specs[name]) for name in inputs if name in specs]
    return card.merge([*inherited, asked])


def resolve(recipe: Recipe, directory: RunDirectory, name: str) -> Path:
    """Where the thing is that a stage names: an earlier stage's checkpoint or folder, data, or a model."""
    for stage in recipe.stages:
        if stage.name == name:
            return directory.stage(name) if stage.kind in ("corpus", "logits", *SAMPLE_KINDS) else directory.checkpoint(name)
    return Path(name) if is_data(name) else preflight.find_model(name)


def wanted(recipe: Recipe, only: str | None) -> list[AnyStage]:
    """The stages to run: all, or `only` and what it builds on."""
    if only is None:
        return list(recipe.stages)
    by_name = {stage.name: stage for stage in recipe.stages}
    if only not in by_name:
        raise UserError(f"The recipe has no stage {only!r}; it has: {', '.join(by_name)}.")
    wanted, open_names = set(), [only]
    while open_names:
        name = open_names.pop()
        wanted.add(name)
        open_names += [parent for parent in by_name[name].inputs().values() if parent in by_name and parent not in wanted]
    return [stage for stage in recipe.stages if stage.name in wanted]


def _refuse_changed(directory: RunDirectory, recipe: Recipe, stage: AnyStage) -> None:
    """A stage that was begun with other settings is neither skipped nor resumed silently."""
    before = directory.definition(stage.name)
    now = definition(recipe, stage)
    if before is None or before == now or stage.kind == "report":
        return
    changed = next(key for key in [*now, *before] if before.get(key) != now.get(key))
    raise UserError(
        f"Stage {stage.name!r} in {directory.path} was made with {changed} = {_short(before.get(changed))}, "
        f"now it is {_short(now.get(changed))}; give another --out, put the old value back, or delete {directory.stage(stage.name)}."
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _write_report(directory: RunDirectory) -> None:
    _load("spoutnik.run.report:write_report")(directory)


def _load(target: str) -> Callable[..., Any]:
    """The function that "module:name" names; imported only when its stage comes."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _version() -> str:
    try:
        return version("spoutnik")
    except PackageNotFoundError:
        return "unknown"


def planned_minutes(stages: Iterable[AnyStage]) -> float:
    """What the recipe says these stages take."""
    return sum(stage.minutes for stage in stages)
