"""Texts with OpenAI's own client: continued as by the engine alone, scored as the engine scores, filled in where the vocabulary can."""

import math

import httpx2
import openai
import pytest
from served import random_model, serving

from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.library import Model

TEXTS = ["the cat sat", "on the mat"]


def test_several_texts_are_continued_as_alone(tiny, client):
    response = client(tiny).completions.create(model="tiny", prompt=TEXTS, max_tokens=12, seed=3, n=2)
    assert [choice.index for choice in response.choices] == [0, 1, 2, 3]
    model = Model(tiny.engine.model, tiny.engine.tokenizer)
    for place, text in enumerate(TEXTS):
        assert response.choices[2 * place].text == model.generate([text], max_new_tokens=12, seed=3)[0].text
    assert response.usage.prompt_tokens == sum(len(tiny.engine.tokenizer.encode(text, add_special_tokens=True)) for text in TEXTS)


def test_a_stream_joins_to_the_whole(tiny, client):
    settings = {"model": "tiny", "prompt": TEXTS, "max_tokens": 12, "seed": 3, "echo": True, "logprobs": 2}
    whole = client(tiny).completions.create(**settings)
    texts, tokens, offsets = ["", ""], [[], []], [[], []]
    for chunk in client(tiny).completions.create(**settings, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.token_logprobs
            offsets[choice.index] += choice.logprobs.text_offset
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.token_logprobs for choice in whole.choices]
    assert offsets == [choice.logprobs.text_offset for choice in whole.choices]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_scores_the_prompt_as_the_engine_does(tiny, client, max_tokens):
    token_ids = tiny.engine.tokenizer.encode(TEXTS[0], add_special_tokens=True)
    (choice,) = (
        client(tiny)
        .completions.create(model="tiny", prompt=[token_ids], max_tokens=max_tokens, echo=True, logprobs=1, temperature=0)
        .choices
    )
    model, tokenizer = random_model()
    with serving(model, tokenizer) as other:
        scored = other.engine.score([Given(token_ids, 1)])[0]
    found = choice.logprobs.token_logprobs
    assert found[0] is None
    assert found[1 : len(token_ids)] == scored
    assert len(found) == len(choice.logprobs.tokens) == len(token_ids) + max_tokens
    assert choice.text.startswith(tokenizer.decode(token_ids))
    for logprob, top in zip(found[1:], choice.logprobs.top_logprobs[1:], strict=True):
        assert max(top.values()) >= logprob
        assert logprob in top.values()
    if max_tokens:
        assert found[-1] == max(choice.logprobs.top_logprobs[-1].values())  # greedy


def test_stop_strings_and_sampling_settings_reach_the_engine(tiny, client):
    settings = {"max_tokens": 30, "temperature": 0.7, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.25, "seed": 2}
    extra = {"top_k": 9, "min_p": 0.01, "repetition_penalty": 1.1}
    response = client(tiny).completions.create(model="tiny", prompt="the cat", stop=["a", "e"], **settings, extra_body=extra)
    model, tokenizer = random_model()
    with serving(model, tokenizer) as other:
        alone = other.engine.generate(
            [
                Request(
                    tokenizer.encode("the cat", add_special_tokens=True), 30, 0.7, 0.9, 9, ("a", "e"), derived(2), min_p=0.01,
                    presence_penalty=0.5, frequency_penalty=0.25, repetition_penalty=1.1,
                )
            ]
        )[0]  # fmt: skip
    assert response.choices[0].text == alone.text


def derived(seed):
    from spoutnik.engine.sampler import derive_seed

    return derive_seed(seed, 0)


def test_bias_forces_and_forbids_tokens(tiny, client):
    token = tiny.engine.tokenizer.encode(" cat")[0]
    response = client(tiny).completions.create(model="tiny", prompt="the", max_tokens=3, logit_bias={str(token): 100}, temperature=0)
    assert response.choices[0].text == tiny.engine.tokenizer.decode([token] * 3)


def test_a_gap_is_filled_where_there_are_tokens_for_it_and_refused_elsewhere(tiny, client):
    with pytest.raises(openai.BadRequestError, match="no tokens for that"):
        client(tiny).completions.create(model="tiny", prompt="def f(", suffix=")")
    model, tokenizer = random_model()
    tokenizer.backend.add_special_tokens(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"])
    from tiny_models import randomise, tiny_model

    from spoutnik.text.tokenizer import Tokenizer

    wider = Tokenizer(tokenizer.backend, bos_token=tokenizer.special_tokens["bos_token"], eos_token=tokenizer.special_tokens["eos_token"])
    model = tiny_model("llama", vocab_size=wider.vocab_size)
    randomise(model)
    with serving(model, wider) as running:
        beta = openai.OpenAI(base_url=f"{running.url}/beta", api_key="none")
        filled = beta.completions.create(model="tiny", prompt="the cat", suffix=" mat", max_tokens=5, seed=1).choices[0].text
        plain = beta.completions.create(
            model="tiny", prompt="<fim_prefix>the cat<fim_suffix> mat<fim_middle>", max_tokens=5, seed=1
        ).choices[0].text  # fmt: skip
        assert filled == plain


def test_embeddings_are_unit_means_of_hidden_states_in_both_encodings(tiny, client):
    texts = ["the cat", "the mat", "the cat"]
    plain = client(tiny).embeddings.create(model="tiny", input=texts, encoding_format="float")
    coded = client(tiny).embeddings.create(model="tiny", input=texts)
    assert all(one.embedding == pytest.approx(other.embedding, abs=1e-6) for one, other in zip(plain.data, coded.data, strict=True))
    assert plain.data[0].embedding == plain.data[2].embedding != plain.data[1].embedding
    assert math.hypot(*plain.data[0].embedding) == pytest.approx(1, abs=1e-5)
    short = client(tiny).embeddings.create(model="tiny", input="the cat", dimensions=7).data[0].embedding
    assert len(short) == 7
    assert math.hypot(*short) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="dimensions is 5000"):
        client(tiny).embeddings.create(model="tiny", input="the cat", dimensions=5000)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": []}, 400),
        ({"prompt": [[]]}, 400),
        ({"prompt": ["x"] * 300}, 400),
        ({"prompt": [[1, 100000]]}, 400),
        ({"prompt": [[-1]]}, 400),
        ({"prompt": "x", "logprobs": 21}, 400),
        ({"prompt": "x", "max_tokens": -1}, 400),
        ({"prompt": ["x"] * 200, "n": 2}, 400),
        ({"prompt": "cat " * 600}, 400),
        ({"prompt": "x", "model": "other"}, 404),
    ],
)
def test_a_faulty_request_is_refused_in_the_dialects_shape(tiny, body, status):
    response = httpx2.post(f"{tiny.url}/v1/completions", json={"model": "tiny", **body})
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
