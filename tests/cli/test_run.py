"""`spoutnik run` in a pipe: the answer alone on stdout as it is made, exit codes that scripts can trust, faults in one sentence."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import scripted_model
from tiny_adapters import matrices, write_adapter
from tiny_models import foresee, randomise, tiny_model

import spoutnik
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.cli.answer import Screen
from spoutnik.engine.kernels.build import compiler
from spoutnik.engine.stream import Piece
from spoutnik.text.tokenizer import Tokenizer, train_bpe

SOURCE = Path(__file__).parents[2] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
RUN = [sys.executable, "-m", "spoutnik", "run"]
THINKING, ANSWER = "one two", "three\x1b é four"
ENDLESS = "five six\n"


def save(path: Path, script: str, **settings) -> Path:
    tokenizer = train_bpe(["one two three four five six "] * 20, vocab_size=320)
    save_checkpoint(scripted_model(tokenizer, script, **settings), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Thinks and answers; its template, R1's, opens the thinking and ends in a line feed."""
    return save(tmp_path_factory.mktemp("models") / "model", f"{THINKING}</think> {ANSWER}")


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "endless", ENDLESS, max_position_embeddings=200_000)


def run(*arguments, stdin: bytes = b"", **settings):
    command = [*RUN, *(argument if isinstance(argument, bytes) else str(argument) for argument in arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, env=ENVIRONMENT, timeout=120, check=False, **settings)


def prompt_tokens(model: Path, content: str, *before) -> int:
    tokenizer = Tokenizer.from_dir(model)
    return len(tokenizer.encode(tokenizer.render([*before, {"role": "user", "content": content}])))


def test_the_answer_alone_goes_to_stdout_and_one_line_about_it_to_stderr(model):
    result = run(model, "a question", "--temperature", 0)
    assert (result.returncode, result.stdout.decode()) == (0, f"{ANSWER}\n")
    [line] = result.stderr.decode().splitlines()
    answer = spoutnik.load(model).chat([{"role": "user", "content": "a question"}])
    assert f"{answer.prompt_tokens} prompt tokens (0 cached) at " in line
    assert f"; {len(answer.token_ids)} new at " in line
    for part in ("first token", "processor seconds", " J "):
        assert part in line


@pytest.fixture(scope="module")
def foreseeing(tmp_path_factory):
    """A model whose multi-token prediction layer is always right."""
    tokenizer = train_bpe(["one two three four five six "] * 20, vocab_size=320)
    made = tiny_model("deepseek-v3", vocab_size=tokenizer.vocab_size)
    randomise(made, std=0.12)
    foresee(made)
    path = tmp_path_factory.mktemp("models") / "foreseeing"
    save_checkpoint(made, tokenizer, path)
    return path


@pytest.mark.skipif(compiler() is None, reason="only the kernels guess")
def test_right_guesses_are_told_and_change_nothing_but_their_number(foreseeing):
    def said(*options):
        result = run(foreseeing, "one", "--raw", "--max-new-tokens", 21, "--temperature", 0, "--json", *options)
        return json.loads(result.stdout)

    with_guesses, without = said(), said("--no-speculate")
    assert with_guesses["text"] == without["text"]
    assert with_guesses["usage"] == without["usage"] | {"drafted_tokens": 10, "accepted_tokens": 10}
    assert without["usage"]["drafted_tokens"] == 0
    line = run(foreseeing, "one", "--raw", "--max-new-tokens", 21, "--temperature", 0).stderr.decode().splitlines()[-1]
    assert "; 21 new at " in line
    assert " (10 of 10 guesses right); " in line


def test_piped_text_follows_the_prompt_after_a_blank_line_and_json_holds_the_whole(model):
    system = {"role": "system", "content": "be short"}
    result = run(
        model, "résumé", "--system", "be short", "--json", "--price", "kwh=3.6e6", "--price", "currency=CHF",
        stdin="\ufefffirst line\n  second line\r\n\n".encode(),
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")
    said = json.loads(result.stdout)
    assert (said["text"], said["reasoning"], said["finish_reason"]) == (f" {ANSWER}", THINKING, "stop")
    assert said["usage"]["prompt_tokens"] == prompt_tokens(model, "résumé\n\nfirst line\n  second line", system)
    assert said["usage"]["completion_tokens"] == len(Tokenizer.from_dir(model).encode(f"{THINKING}</think> {ANSWER}")) + 1
    assert 0 < said["timing"]["first_token_s"] < said["timing"]["last_token_s"]
    assert min(said["timing"]["prompt_tokens_per_s"], said["timing"]["completion_tokens_per_s"], said["cost"]["cpu_s"]) > 0
    assert said["cost"]["money"] == pytest.approx(said["cost"]["energy_joules"])
    assert said["cost"]["currency"] == "CHF"


def test_a_piped_question_needs_no_prompt_and_a_cut_answer_is_called_one(model):
    result = run(model, "--thinking", "show", "--max-new-tokens", 1, stdin=b"a question\n")
    assert (result.returncode, result.stdout) == (0, b"")
    shown, cut, line = result.stderr.decode().splitlines()
    assert shown == f"  {THINKING.split()[0]}"
    assert "--max-new-tokens" in cut
    assert line.startswith(f"{prompt_tokens(model, 'a question')} prompt tokens ")


def test_on_a_terminal_the_thinking_is_dim_and_no_control_character_gets_through(model):
    """In a pipe the answer keeps every character; a terminal would obey some."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*RUN, str(model), "a question"], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert seen.decode().startswith(f"\x1b[2m  {THINKING}\x1b[0m\r\n\r\nthree é four\r\n")


def _read(descriptor: int) -> bytes:
    """What a terminal shows next; nothing at its end, which Linux calls an error."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize("command", ["run", "chat"])
def test_an_adapter_answers(model, command, tmp_path):
    """The scripted model's layers add nothing: what an adapter makes of its network drowns the script out."""
    tensors = matrices(spoutnik.load(model).model, lambda name: ".mlp." in name, std=1.0)
    folder = write_adapter(tmp_path / "adapter", tensors)
    arguments = [sys.executable, "-m", "spoutnik", command, str(model), "a question", "--max-new-tokens", "8", "--json", "--adapter"]
    found = subprocess.run(
        [*arguments, str(folder)], stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert (found.returncode, found.stderr) == (0, b"")
    message = [{"role": "user", "content": "a question"}]
    dtype = "bfloat16" if compiler() else "float32"
    answer = spoutnik.load(model, dtype=dtype, adapters={"own": folder}).chat(message, max_new_tokens=8, adapter="own")
    said = json.loads(found.stdout)
    assert (said["text"], said["reasoning"]) == (answer.text, answer.reasoning)
    assert answer.token_ids != spoutnik.load(model, dtype=dtype).chat(message, max_new_tokens=8).token_ids
    refused = subprocess.run(
        [*arguments, str(model)], stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT, timeout=120, check=False
    )
    assert (refused.returncode, refused.stdout) == (1, b"")
    [sentence] = refused.stderr.decode().splitlines()
    assert "adapter_config.json" in sentence


def test_raw_continues_the_text_to_the_character(model):
    result = run(model, "say\n", "--raw")
    assert (result.returncode, result.stdout.decode()) == (0, f"{THINKING}</think> {ANSWER}\n")


def test_ctrl_c_ends_an_answer_with_what_is_there_and_130(endless):
    """Its first line arrives while the model writes on: the answer is streamed."""
    command = [*RUN, str(endless), "go\n", "--raw", "--max-new-tokens", "1000000"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}  # or readline takes more
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout.readline().decode() == ENDLESS
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (ENDLESS * len(rest)).startswith(rest.decode().removesuffix("\n"))
    [line] = errors.decode().splitlines()
    assert " new at " in line


def test_a_closed_pipe_ends_it_silently_as_it_ends_any_tool(endless):
    script = f'{" ".join(RUN)} {endless} "go\n" --raw --max-new-tokens 1000000 < /dev/null | head -1; echo ${{PIPESTATUS[0]}}'
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert (result.stdout, result.stderr) == (f"{ENDLESS}{128 + signal.SIGPIPE}\n", "")


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        ([], b"", "nothing to answer: give a PROMPT"),
        (["  "], b"\n \n", "nothing to answer"),
        ([], b"caf\xe9", "no UTF-8 text (byte 0xe9 at 3)"),
        ([b"caf\xe9"], b"", "The PROMPT is no UTF-8 text (character 4"),
        (["x", "--raw", "--system", "y"], b"", "leave one of them out"),
        (["x", "--price", "kwhh=1"], b"", "did you mean `kwh`"),
        (["x", "--price", "kwh"], b"", "--price kwh=0.30"),
        (["x", "--dtype", "int3"], b"", "float32, bfloat16"),
        (["x", "--top-p", "0"], b"", "top_p is 0"),
        (["word " * 300], b"", "the context holds 256"),
    ],
    ids=["nothing", "blanks", "bytes", "bytes as argument", "raw system", "unknown price", "no price", "dtype", "top_p", "long"],
)
def test_a_fault_of_input_is_one_sentence_and_exit_1(model, arguments, stdin, expected):
    result = run(model, *arguments, stdin=stdin)
    assert (result.returncode, result.stdout) == (1, b"")
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("spoutnik: ")
    assert expected in line


def test_a_model_without_a_chat_template_is_refused_with_the_way_out(model, tmp_path):
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    result = run(tmp_path, "a question")
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"add --raw" in result.stderr


@given(st.lists(st.text("a \n", max_size=6)), st.lists(st.text("b \n", max_size=6)))
def test_however_an_answer_is_cut_the_screen_shows_it_without_the_space_around_it(reasoning, text):
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), Screen(thinking=True) as screen:
        for part in reasoning:
            screen.show(Piece("", part))
        for part in text:
            screen.show(Piece(part))
    answer, thought = "".join(text).strip(), "".join(reasoning).strip()
    assert out.getvalue() == (f"{answer}\n" if answer else "")
    indented = "\n".join(f"  {line}" for line in thought.split("\n"))
    assert err.getvalue() == ("" if not thought else f"{indented}\n\n" if answer else f"{indented}\n")
