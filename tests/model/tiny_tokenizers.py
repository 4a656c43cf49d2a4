"""Tokenizers made of others."""

import json

import tokenizers

from spoutnik.text.tokenizer import Tokenizer


def renumbered(tokenizer, added=()):
    """The same tokenizer with other ids, and further added tokens."""
    content = json.loads(tokenizer.backend.to_str())
    last = len(content["model"]["vocab"]) - 1
    content["model"]["vocab"] = {token: last - index for token, index in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        token["id"] = content["model"]["vocab"].get(token["content"], token["id"])
    content["added_tokens"].sort(key=lambda token: token["id"])
    content["post_processor"] = None
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.add_special_tokens(list(added))
    return Tokenizer(backend, **tokenizer.special_tokens, chat_template=tokenizer.chat_template)
