"""spoutnik key: who may use a server that others reach."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from spoutnik.serve.keys.key import Key
    from spoutnik.serve.keys.store import KeyStore

app = typer.Typer(help="Make, list and revoke the keys of `spoutnik serve`.", no_args_is_help=True, rich_markup_mode=None)
KEYS_HELP = "The file of keys [default: keys.sqlite among the user's data]."
KeysFile = Annotated[Path | None, typer.Option("--keys", help=KEYS_HELP)]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What to call it in lists.")] = "",
    budget: Annotated[float | None, typer.Option(min=0, help="Most money that its answers may cost, at the server's --price.")] = None,
    currency: Annotated[str, typer.Option(help="The budget's; it has to be the server's.")] = "EUR",
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Of prompts and answers together.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Most requests under way at a time.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: in 30d or 12h, or at 2030-12-31 (UTC).")] = None,
    keys: KeysFile = None,
) -> None:
    """Make a key. It is printed once, and kept nowhere but as a hash."""
    import sys
    import time

    from spoutnik.serve.keys.store import Limits
    from spoutnik.teacher.money import billionths

    limits = Limits(
        None if expires is None else ends(expires, time.time()), requests_per_minute, tokens_per_minute, concurrent,
        None if budget is None else billionths(budget), currency if budget is not None else "",
    )  # fmt: skip
    store = _store(keys)
    key, secret = store.create(name, limits)
    print(secret)
    print(f"Key {key.id} was made. It is not shown again: what is kept in {store.path} is its hash.", file=sys.stderr)


@app.command("ls")
def list_(as_json: Annotated[bool, typer.Option("--json")] = False, keys: KeysFile = None) -> None:
    """List keys, their limits and what they used."""
    import time

    from spoutnik.cli.output import print_json, table

    found = [_shown(key, time.time()) for key in _store(keys).all()]
    if as_json:
        print_json(found)
    elif not found:
        print("There are no keys; `spoutnik key create` makes one.")
    else:
        columns = ("id", "name", "state", "expires", "spent", "budget", "currency", "requests", "last_used")
        rows = [["" if key[column] is None else str(key[column]) for column in columns] for key in found]
        print(table([list(columns), *rows]))


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id or its name.")], keys: KeysFile = None) -> None:
    """End a key: servers that run refuse it from their next request on."""
    ended = _store(keys).revoke(key)
    print(f"Key {ended.id}{f' ({ended.name})' if ended.name else ''} is revoked.")


def ends(text: str, now: float) -> float:
    """A Unix time from "30d", "12h" (from now on) or a date. Raises UserError for anything else, and for what is over."""
    import re
    from datetime import UTC, datetime

    from spoutnik.errors import UserError

    if match := re.fullmatch(r"([0-9]{1,6})([dh])", text):
        return now + int(match[1]) * {"d": 86400, "h": 3600}[match[2]]
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"--expires {text!r} is no time; write 30d, 12h or a date such as 2030-12-31.") from error
    moment = (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()
    if moment <= now:
        raise UserError(f"--expires {text} is over; give a time to come.")
    return moment


def _store(path: Path | None) -> "KeyStore":
    from spoutnik.serve.keys.store import KeyStore, default_path

    return KeyStore(path or default_path())


def _shown(key: "Key", now: float) -> dict[str, Any]:
    """Everything but the hash."""
    from datetime import UTC, datetime

    from spoutnik.teacher.money import BILLIONTHS

    def moment(time: float | None) -> str | None:
        return None if time is None else datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")

    return {
        "id": key.id, "name": key.name, "state": "revoked" if key.revoked else "valid" if key.usable(now) else "expired",
        "created": moment(key.created), "expires": moment(key.expires), "last_used": moment(key.last_used),
        "requests_per_minute": key.requests_per_minute, "tokens_per_minute": key.tokens_per_minute, "concurrent": key.concurrent,
        "budget": None if key.budget is None else key.budget / BILLIONTHS, "spent": key.spent / BILLIONTHS, "currency": key.currency,
        "requests": key.requests, "prompt_tokens": key.prompt_tokens, "completion_tokens": key.completion_tokens,
    }  # fmt: skip
