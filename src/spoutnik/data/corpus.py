"""The corpus stage: draws documents from weighted sources, trains the tokenizer on them, and writes one file of tokens.

Traces are unlabelled: what a document claims may be right or wrong, as on the web. Only training problems are drawn, never held-out ones.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from spoutnik.data.english import read_text
from spoutnik.data.tokens import TokenFile, write_tokens
from spoutnik.recipe.schema import CorpusStage, Source
from spoutnik.run import interrupt
from spoutnik.run.context import StageContext
from spoutnik.tasks import make
from spoutnik.text.r1_template import EOS, R1_TEMPLATE
from spoutnik.text.template import render
from spoutnik.text.tokenizer import Tokenizer, train_bpe

TOKENIZER_DOCUMENTS = 20_000
_BATCH = 1000


@dataclass(frozen=True)
class Document:
    """One document and the index of the source that it came from."""

    source: int
    text: str


def documents(sources: list[Source], seed: int) -> Iterator[Document]:
    """An endless stream, a pure function of its arguments: each document's source is drawn by weight, its content by its index."""
    makers = [_maker(source, seed) for source in sources]
    rng = random.Random(f"mixture/{seed}")
    drawn = [0] * len(sources)
    while True:
        chosen = rng.choices(range(len(sources)), [source.weight for source in sources])[0]
        yield Document(chosen, makers[chosen](drawn[chosen]))
        drawn[chosen] += 1


def _maker(source: Source, seed: int) -> Callable[[int], str]:
    """A function from the index of a document to its text."""
    if source.text is not None:
        texts = read_text(source.text)

        @lru_cache(maxsize=1)
        def order(epoch: int) -> list[int]:
            return random.Random(f"text/{seed}/{epoch}").sample(range(len(texts)), len(texts))

        return lambda index: texts[order(index // len(texts))[index % len(texts)]]
    assert source.task is not None
    task = make(source.task.name, **source.task.options)

    def trace(index: int) -> str:
        problem = task.problem("train", seed, index)
        return prompt_of(problem.prompt) + task.trace(problem, random.Random(f"trace/{seed}/{index}"))

    return trace


def prompt_of(question: str) -> str:
    """A question as the R1 template asks it, without the beginning-of-sequence token, up to and with the opened thinking."""
    return render(R1_TEMPLATE, [{"role": "user", "content": question}], bos_token="", eos_token=EOS, add_generation_prompt=True)


def run_corpus(stage: CorpusStage, context: StageContext) -> None:
    """Writes tokenizer files, tokens.bin and corpus.json into the stage's folder. Deterministic, so a killed stage just starts again."""
    stream = documents(stage.sources, context.seed)
    sample = list(islice(documents(stage.sources, context.seed), TOKENIZER_DOCUMENTS if stage.tokens > 200_000 else 2000))
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
    summary = {
        "tokens": total,
        "sha256": digest.hexdigest(),
        "vocab_size": tokenizer.vocab_size,
        "sources": [{**source.model_dump(exclude_none=True), "tokens": count} for source, count in zip(stage.sources, counts, strict=True)],
    }
    (context.directory / "corpus.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    context.log("sample", when="corpus", prompt="", text=sample[0].text, correct=None)
    context.log("step", step=1, tokens=total)


def open_corpus(directory: Path) -> tuple[TokenFile, Tokenizer]:
    """The tokens and the tokenizer that a corpus stage left in its folder."""
    tokenizer = Tokenizer.from_dir(directory)
    return TokenFile(directory / "tokens.bin", tokenizer.vocab_size), tokenizer
