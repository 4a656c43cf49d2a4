"""Our engine as a model of EleutherAI's lm-evaluation-harness, so that its tasks run in this process. It needs that installed.

What is asked of it: the likelihood of a continuation and whether it is what the model would say, the likelihood of a whole text, and text
until a stop string. Texts become tokens as for the harness's own Hugging Face models, so that scores are the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion, Request
from spoutnik.engine.sampler import derive_seed
from spoutnik.engine.scoring import Given
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import Message, Tokenizer

MAX_NEW_TOKENS = 256
"""The harness's own default where a task says nothing."""
LIKELY = -0.6931
"""Above ln(1/2) a token is the likeliest one, whatever the others are."""


def until_stop(text: str, stop: list[str]) -> str:
    """A text up to the first of these stop strings."""
    return str(postprocess_generated_text(text, stop, None))


Scored = tuple[Any, list[int], list[int]]
"""(text, token ids of the context, token ids of the continuation)."""


class EngineLM(TemplateLM):
    """An engine and its tokenizer, with the interface that the harness asks for."""

    def __init__(self, engine: Engine, name: str, seed: int = 0):
        super().__init__()
        self.engine, self.tokenizer, self._name, self._seed = engine, engine.tokenizer, name, seed
        self.max_length = engine.model.config.max_position_embeddings

    @property
    def _own(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        found = self._own.eos_token_id if self._own.eos_token_id is not None else min(self._own.eos_token_ids, default=None)
        if found is None:
            raise UserError(
                "The model's tokenizer has no end-of-sequence token, without which likelihoods of whole texts have no beginning."
            )
        return found

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by."""
        return self._own.bos_token_id if self._own.bos_token_id is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        """A part of the name under which the harness would cache prompts."""
        return self._name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """As Hugging Face's tokenizers do: with what the tokenizer puts before a text, unless the text begins with it."""
        if add_special_tokens is None:
            begin = self._own.decode([self.prefix_token_id])
            add_special_tokens = not (begin and string.startswith(begin))
        return self._own.encode(string, add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the model's template writes it; without a generation prompt it ends with the last message's words."""
        messages: Sequence[Message] = chat_history
        prompt = self._own.render(messages, add_generation_prompt)
        if add_generation_prompt:
            return prompt
        last = chat_history[-1]["content"].strip()
        return prompt[: prompt.rindex(last) + len(last)]

    def _loglikelihood_tokens(self, requests: list[Scored], **_: Any) -> list[tuple[float, bool]]:
        """(sum of the log-probabilities, whether each token is the likeliest) of continuations. What is too long loses its beginning."""
        given = []
        for _text, context, continuation in requests:
            if len(continuation) >= self.max_length:
                raise UserError(f"A continuation has {len(continuation)} tokens, but the model's context holds {self.max_length}.")
            ids = (context + continuation)[-self.max_length :]
            given.append(Given(ids, len(ids) - len(continuation)))
        logprobs = self.engine.score(given)
        return [(sum(each), greedy) for each, greedy in zip(logprobs, self._are_greedy(given, logprobs), strict=True)]

    def _are_greedy(self, given: Sequence[Given], logprobs: Sequence[Sequence[float]]) -> list[bool]:
        """Asks what the model would say at tokens that are not likelier than all others together, and no further once it differs."""
        doubtful = [
            [one.prompt_tokens + place for place, logprob in enumerate(each) if logprob <= LIKELY]
            for one, each in zip(given, logprobs, strict=True)
        ]
        greedy, open_ = [True] * len(given), [index for index, places in enumerate(doubtful) if places]
        step = 0
        while open_:
            asked = [Request(given[index].token_ids[: doubtful[index][step]], 1, temperature=0.0) for index in open_]
            for index, completion in zip(open_, self.engine.generate(asked), strict=True):
                greedy[index] = completion.token_ids[0] == given[index].token_ids[doubtful[index][step]]
            step += 1
            open_ = [index for index in open_ if greedy[index] and step < len(doubtful[index])]
        return greedy

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts; long ones are cut into windows, each token being predicted once."""
        windows, owners = [], []
        for owner, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            pairs = get_rolling_token_windows(ids, self.prefix_token_id, max_seq_len=self.max_length - 1, context_len=1)
            found = [("", *make_disjoint_window(pair)) for pair in pairs]
            windows += found
            owners += [owner] * len(found)
        given = [Given([*context, *continuation], len(context)) for _, context, continuation in windows]
        totals = [0.0] * len(requests)
        for owner, logprobs in zip(owners, self.engine.score(given), strict=True):
            totals[owner] += sum(logprobs)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The texts up to the first stop string, which is left out. What is too long for its answer loses its beginning."""
        settings = [dict(normalize_gen_kwargs(request.args[1], MAX_NEW_TOKENS)) for request in requests]
        asked = [
            self.request(request.args[0], each, derive_seed(self._seed, index))
            for index, (request, each) in enumerate(zip(requests, settings, strict=True))
        ]
        answers = self.engine.generate(asked)
        return [self.text(completion, each["until"]) for completion, each in zip(answers, settings, strict=True)]

    def text(self, completion: Completion, until: list[str]) -> str:
        """What was written up to the first of these stop strings."""
        return until_stop(self._own.decode(completion.token_ids, skip_special_tokens=True), self._stops(until))

    def _stops(self, until: list[str]) -> list[str]:
        return list(handle_stop_sequences(list(until), eos=self._own.decode([self.eot_token_id])))

    def request(self, context: str, settings: Mapping[str, Any], seed: int) -> Request:
        """`settings` as the harness normalises them."""
        settings = dict(settings)
        stop = [text for text in self._stops(settings.pop("until")) if text]
        most = settings.pop("max_gen_toks")
        temperature = settings.pop("temperature", 1.0) if settings.pop("do_sample") else settings.pop("temperature", 0.0) * 0.0
        known = {key: settings.pop(key) for key in ("top_p", "top_k") if key in settings}
        if settings:
            raise UserError(f"The task asks for {min(settings)!r} in generation_kwargs, which the engine does not have; take it out.")
        if most >= self.max_length:
            raise UserError(f"The task asks for {most} tokens, but the model's context holds {self.max_length}; set max_gen_toks.")
        ids = self.tok_encode(context)[-(self.max_length - most) :]
        return Request(ids, most, temperature, stop=tuple(stop), seed=seed, **known)
