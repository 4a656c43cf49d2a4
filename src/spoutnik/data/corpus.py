"""The corpus stage: draws documents from weighted sources, trains the tokenizer on them, and writes one file of tokens.

Traces are unlabelled: what a document claims may be right or wrong, as on the web. Only training problems are drawn, never held-out ones,
except for the files that `held_out_tokens` asks for, on which nothing trains.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path

from spoutnik.data.english import read_text
from spoutnik.data.tokens import TokenFile, write_tokens
from spoutnik.errors import UserError
from spoutnik.recipe.schema import CorpusStage, Source
from spoutnik.run import interrupt
from spoutnik.run.context import StageContext
from spoutnik.tasks import make
from spoutnik.tasks.base import HELD_OUT, TRAIN, split_of
from spoutnik.text.r1_template import EOS, R1_TEMPLATE
from spoutnik.text.template import render
from spoutnik.text.tokenizer import Tokenizer, train_bpe

TOKENIZER_DOCUMENTS = (2000, 20_000)
"""That the tokenizer of a small corpus is trained on, and of one above SMALL_TOKENS."""
SMALL_TOKENS = 200_000
_BATCH = 1000


@dataclass(frozen=True)
class Document:
    """One document and the index of the source that it came from."""

    source: int
    text: str


def documents(sources: list[Source], seed: int, set_aside: bool = False) -> Iterator[Document]:
    """An endless stream, a pure function of its arguments: each document's source is drawn by weight, its content by its index.

    With `set_aside`, texts that belong to the held-out split are left out, as problems always are.
    """
    makers = [_maker(source, seed, TRAIN, _texts(source, TRAIN if set_aside else None)) for source in sources]
    rng = random.Random(f"mixture/{seed}")
    drawn = [0] * len(sources)
    while True:
        chosen = rng.choices(range(len(sources)), [source.weight for source in sources])[0]
        yield Document(chosen, makers[chosen](drawn[chosen]))
        drawn[chosen] += 1


def held_out_documents(source: Source, seed: int) -> Iterator[str]:
    """Documents of one source that `documents(set_aside=True)` never holds: each held-out text once, or endless held-out problems."""
    texts = _texts(source, HELD_OUT)
    return map(_maker(source, seed, HELD_OUT, texts), range(len(texts)) if source.text else count())


def _texts(source: Source, split: str | None) -> list[str]:
    """A text source's documents, of one split or all; a text's content decides which one it belongs to."""
    texts = read_text(source.text) if source.text is not None else []
    return [text for text in texts if split is None or split_of("text", text) == split]


def _maker(source: Source, seed: int, split: str, texts: list[str]) -> Callable[[int], str]:
    """A function from the index of a document to its text."""
    if source.text is not None:

        @lru_cache(maxsize=1)
        def order(epoch: int) -> list[int]:
            return random.Random(f"text/{seed}/{epoch}").sample(range(len(texts)), len(texts))

        return lambda index: texts[order(index // len(texts))[index % len(texts)]]
    assert source.task is not None
    task = make(source.task.name, **source.task.options)

    def trace(index: int) -> str:
        problem = task.problem(split, seed, index)
        return prompt_of(problem.prompt) + task.trace(problem, random.Random(f"trace/{seed}/{index}"))

    return trace


def prompt_of(question: str) -> str:
    """A question as the R1 template asks it, without the beginning-of-sequence token, up to and with the opened thinking."""
    return render(R1_TEMPLATE, [{"role": "user", "content": question}], bos_token="", eos_token=EOS, add_generation_prompt=True)


def run_corpus(stage: CorpusStage, context: StageContext) -> None:
    """Writes tokenizer files, tokens.bin and corpus.json into the stage's folder. Deterministic, so a killed stage just starts again."""
    set_aside = stage.held_out_tokens > 0
    stream = documents(stage.sources, context.seed, set_aside)
    sample = list(islice(documents(stage.sources, context.seed, set_aside), TOKENIZER_DOCUMENTS[stage.tokens > SMALL_TOKENS]))
    tokenizer = train_bpe((document.text for document in sample), stage.vocab_size, digits=stage.digits)
    tokenizer.save(context.directory)
    counts = [0] * len(stage.sources)
    digest = hashlib.sha256()

    def ids() -> Iterator[list[int]]:
        assert tokenizer.eos_token_id is not None
        while sum(counts) < stage.tokens:
            interrupt.check()
            batch = list(islice(stream, _BATCH))
            for document, encoding in zip(
                batch, tokenizer.backend.encode_batch([document.text for document in batch], add_special_tokens=False), strict=True
            ):
                row = [*encoding.ids, tokenizer.eos_token_id]
                counts[document.source] += len(row)
                digest.update(document.text.encode())
                yield row
                if sum(counts) >= stage.tokens:
                    return
            progress.update(sum(counts), {})

    with context.progress(context.name, stage.tokens) as progress:
        total = write_tokens(context.directory / "tokens.bin", ids(), tokenizer.vocab_size)
    context.ledger.add(tokens=total)
    sources = [{**source.model_dump(exclude_none=True), "tokens": drawn} for source, drawn in zip(stage.sources, counts, strict=True)]
    if stage.held_out_tokens:
        for index, source in enumerate(stage.sources):
            sources[index]["held_out"] = _write_held_out(stage, source, context, tokenizer, context.directory / held_out_name(index))
    summary = {"tokens": total, "sha256": digest.hexdigest(), "vocab_size": tokenizer.vocab_size, "sources": sources}
    (context.directory / "corpus.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    context.log("sample", when="corpus", prompt="", text=sample[0].text, correct=None)
    context.log("step", step=1, tokens=total)


def _write_held_out(stage: CorpusStage, source: Source, context: StageContext, tokenizer: Tokenizer, path: Path) -> dict[str, int]:
    """Writes a source's held-out tokens, as many as were asked for or its texts hold; returns their number and that of their bytes."""
    assert tokenizer.eos_token_id is not None
    rows: list[list[int]] = []
    tokens = size = 0
    for text in held_out_documents(source, context.seed):
        rows.append([*tokenizer.backend.encode(text, add_special_tokens=False).ids, tokenizer.eos_token_id])
        tokens, size = tokens + len(rows[-1]), size + len(text.encode())
        if tokens >= stage.held_out_tokens:
            break
    if not rows:
        raise UserError(f"The text source {source.text!r} is too short to set a part of it aside; give it more text or no held_out_tokens.")
    write_tokens(path, rows, tokenizer.vocab_size)
    return {"tokens": tokens, "bytes": size}


def held_out_name(index: int) -> str:
    """The file with the held-out tokens of a corpus's source."""
    return f"held-out-{index}.bin"


def open_corpus(directory: Path) -> tuple[TokenFile, Tokenizer]:
    """The tokens and the tokenizer that a corpus stage left in its folder."""
    tokenizer = Tokenizer.from_dir(directory)
    return TokenFile(directory / "tokens.bin", tokenizer.vocab_size), tokenizer
