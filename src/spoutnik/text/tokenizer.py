"""Text to token ids and back, kept as Hugging Face's tokenizer.json and tokenizer_config.json."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

from spoutnik.errors import UserError
from spoutnik.text.r1_template import BOS, EOS, PAD, PLAIN_TOKENS, R1_TEMPLATE, SPECIAL_TOKENS

DEEPSEEK_CJK = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
DEEPSEEK_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Message = Mapping[str, Any]


class Tokenizer:
    """A `tokenizers.Tokenizer` with the special tokens and the chat template that its model was trained with.

    `eos_token_ids` holds every id that ends a turn: the tokenizer's own and those that generation_config.json names.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        pad_token: str | None = None,
        chat_template: str | None = None,
        more_eos_ids: Iterable[int] = (),
        config: Mapping[str, Any] | None = None,
    ):
        """`config` holds the remaining keys of tokenizer_config.json; they are written back as they came."""
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = {
            key: token for key, token in (("bos_token", bos_token), ("eos_token", eos_token), ("pad_token", pad_token)) if token
        }
        self.chat_template = chat_template
        self.config = dict(config or {})
        self.bos_token_id = self._id_of("bos_token")
        self.eos_token_id = self._id_of("eos_token")
        self.pad_token_id = self._id_of("pad_token")
        own = () if self.eos_token_id is None else (self.eos_token_id,)
        self.eos_token_ids: frozenset[int] = frozenset((*own, *more_eos_ids))
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def _id_of(self, key: str) -> int | None:
        token = self.special_tokens.get(key)
        if token is None:
            return None
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise UserError(f"the tokenizer's {key} is {token!r}, which its vocabulary does not hold: the tokenizer files do not match")
        return int(token_id)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of `text`. Special tokens written in the text become their ids; none is added unless asked."""
        return list(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of `ids`; bytes that form no whole character become U+FFFD, ids beyond the vocabulary vanish."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def render(self, messages: Sequence[Message], /, add_generation_prompt: bool = True, **variables: Any) -> str:
        """The prompt that the model's chat template makes of `messages` ({"role", "content"}); `variables` are the template's."""
        from spoutnik.text.template import render

        if self.chat_template is None:
            raise UserError("this tokenizer has no chat template, so it cannot hold a conversation: use a chat model or give plain prompts")
        return render(self.chat_template, messages, **{**self.template_variables(add_generation_prompt), **variables})

    def template_variables(self, add_generation_prompt: bool = True) -> dict[str, Any]:
        """What a chat template finds beside the messages."""
        return {"tools": None, "documents": None, **self.special_tokens, "add_generation_prompt": add_generation_prompt}

    def fingerprint(self) -> str:
        """Hex SHA-256 of all that decides which ids a text gets: equal fingerprints mean interchangeable token ids."""
        content = json.loads(self.backend.to_str())
        decisive = {key: content[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` loads."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {
            **self.config,
            **self.special_tokens,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "chat_template": self.chat_template,
        }
        self.backend.save(str(directory / "tokenizer.json"))
        present = {key: value for key, value in config.items() if value is not None}
        (directory / "tokenizer_config.json").write_text(
            json.dumps(present, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
        )

    @classmethod
    def from_dir(cls, directory: str | Path) -> Self:
        """Reads a Hugging Face directory; no code in it is run. Raises UserError for files that are missing or broken."""
        directory = Path(directory)
        file = directory / "tokenizer.json"
        if not file.is_file():
            raise UserError(f"{directory} holds no tokenizer.json: save the model with a fast tokenizer, or copy that file there")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file} is not a tokenizer that the `tokenizers` library can read ({error})") from error
        config = _read_json(directory / "tokenizer_config.json")
        template = _text(_chat_template(directory, config.pop("chat_template", None)), "chat_template", directory)
        named = {key: _text(_content(config.pop(key, None)), key, directory) for key in ("bos_token", "eos_token", "pad_token")}
        for unwanted in ("auto_map", "added_tokens_decoder"):  # code from the repository; a copy of what tokenizer.json says
            config.pop(unwanted, None)
        ends = _read_json(directory / "generation_config.json").get("eos_token_id")
        more = [] if ends is None else ends if isinstance(ends, list) else [ends]
        if not all(type(end) is int for end in more):
            raise UserError(f"{directory / 'generation_config.json'} gives eos_token_id as {ends!r}, expected numbers; repair it.")
        return cls(backend, **named, chat_template=template, more_eos_ids=more, config=config)


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    plain_tokens: Sequence[str] = PLAIN_TOKENS,
    digits: int = 3,
    chat_template: str = R1_TEMPLATE,
) -> Tokenizer:
    """Trains a byte-level BPE with DeepSeek-V3's pre-tokenizer; the same texts always give the same tokenizer.

    `vocab_size` counts everything; a corpus too small to fill it gives a smaller vocabulary. `special_tokens` get the first ids and start
    with the begin, end and padding tokens; `plain_tokens` get the last ones and survive decoding. Numbers are split into groups of at most
    `digits` digits: 3 as DeepSeek-V3 (report, section 4.1), 1 where the model shall learn to calculate. Every text can be encoded, since
    all 256 bytes are in the vocabulary.
    """
    floor = 256 + len(special_tokens) + len(plain_tokens)
    if vocab_size < floor:
        raise UserError(f"vocab_size is {vocab_size}, but 256 bytes and the added tokens alone need {floor}: ask for at least that")
    if not 1 <= digits <= 3:
        raise UserError(f"digits is {digits}, but numbers are split into groups of 1, 2 or 3 digits: choose one of these")
    if tuple(special_tokens[:3]) != (BOS, EOS, PAD):
        raise UserError(f"special_tokens must start with {BOS}, {EOS} and {PAD}, found {list(special_tokens[:3])}")
    backend = tokenizers.Tokenizer(models.BPE())
    splits = (rf"\p{{N}}{{1,{digits}}}", DEEPSEEK_CJK, DEEPSEEK_WORDS)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in splits]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(plain_tokens),
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_not_empty(texts), trainer)
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in plain_tokens])
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))])
    return Tokenizer(backend, bos_token=BOS, eos_token=EOS, pad_token=PAD, chat_template=chat_template)


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        empty = empty and not text
        yield text
    if empty:
        raise UserError("the corpus for the tokenizer holds no text to learn from: give at least a few sentences")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON ({error}): repair it or download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a JSON {type(content).__name__}, expected an object: repair it or download it again")
    return content


def _chat_template(directory: Path, from_config: Any) -> Any:
    """The template in its own file wins over the one in the configuration; of several named ones the `default` counts."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_bytes().decode("utf-8", "surrogateescape")
    if isinstance(from_config, list):
        named = [entry for entry in from_config if isinstance(entry, dict) and entry.get("name") == "default"]
        from_config = named[-1].get("template") if named else None
    return from_config


def _content(token: Any) -> Any:
    """A special token is written either as a string or as a serialised AddedToken."""
    return token.get("content") if isinstance(token, dict) else token


def _text(value: Any, name: str, directory: Path) -> str | None:
    """The value, if it is Unicode text or None."""
    if value is None or (isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)):
        return value
    raise UserError(f"{directory} gives {name} as {value!r:.80}, expected text; take the tokenizer files that belong to the model.")
