"""spoutnik connect: what a client of the server has to be told, ready to be pasted."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from spoutnik.errors import UserError

Client = Literal["openai-sdk", "anthropic-sdk", "langchain", "continue", "aider", "open-webui", "claude-code", "curl"]


@dataclass(frozen=True)
class Server:
    """Where it is (without /v1), a key of it, and a model."""

    url: str
    key: str
    model: str


def connect(
    client: Annotated[Client, typer.Argument(help="Who is to use the server.")],
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8000",
    key: Annotated[str, typer.Option(help="A key of it, where it asks for one.", show_default=False)] = "none",
    model: Annotated[str, typer.Option(help="The model's name [default: what the server says].", show_default=False)] = "",
) -> None:
    """Print the configuration that a client needs; where it belongs is told on stderr."""
    url = url.rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url {url!r} is no address; write it as in --url http://127.0.0.1:8000.")
    where, write = CLIENTS[client]
    print(write(Server(url, key, model or _model(url, key))))
    print(where, file=sys.stderr)


def _model(url: str, key: str) -> str:
    """The first model that the server lists. Raises UserError where none is told."""
    import httpx2

    try:
        reply = httpx2.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=5)
        if reply.status_code == 401:
            raise UserError(f"The server at {url} wants another key; give one with --key (`spoutnik key create` makes them).")
        return str(reply.raise_for_status().json()["data"][0]["id"])
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"No server tells its models at {url}; start `spoutnik serve`, or give --url and --model.") from error


def _openai(server: Server) -> str:
    return f"""from openai import OpenAI

client = OpenAI(base_url={_text(f"{server.url}/v1")}, api_key={_text(server.key)})
answer = client.chat.completions.create(model={_text(server.model)}, messages=[{{"role": "user", "content": "Hello"}}])
print(answer.choices[0].message.content)"""


def _anthropic(server: Server) -> str:
    return f"""from anthropic import Anthropic

client = Anthropic(base_url={_text(server.url)}, api_key={_text(server.key)})
answer = client.messages.create(model={_text(server.model)}, max_tokens=512, messages=[{{"role": "user", "content": "Hello"}}])
print("".join(block.text for block in answer.content if block.type == "text"))"""


def _langchain(server: Server) -> str:
    return f"""from langchain_openai import ChatOpenAI

model = ChatOpenAI(model={_text(server.model)}, base_url={_text(f"{server.url}/v1")}, api_key={_text(server.key)})
print(model.invoke("Hello").content)"""


def _continue(server: Server) -> str:
    return f"""name: Spoutnik
version: 1.0.0
schema: v1
models:
  - name: {_text(server.model)}
    provider: openai
    model: {_text(server.model)}
    apiBase: {_text(f"{server.url}/v1")}
    apiKey: {_text(server.key)}
    roles: [chat, edit, apply]"""


def _aider(server: Server) -> str:
    return f"""model: {_text(f"openai/{server.model}")}
openai-api-base: {_text(f"{server.url}/v1")}
openai-api-key: {_text(server.key)}
show-model-warnings: false"""


def _open_webui(server: Server) -> str:
    return f"""export OPENAI_API_BASE_URL={shlex.quote(f"{server.url}/v1")}
export OPENAI_API_KEY={shlex.quote(server.key)}
export DEFAULT_MODELS={shlex.quote(server.model)}
export ENABLE_OLLAMA_API=false
open-webui serve"""


def _claude_code(server: Server) -> str:
    models = dict.fromkeys(("ANTHROPIC_MODEL", *(f"ANTHROPIC_DEFAULT_{size}_MODEL" for size in ("OPUS", "SONNET", "HAIKU"))), server.model)
    environment = {
        "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_AUTH_TOKEN": server.key, **models,
        "API_TIMEOUT_MS": "600000", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }  # fmt: skip
    return json.dumps({"env": environment}, indent=2, ensure_ascii=False)


def _curl(server: Server) -> str:
    body = json.dumps({"model": server.model, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
    return f"""curl {shlex.quote(f"{server.url}/v1/chat/completions")} \\
  -H {shlex.quote(f"Authorization: Bearer {server.key}")} \\
  -H 'Content-Type: application/json' \\
  -d {shlex.quote(body)}"""


def _text(value: str) -> str:
    """In quotes, as Python and YAML read them alike."""
    return json.dumps(value)


CLIENTS: dict[Client, tuple[str, Callable[[Server], str]]] = {
    "openai-sdk": ("A Python program; pip install openai.", _openai),
    "anthropic-sdk": ("A Python program; pip install anthropic.", _anthropic),
    "langchain": ("A Python program; pip install langchain-openai. langchain-deepseek shows the thinking, too.", _langchain),
    "continue": ("This is ~/.continue/config.yaml.", _continue),
    "aider": ("This is .aider.conf.yml, in your home or the repository's root. It holds the key: keep it out of git.", _aider),
    "open-webui": ("Run this in a shell.", _open_webui),
    "claude-code": ("This belongs into ~/.claude/settings.json; ANTHROPIC_API_KEY must not be set beside it.", _claude_code),
    "curl": ("Run this in a shell.", _curl),
}
