"""spoutnik serve: a model behind the APIs that clients know."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spoutnik.cli.answer import Dtype, ModelName, Quantize
from spoutnik.cli.run import PRICE_HELP
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.recipe.tables import Price
    from spoutnik.serve.keys.keyring import Keyring

KEY_HELP = "Serve this machine, too, only to who has a key; where other machines reach the server it is always so."
KEYS_HELP = "The file of keys, which are then required [default: keys.sqlite among the user's data]."
ADAPTER_HELP = "A LoRA adapter, which answers under its name: poems=adapters/poems. May be given several times."
REASONING_HELP = "What becomes of reasoning_content in messages: kept where tools are called (v4; v4-strict demands it), or refused (r1)."

COUNT_HELP = "What max_tokens counts: all new tokens, or those of the answer alone, as R1's API did."
REPLICAS_HELP = "Spread requests over so many engines, which Ray starts, and starts again when they end [default: one, without Ray]."
CLUSTER_HELP = "The Ray cluster where they run, as HOST:PORT or auto [default: Ray is started on this machine]."


def serve(
    model: ModelName,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Where to listen; other machines reach it only with keys.")] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="What clients call the model [default: the end of MODEL].", show_default=False)] = "",
    alias: Annotated[list[str] | None, typer.Option(help="Another name for it. May be given several times.")] = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    adapter: Annotated[list[str] | None, typer.Option(metavar="NAME=DIR", help=ADAPTER_HELP)] = None,
    speculate: Annotated[bool, typer.Option(help="Let a model with a multi-token prediction layer guess ahead.")] = True,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests that run at a time.")] = 64,
    max_queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are told when to come back.")] = 256,
    context: Annotated[int | None, typer.Option(min=1, help="Most tokens of a prompt and its answer [default: the model's].")] = None,
    cache_dir: Annotated[str | None, typer.Option(help="Keep what was computed of prompts here, for later processes.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens of a request that does not say.")] = 4096,
    max_tokens_count: Annotated[Literal["all", "answer"], typer.Option(help=COUNT_HELP)] = "all",
    temperature: Annotated[float, typer.Option(min=0, help="Of conversations that do not say.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Of conversations that do not say.")] = 0.95,
    reasoning_input: Annotated[Literal["v4", "v4-strict", "r1"], typer.Option(help=REASONING_HELP)] = "v4",
    price: Annotated[list[str] | None, typer.Option(help=PRICE_HELP)] = None,
    require_key: Annotated[bool, typer.Option("--require-key", help=KEY_HELP)] = False,
    keys: Annotated[Path | None, typer.Option(help=KEYS_HELP)] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Serve https with this certificate (PEM, with its chain).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help=REPLICAS_HELP, show_default=False)] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help=CLUSTER_HELP)] = None,
) -> None:
    """Serve a model over HTTP, in the dialects of OpenAI, DeepSeek and Anthropic."""
    import sys
    import time

    try:
        from spoutnik.serve.app import create_app
        from spoutnik.serve.backend import Backend
        from spoutnik.serve.listening import Server, Tls, is_loopback, listen
    except ModuleNotFoundError as error:
        raise UserError(f"The server needs packages that are not installed ({error.name}); install spoutnik[serve].") from error
    from spoutnik.cli import answer
    from spoutnik.cli.run import read_price
    from spoutnik.library import DTYPES
    from spoutnik.serve.logs import log_to_stderr
    from spoutnik.serve.opening import Opening, open_backend
    from spoutnik.serve.ray_backend import open_replicas
    from spoutnik.serve.settings import Settings

    if (tls_cert is None) != (tls_key is None):
        raise UserError("--tls-cert and --tls-key go together; give both, or none for plain http.")
    tls = Tls(str(tls_cert), str(tls_key)) if tls_cert is not None else None
    prices = read_price(price or [])
    with_keys = require_key or keys is not None or not is_loopback(host)
    keyring = _keyring(keys, prices, host) if with_keys else None
    adapters = _adapters(adapter or [])
    dtype = dtype or answer.fastest_dtype()
    if dtype not in DTYPES:
        raise UserError(f"--dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
    settings = Settings(
        tuple(alias or ()), temperature, top_p, max_tokens, max_tokens_count, reasoning_input=reasoning_input, price=prices
    )  # fmt: skip
    opening = Opening(model, name, DTYPES[dtype], quantize, adapters, speculate, max_batch, max_queue, context, cache_dir)
    listener = listen(host, port)
    start = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {what}", file=sys.stderr, flush=True)

    if replicas is None and cluster is None:
        backend: Backend = open_backend(opening, settings.price, say)
    else:
        backend = open_replicas(opening, settings.price, replicas or 1, cluster, say)
    app = create_app(backend, settings, keyring)
    server = Server(app, tls)
    log_to_stderr()
    listener.listen()  # who comes from now on waits until the server takes him
    address = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    whom = "this machine" if is_loopback(host) else "whoever reaches it" if tls else "whoever reaches it, unencrypted"
    entry = "a key is needed" if keyring else "no key is needed"
    print(f"{address}/v1 serves {backend.info.model} ({quantize or dtype}) to {whom}; {entry}.", flush=True)
    server.run(sockets=[listener])


def _keyring(path: Path | None, price: "Price", host: str) -> "Keyring":
    """Raises UserError where nobody has a key."""
    import time

    from spoutnik.serve.keys.keyring import Keyring
    from spoutnik.serve.keys.store import KeyStore, default_path

    store = KeyStore(path or default_path(), wait_s=0.2)
    if not any(key.usable(time.time()) for key in store.all()):
        where = "" if path is None else f" --keys {path}"
        raise UserError(f"There is no key to {host}'s server in {store.path}; make one with `spoutnik key create{where}`.")
    return Keyring(store, price.currency if price.cpu_core_hour or price.kwh else None)


def _adapters(pairs: list[str]) -> dict[str, str]:
    adapters: dict[str, str] = {}
    for pair in pairs:
        name, separator, folder = pair.partition("=")
        if not (name and separator and folder) or name in adapters:
            raise UserError(f"--adapter {pair!r} is no new NAME=DIR; write it as in --adapter poems=adapters/poems.")
        adapters[name] = folder
    return adapters
