"""The loss on what pretraining never saw: the main head's alone, without further prediction and balance, so that variants compare."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from spoutnik.data.corpus import held_out_name
from spoutnik.data.tokens import TokenFile
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.train.balance import ExpertLoad
from spoutnik.train.losses import token_logprobs

ROWS = 16


@torch.no_grad()
def held_out(model: CausalLM, corpus: Path, sequence_length: int) -> dict[str, Any] | None:
    """A model on a corpus's held-out tokens, in rows of `sequence_length` (less where a source has less); None where there are none.

    `sources`: of each the predicted tokens, nats a token, and bits a byte (of the documents' text; their ends are predicted, too).
    `max_violation` and `dead_experts` as in training, but over all of these tokens; only for models with experts.
    """
    sources = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))["sources"]
    if not all("held_out" in source for source in sources):
        return None
    load, found = ExpertLoad(), []
    for index, source in enumerate(sources):
        tokens = TokenFile(corpus / held_out_name(index), model.config.vocab_size)
        length = min(sequence_length, len(tokens))
        ids_NT = tokens.batch(0, len(tokens) // length, length).to(model.lm_head.weight.device)
        nats = 0.0
        for ids_BT in ids_NT.split(ROWS):
            routing = Routing()
            logits_BTV = model.head(model.hidden(ids_BT, routing=routing)[:, :-1])
            nats -= float(token_logprobs(logits_BTV, ids_BT[:, 1:]).double().sum())
            load.add(routing)
        predicted = len(ids_NT) * (length - 1)
        bits_per_byte = nats / predicted / math.log(2) * source["held_out"]["tokens"] / source["held_out"]["bytes"]
        name = source["text"] if "text" in source else source["task"]["name"]
        found.append({"source": name, "tokens": predicted, "nats_per_token": nats / predicted, "bits_per_byte": bits_per_byte})
    return {"sources": found, **{key: value for key, value in load.metrics().items() if key != "load"}}
