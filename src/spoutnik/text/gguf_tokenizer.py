"""A tokenizer and its chat template rebuilt from the metadata of a GGUF file.

GGUF stores vocabulary and merges, but of the pre-tokenizer only a name; what a name means stands in llama.cpp (llama-vocab.cpp) and in
the tokenizer.json of the models that it was made for.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import PreTokenizer

from spoutnik.errors import UserError
from spoutnik.text.tokenizer import DEEPSEEK_CJK, DEEPSEEK_WORDS, Tokenizer

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _splits(*patterns: str) -> PreTokenizer:
    """Cuts by each pattern in turn, then writes bytes as printable characters."""
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()]),
    "llama-bpe": lambda: _splits(LLAMA3),
    "qwen2": lambda: _splits(QWEN2),
    "deepseek-r1-qwen": lambda: _splits(QWEN2),
    "deepseek-v3": lambda: _splits(r"\p{N}{1,3}", DEEPSEEK_CJK, DEEPSEEK_WORDS),
}
COMPOSED = ("qwen2", "deepseek-r1-qwen")
"""These models' own tokenizers compose characters (Unicode NFC) first."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Token types: a control token vanishes from decoded text, a user-defined one is text that is never cut, an unused one is none at all."""


def from_gguf_fields(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the `tokenizer.*` fields of a GGUF file describe: byte-level BPE with a known pre-tokenizer.

    Raises UserError for another kind of tokenizer, for a pre-tokenizer of unknown name (guessing one would silently give other ids), and
    for fields that contradict each other.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise UserError(f"The GGUF's tokenizer is of kind {kind!r}; Spoutnik rebuilds 'gpt2' (byte-level BPE): use the model's safetensors")
    if pre not in PRE_TOKENIZERS:
        raise UserError(
            f"The GGUF names the pre-tokenizer {pre!r}; Spoutnik knows {', '.join(PRE_TOKENIZERS)}: use the model's safetensors"
        )
    tokens, types = _strings(metadata, "tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens):
        raise UserError("The GGUF's tokenizer.ggml.token_type does not have one entry per token; convert the model again")
    if len(set(tokens)) != len(tokens):
        raise UserError("The GGUF's vocabulary holds a token twice; convert the model again")
    vocabulary = {token: index for index, (token, type_) in enumerate(zip(tokens, types, strict=True)) if type_ != UNUSED}
    backend = tokenizers.Tokenizer(_bpe(vocabulary, _strings(metadata, "merges"), pre))
    backend.normalizer = normalizers.NFC() if pre in COMPOSED else None
    backend.pre_tokenizer = PRE_TOKENIZERS[pre]()
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(
        [
            AddedToken(token, special=type_ == CONTROL, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ in (CONTROL, USER_DEFINED)
        ]
    )
    bos = _token(metadata, tokens, "bos")
    if bos and metadata.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe"):
        backend.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=[(bos, tokens.index(bos))])
    template, ends = metadata.get("tokenizer.chat_template"), [metadata.get(f"tokenizer.ggml.{end}_token_id") for end in ("eot", "eom")]
    return Tokenizer(
        backend,
        bos_token=bos,
        eos_token=_token(metadata, tokens, "eos"),
        pad_token=_token(metadata, tokens, "padding"),
        chat_template=template if isinstance(template, str) else None,
        more_eos_ids=[end for end in ends if isinstance(end, int)],
    )


def _bpe(vocabulary: dict[str, int], merges: list[str], pre: str) -> models.BPE:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        return models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre == "llama-bpe")
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"The GGUF's merges do not fit its vocabulary ({error}); convert the model again") from error


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"The GGUF lacks the list of strings tokenizer.ggml.{name}; convert the model again")
    return value


def _token(metadata: Mapping[str, Any], tokens: list[str], name: str) -> str | None:
    token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if token_id is None:
        return None
    if type(token_id) is not int or not 0 <= token_id < len(tokens):
        raise UserError(f"The GGUF gives {name}_token_id as {token_id!r}, which its vocabulary of {len(tokens)} does not hold")
    return tokens[token_id]
