"""A template in its own process writes what it writes here, and whatever else it does ends soon and harms nobody."""

import os
import time

import pytest

from spoutnik.errors import UserError
from spoutnik.text.r1_template import R1_TEMPLATE
from spoutnik.text.template import render
from spoutnik.text.template_process import TemplateProcess

ASK = [{"role": "user", "content": 'a "quoted" é 🙂 \ud800'}]


@pytest.fixture(scope="module")
def process():
    process = TemplateProcess(seconds=1.0)
    yield process
    process.close()


@pytest.mark.parametrize(
    "template", [R1_TEMPLATE, "{{ messages | tojson }}{{ tools }}{{ x }}", "{% generation %}{{ messages[0].content }}{% endgeneration %}"]
)
def test_it_writes_what_is_written_here(process, template):
    variables = {
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "template": "not the template",
        "messages_": [1, None, {"a": True}],
        "x": 1.5,
    }
    assert process.render(template, ASK, **variables) == render(template, ASK, **variables)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set n = namespace(x='xxxxxxxx') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x'.ljust(10 ** 9) | length }}",
        "{{ lipsum(n=10 ** 6) }}",
    ],
)
def test_what_takes_too_long_or_too_much_is_refused_and_the_next_one_is_served(process, template):
    with pytest.raises(UserError, match="chat template"):
        process.render(template, ASK)
    assert process.render("{{ messages | length }}", ASK) == "1"


def test_a_template_that_is_refused_says_why(process):
    with pytest.raises(UserError, match="no system message, please"):
        process.render("{{ raise_exception('no system message, please') }}", ASK)
    with pytest.raises(UserError, match="not valid Jinja"):
        process.render("{% for", ASK)
    with pytest.raises(UserError, match=r"refused|failed"):
        process.render("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}", ASK)


def test_it_ends_with_its_owner():
    process = TemplateProcess()
    process.render("", ASK)
    child = process._process.pid
    os.kill(child, 0)
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_process_that_was_killed_is_begun_anew():
    process = TemplateProcess()
    process.render("", ASK)
    process._process.kill()
    time.sleep(0.1)
    with pytest.raises(UserError):
        process.render("", ASK)
    assert process.render("x", ASK) == "x"
    process.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_nothing_can_be_opened_by_it(process):
    process.render("", ASK)
    with open(f"/proc/{process._process.pid}/status") as status:
        fields = dict(line.split(":\t") for line in status.read().splitlines() if ":\t" in line)
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
