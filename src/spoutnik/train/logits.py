"""A teacher's distributions over given answers, written to disk once, so that a student learns from them without the teacher at hand."""

import json
from dataclasses import dataclass
from pathlib import Path

from spoutnik.model.flops import forward_flops
from spoutnik.recipe.distillation import LogitsStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.teacher.card import KEY
from spoutnik.teacher.local import LocalTeacher
from spoutnik.teacher.stored import LogitsWriter, Sizes
from spoutnik.train.examples import collate, read_examples
from spoutnik.train.scoring import computed_in

CHUNK = 16
"""Answers read at once."""


@dataclass
class Storing:
    """A step is a chunk of answers; what the files held after it stays when the stage goes on."""

    writer: LogitsWriter
    step: int = 0


def run_logits(stage: LogitsStage, context: StageContext) -> None:
    """Writes stored distributions (see `teacher/stored.py`) into the stage's folder."""
    teacher = LocalTeacher(stage.from_, context.resolve(stage.from_))
    examples = read_examples(context.resolve(stage.data), teacher.tokenizer, teacher.model.config.max_position_embeddings)

    def start(sizes: Sizes = (0, 0, 0), step: int = 0) -> Storing:
        return Storing(LogitsWriter(context.directory, teacher.vocab_size, stage.top_k, sizes), step)

    def load(folder: Path) -> Storing:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return start(content["sizes"], content["step"])

    def advance(state: Storing) -> dict[str, object]:
        part = examples[state.step * CHUNK : (state.step + 1) * CHUNK]
        texts, starts = [example.ids for example in part], [example.answer_start for example in part]
        ids_BT, mask_BT = collate(texts, starts, device=teacher.model.lm_head.weight.device)
        with computed_in(stage.dtype, ids_BT):
            logprobs_NV = teacher.logprobs(ids_BT, mask_BT).cpu()
        lengths = [len(example.ids) - example.answer_start for example in part]
        for example, logprobs in zip(part, logprobs_NV.split(lengths), strict=True):
            state.writer.add(example.ids, example.answer_start, logprobs)
        state.step += 1
        tokens = sum(len(example.ids) for example in part)
        context.ledger.add(tokens, forward_flops(teacher.model.config, tokens, ids_BT.shape[1]))
        return {"tokens": tokens}

    state = run_stage(context, -(-len(examples) // CHUNK), start, advance, _save, load)
    state.writer.close(teacher.fingerprint, teacher.tokenizer.chat_template, context.lineage.get(KEY, []))


def _save(state: Storing, folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps({"step": state.step, "sizes": state.writer.sync()}), encoding="utf-8")
