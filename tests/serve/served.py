"""Real servers on loopback for the tests of this folder, in threads of this process."""

import asyncio
import threading
from contextlib import contextmanager

import uvicorn
from scripted import scripted_model
from tiny_models import randomise, tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.serve.app import create_app
from spoutnik.serve.backend import Info
from spoutnik.serve.listening import config, listen
from spoutnik.serve.settings import Settings
from spoutnik.serve.worker import Worker
from spoutnik.text.r1_template import PLAIN_TOKENS
from spoutnik.text.tokenizer import train_bpe

CALL = ('<tool_call>\n{"name": "lo', 'ok", "arguments": {"at"', ': [1, "é"]}}\n</tool', "_call>")
"""The tokens of a scripted call."""


class Running:
    """A server that runs: `url` without a prefix, its `app` and its `engine`."""

    def __init__(self, app, engine):
        self.app, self.engine, self.service = app, engine, app.state.service
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(config(app))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[listener])), daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            threading.Event().wait(0.01)

    def stop(self):
        self._server.should_exit = True
        self._thread.join()


def random_model(context: int = 512):
    """A random model and its tokenizer; R1's template opens the thinking."""
    tokenizer = train_bpe(["the cat sat on the mat and thought about it. " * 20], vocab_size=320)
    model = tiny_model("deepseek-v3", vocab_size=tokenizer.vocab_size, max_position_embeddings=context)
    randomise(model, std=0.12)
    return model, tokenizer


def scripted(script: str, template: str | None = None, context: int = 1024):
    """A model that writes `script` after a line feed, and its tokenizer."""
    tokenizer = train_bpe(["one two three four five six "] * 20, vocab_size=340, plain_tokens=(*PLAIN_TOKENS, *CALL))
    if template is not None:
        tokenizer.chat_template = template
    return scripted_model(tokenizer, script, context), tokenizer


@contextmanager
def serving(model, tokenizer, name="tiny", settings=None, authenticator=None, adapters=(), **engine_settings):
    """A server around an engine of this model."""
    settings = settings or Settings()
    engine = Engine(model.eval(), tokenizer, **{"max_batch": 8, **engine_settings})
    info = Info(name, model.config.max_position_embeddings, 1, "fp_test", tuple(adapters))
    running = Running(create_app(Worker(engine, info, settings.price), settings, authenticator), engine)
    try:
        yield running
    finally:
        running.stop()
