"""What a supervised example teaches, and how examples become batches."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.examples import Example, batch_of, collate, encode, read_examples

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ANSWER = "3+4=7 yes\n</think>\n<answer>3+4</answer>"


def messages(answer, question="Make 7 from 3, 4."):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def with_template(tokenizer, template):
    return Tokenizer(tokenizer.backend, eos_token=tokenizer.special_tokens["eos_token"], chat_template=template)


def learned(example, tokenizer):
    return tokenizer.decode(example.ids[example.answer_start :])


def test_the_answer_with_its_thinking_and_the_end_of_the_turn_are_learned_and_nothing_else(tokenizer):
    example = encode(messages(ANSWER), tokenizer)
    prompt = tokenizer.render(messages(ANSWER)[:-1])
    assert prompt.endswith("<think>\n")
    assert tokenizer.decode(example.ids[: example.answer_start]) == prompt
    assert learned(example, tokenizer) == ANSWER + tokenizer.special_tokens["eos_token"]
    assert example.ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("opening", ["<think>", "<think>\n", ""])
def test_where_the_template_opens_the_thinking_the_answer_does_not_open_it_again(tokenizer, opening):
    assert encode(messages(opening + ANSWER), tokenizer) == encode(messages(ANSWER), tokenizer)


@pytest.mark.parametrize("opening", ["<think>", "<think>\n", ""])
def test_where_the_template_does_not_open_it_the_student_learns_to(tokenizer, opening):
    student = with_template(tokenizer, CHATML)
    assert learned(encode(messages(opening + ANSWER), student), student) == f"<think>\n{ANSWER}{tokenizer.special_tokens['eos_token']}"


def test_an_answer_without_thinking_stays_without(tokenizer):
    student = with_template(tokenizer, CHATML)
    assert learned(encode(messages("Seven."), student), student) == "Seven." + tokenizer.special_tokens["eos_token"]


def test_earlier_turns_are_prompt(tokenizer):
    turns = [*messages("Hello."), *messages(ANSWER)]
    example = encode(turns, tokenizer)
    assert "Hello." in tokenizer.decode(example.ids[: example.answer_start])
    assert learned(example, tokenizer).startswith(ANSWER)


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def test_both_forms_of_a_line_are_read_and_blank_lines_skipped(tmp_path, tokenizer):
    file = write(tmp_path / "data.jsonl", {"messages": messages(ANSWER)}, "", {"prompt": "Make 7 from 3, 4.", "completion": ANSWER})
    first, second = read_examples(file, tokenizer, 256)
    assert first == second


def test_a_stages_folder_stands_for_its_samples(tmp_path, tokenizer):
    write(tmp_path / "samples.jsonl", {"prompt": "a", "completion": "b"})
    assert len(read_examples(tmp_path, tokenizer, 256)) == 1


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_line_separators_within_a_text_do_not_cut_the_line(tmp_path, tokenizer, mark):
    file = write(tmp_path / "data.jsonl", {"prompt": "a", "completion": f"b{mark}c"})
    (example,) = read_examples(file, tokenizer, 256)
    assert learned(example, tokenizer).startswith(f"b{mark}c")


@pytest.mark.parametrize(
    "line",
    [
        "{not json", "[]", "3", '"text"', {}, {"prompt": "a"}, {"prompt": 1, "completion": "b"}, {"messages": []},
        {"messages": messages(ANSWER)[:1]}, {"messages": messages(ANSWER)[1:]}, {"messages": ["hello", "you"]},
        {"messages": [{"content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "b"}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_is_no_example_is_named(tmp_path, tokenizer, line):
    file = write(tmp_path / "data.jsonl", {"prompt": "a", "completion": "b"}, line)
    with pytest.raises(UserError, match=r"data\.jsonl, line 2 is not an example"):
        read_examples(file, tokenizer, 256)


def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, tokenizer):
    with pytest.raises(UserError, match="no data"):
        read_examples(tmp_path / "absent.jsonl", tokenizer, 256)
    with pytest.raises(UserError, match="no example"):
        read_examples(write(tmp_path / "empty.jsonl", ""), tokenizer, 256)
    with pytest.raises(UserError, match=r"line 1 has \d+ tokens, but the model's context is 20"):
        read_examples(write(tmp_path / "long.jsonl", {"prompt": "a" * 30, "completion": "b"}), tokenizer, 20)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(UserError, match="not UTF-8"):
        read_examples(tmp_path / "latin.jsonl", tokenizer, 256)


EXAMPLES = st.integers(1, 15).map(lambda count: [Example([index] * (1 + index * 7 % 11), 0) for index in range(count)])


@settings(max_examples=30)
@given(EXAMPLES, st.integers(1, 3), st.integers(0, 99))
def test_every_epoch_holds_every_example_once(examples, size, seed):
    epochs = 8 * size  # so many epochs fill whole pools of 8 batches
    seen = Counter(batch.ids[0] for step in range(epochs * len(examples) // size) for batch in batch_of(examples, step, size, seed))
    assert seen == dict.fromkeys(range(len(examples)), epochs)


@given(EXAMPLES, st.integers(1, 5), st.integers(0, 50))
def test_a_batch_depends_on_nothing_but_its_step(examples, size, step):
    assert batch_of(examples, step, size, 3) == batch_of(examples, step, size, 3)
    assert len(batch_of(examples, step, size, 3)) == size


def test_a_batch_holds_examples_of_like_length():
    examples = [Example([index] * (index + 1), 0) for index in range(64)]
    spreads = [max(lengths) - min(lengths) for step in range(8) if (lengths := [len(e.ids) for e in batch_of(examples, step, 8, 0)])]
    assert spreads == [7] * 8


@pytest.mark.parametrize("seeds_and_steps", [((1, 0), (2, 0)), ((1, 0), (1, 8))], ids=["seed", "epoch"])
def test_another_seed_or_epoch_puts_other_examples_of_one_length_together(seeds_and_steps):
    examples = [Example([index], 0) for index in range(32)]
    batches = [
        {frozenset(example.ids[0] for example in batch_of(examples, first + step, 4, seed)) for step in range(8)}
        for seed, first in seeds_and_steps
    ]
    assert len(batches[0] & batches[1]) < 4


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=5))
def test_collate_pads_on_the_right_and_masks_answers_only(shapes):
    rows = [[7] * (prompt + answer) for prompt, answer in shapes]
    ids_BT, mask_BT = collate(rows, [prompt for prompt, _ in shapes])
    assert ids_BT.shape == mask_BT.shape == (len(rows), max(map(len, rows)))
    for (prompt, answer), ids_T, mask_T in zip(shapes, ids_BT.tolist(), mask_BT.tolist(), strict=True):
        assert mask_T == [0.0] * prompt + [1.0] * answer + [0.0] * (len(ids_T) - prompt - answer)
        assert ids_T == [7] * (prompt + answer) + [0] * (len(ids_T) - prompt - answer)
