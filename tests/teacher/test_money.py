"""Money is exact, and a bound is a bound."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.recipe import TeacherPrice
from spoutnik.teacher.base import Usage
from spoutnik.teacher.money import billionths, cost, money, most_prompt_tokens, worst_cost

PRICES = st.builds(
    TeacherPrice,
    prompt=st.floats(0, 100).map(lambda price: round(price, 6)), completion=st.floats(0, 100).map(lambda price: round(price, 6)),
    cached=st.none() | st.floats(0, 100).map(lambda price: round(price, 6)),
)  # fmt: skip
MESSAGES = st.lists(st.builds(lambda text: {"role": "user", "content": text}, st.text(max_size=50)), min_size=1, max_size=3)


@given(MESSAGES, st.integers(1, 10_000), PRICES, st.data())
def test_no_honest_bill_is_above_the_worst_case(messages, max_tokens, price, data):
    prompt = data.draw(st.integers(0, most_prompt_tokens(messages)))
    usage = Usage(prompt, data.draw(st.integers(0, max_tokens)), data.draw(st.integers(0, prompt)))
    assert cost(usage, price) <= worst_cost(messages, max_tokens, price)


@given(messages=MESSAGES)
def test_text_has_no_more_tokens_than_the_bound_says(messages, tokenizer):
    assert sum(len(tokenizer.encode(message["content"])) for message in messages) <= most_prompt_tokens(messages)


@given(st.integers(0, 10**7), st.integers(0, 10**7), PRICES)
def test_costs_are_those_of_exact_arithmetic_to_a_billionth(prompt, completion, price):
    exact = (Fraction(prompt) * Fraction(str(price.prompt)) + Fraction(completion) * Fraction(str(price.completion))) * 1000
    assert abs(cost(Usage(prompt, completion), price) - exact) <= 1


def test_amounts_are_shown_as_people_write_them():
    assert [money(amount, "USD") for amount in (0, 12_000, 15_000_000, 1_234_567_890)] == [
        "0.00 USD",
        "1.2e-05 USD",
        "0.015 USD",
        "1.23 USD",
    ]
    assert billionths(0.1 + 0.2) == 300_000_000
