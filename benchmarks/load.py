"""A server under load: many streams at a time, clients that leave, bodies that make no sense, and an end by SIGTERM.

    python benchmarks/load.py smollm2 --seconds 300 --streams 64

Every request is answered alone first; under load each completed answer must be the same. What leaks shows as memory that keeps growing, or
as pages of the cache that nobody uses and nobody has. Further arguments go to `spoutnik serve`. The client runs on the same cores.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE_MB = 2**20
LEAVE, MALFORMED = 0.2, 0.1
"""Shares of the clients that leave amid their answer, and that send nonsense."""
SCHEMA = {"type": "object", "properties": {"name": {"enum": ["cat", "dog"]}, "age": {"enum": [1, 2, 3]}}, "required": ["name", "age"]}
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"temperature": 0}, {"presence_penalty": 0.5, "frequency_penalty": 0.3}, {"stop": [" the", "\n"]},
    {"logprobs": True, "top_logprobs": 3}, {"n": 2}, {"top_k": 40, "min_p": 0.02},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}}},
)  # fmt: skip
SUBJECTS = ("a cat", "the sea", "old maps", "a long winter", "bread", "two brothers", "the moon", "a broken clock")
NONSENSE: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"model": 3}', b'{"messages": [], "model": "%s"}', b'{"model": "nobody", "messages": "x"}',
    b'{"model": "%s", "messages": [{"role": "user", "content": "x"}], "temperature": -1}',
    b'{"model": "%s", "messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}',
    b'{"model": "%s", "messages": [{"role": "user", "content": "x"}], "n": 100000}',
    b'{"model": "%s", "messages": [{"role": "user", "content": {"a": ' + b"[" * 2000 + b"}}]}",
)  # fmt: skip
Answer = dict[int, tuple[str, str]]
"""By choice: its text, and why it ended."""


@dataclass
class Seen:
    """What the clients saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    between_s: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the load began, and the server's resident memory in MiB."""


def bodies(model: str, count: int, tokens: int) -> list[dict[str, Any]]:
    """Requests of many kinds, each with a seed of its own."""
    made = []
    for index in range(count):
        option, subject = OPTIONS[index % len(OPTIONS)], SUBJECTS[(index + index // len(OPTIONS)) % len(SUBJECTS)]
        messages = [{"role": "user", "content": f"Tell a story about {subject}. " + "It is a short one. " * (index % 5)}]
        made.append({"model": model, "messages": messages, "max_tokens": tokens, "seed": index, "stream": True, **option})
    return made


class Client:
    """Asks one server over connections of its own."""

    def __init__(self, port: int, seen: Seen):
        self._port, self._seen = port, seen

    async def ask(self, content: bytes, leave_after: int | None = None, timed: bool = False, cut: int = 0) -> tuple[int, Answer]:
        """The status, and the answer of a stream. The client leaves after so many events, or without sending the last `cut` bytes."""
        began, last = time.monotonic(), 0.0
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        try:
            head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content[: len(content) - cut])
            if cut:
                await writer.drain()
                return 0, {}
            status = int((await reader.readline()).split()[1])
            texts: dict[int, str] = {}
            reasons: dict[int, str] = {}
            events = 0
            while line := await reader.readline():
                if not line.startswith(b"data: {"):
                    continue
                now, events = time.monotonic(), events + 1
                if events == leave_after:
                    return 0, {}
                event = json.loads(line[6:])
                if "error" in event:
                    return 599, {0: (event["error"]["message"], "error")}
                for choice in event["choices"]:
                    index, delta = choice["index"], choice["delta"]
                    text = (delta.get("reasoning_content") or "") + (delta.get("content") or "")
                    if text and timed:
                        (self._seen.between_s if last else self._seen.first_s).append(now - (last or began))
                        last = now
                    texts[index] = texts.get(index, "") + text
                    if choice["finish_reason"]:
                        reasons[index] = choice["finish_reason"]
            return status, {index: (text, reasons.get(index, "")) for index, text in texts.items()}
        finally:
            writer.close()

    async def get(self, path: str) -> str:
        """What a GET request brings."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        return text

    async def figures(self) -> dict[str, float]:
        """The server's metrics."""
        page = await self.get("/metrics")
        return {name: float(value) for name, value in re.findall(r"^(spoutnik_\S+) (\S+)$", page, re.M)}


async def user(client: Client, asked: list[bytes], known: list[Answer], seen: Seen, until: float, generator: random.Random) -> None:
    """One client after the other, until the time is over."""
    while time.monotonic() < until:
        which, kind = generator.randrange(len(asked)), generator.random()
        try:
            if kind < MALFORMED:
                cut = generator.choice((0, 0, 1, 20))
                content = asked[which] if cut else generator.choice(NONSENSE).replace(b"%s", json.loads(asked[which])["model"].encode())
                status, _ = await client.ask(content, cut=cut)
                seen.outcomes["cut off while asking" if cut else f"nonsense: {status}"] += 1
                if not cut and not 400 <= status < 500:
                    seen.wrong.append(f"{content[:80]!r} was answered with {status}")
            elif kind < MALFORMED + LEAVE:
                await client.ask(asked[which], leave_after=generator.randint(1, 20))
                seen.outcomes["left"] += 1
            else:
                status, answer = await client.ask(asked[which], timed=True)
                seen.outcomes[f"answered: {status}"] += 1
                if (status, answer) != (200, known[which]):
                    seen.wrong.append(f"request {which} got {status} {answer} instead of {known[which]}")
        except (OSError, IndexError, ValueError) as error:
            seen.outcomes["failed"] += 1
            seen.wrong.append(f"request {which}: {error!r}")


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / PAGE_MB


async def watch(pid: int, seen: Seen) -> None:
    """Notes the memory once a second."""
    began = time.monotonic()
    while True:
        seen.memory.append((time.monotonic() - began, memory_mib(pid)))
        await asyncio.sleep(1.0)


def slope(points: list[tuple[float, float]]) -> float:
    """MiB a minute, by least squares."""
    return 60 * statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 2 else 0.0


def quantiles(values: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile, in milliseconds."""
    return tuple(1000 * sorted(values)[int(share * (len(values) - 1))] for share in (0.5, 0.95)) if values else (0.0, 0.0)  # type: ignore[return-value]


async def run(model: str, name: str, seconds: float, streams: int, kinds: int, tokens: int, arguments: list[str]) -> dict[str, Any]:
    """The whole test. What was found, by name; "wrong" holds what must not be."""
    command = [sys.executable, "-m", "spoutnik", "serve", model, "--name", name, "--port", "0", *arguments]
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, limit=1 << 22)
    assert server.stdout is not None
    assert server.stderr is not None
    logged: list[dict[str, Any]] = []

    async def read_log() -> None:
        async for line in server.stderr:
            if line.startswith(b"{"):
                logged.append(json.loads(line))
                del logged[:-500]
            else:
                sys.stderr.write(line.decode())

    log = asyncio.create_task(read_log())
    try:
        first = (await server.stdout.readline()).decode()
        seen, alone = Seen(), Seen()
        client = Client(int(first.split("/v1")[0].rsplit(":", 1)[1]), seen)
        asked = [json.dumps(body).encode() for body in bodies(name, kinds, tokens)]
        quiet = Client(client._port, alone)
        known = [(await quiet.ask(content, timed=True))[1] for content in asked]
        say(f"{kinds} requests were answered alone")
        watching, began = asyncio.create_task(watch(server.pid, seen)), time.monotonic()
        users = [user(client, asked, known, seen, began + seconds, random.Random(index)) for index in range(streams)]
        await asyncio.gather(*users)
        loaded_s = time.monotonic() - began
        watching.cancel()
        for _ in range(100):
            figures = await client.figures()
            if not figures["spoutnik_requests_running"] + figures["spoutnik_requests_waiting"]:
                break
            await asyncio.sleep(0.05)
        pages = {state: int(figures[f'spoutnik_cache_pages{{state="{state}"}}']) for state in ("used", "free", "cached")}
        say("the load is over; the server is asked to stop while it answers")
        last = [asyncio.create_task(client.ask(asked[index % kinds])) for index in range(streams)]
        while (await client.figures())["spoutnik_requests_running"] < min(streams, kinds) / 2:
            await asyncio.sleep(0.02)
        server.send_signal(signal.SIGTERM)
        stopped, ends = time.monotonic(), await asyncio.gather(*last, return_exceptions=True)
        status = await asyncio.wait_for(server.wait(), 60)
        stop_s = time.monotonic() - stopped
        await log
    finally:
        if server.returncode is None:
            server.kill()
    wrong = list(seen.wrong)
    kept = sum(end == (200, known[index % kinds]) for index, end in enumerate(ends))
    last_words = next((line for line in logged if line["message"] == "drained"), {})
    drained = {name: last_words.get(name) for name in ("running", "waiting", "pages_used")}
    faults = [line for line in logged if line["level"] == "error"]
    wrong += [f"the log says {line}" for line in faults]
    wrong += [f"{streams - kept} of {streams} answers were lost at the end"] if kept < streams else []
    wrong += [f"the server ended with {status}"] if status else []
    wrong += [f"{pages['used']} pages of the cache are lost"] if pages["used"] else []
    wrong += [f"after the drain the server had {drained}"] if any(count != 0 for count in drained.values()) else []
    settled = [point for point in seen.memory if point[0] >= seconds / 5]
    later = [point for point in seen.memory if point[0] >= seconds / 2]
    return {
        "seconds": round(loaded_s, 1), "streams": streams, "outcomes": dict(sorted(seen.outcomes.items())),
        "tokens_per_second": round(figures["spoutnik_completion_tokens_total"] / loaded_s, 1), "pages": pages, "drained": drained,
        "first_token_ms": quantiles(seen.first_s), "between_tokens_ms": quantiles(seen.between_s),
        "alone_first_token_ms": quantiles(alone.first_s), "alone_between_tokens_ms": quantiles(alone.between_s),
        "memory_mib": [round(of[1], 1) for of in (seen.memory[0], settled[0], settled[-1])],
        "slope_mib_per_minute": round(slope(settled), 3), "later_slope_mib_per_minute": round(slope(later), 3),
        "ended_whole": kept, "stop_seconds": round(stop_s, 1), "exit_status": status, "wrong": wrong,
    }  # fmt: skip


def say(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, file=sys.stderr, flush=True)


def table(model: str, arguments: list[str], found: dict[str, Any]) -> str:
    """The result as Markdown."""
    outcomes = ", ".join(f"{count} {what}" for what, count in found["outcomes"].items())
    start, settled, end = found["memory_mib"]
    pages, drained = found["pages"], found["drained"]

    def both(key: str) -> str:
        return "{:.0f} / {:.0f} ms".format(*found[key])

    rows = [
        ("requests", outcomes),
        ("answers that differ from those given alone, or other faults", len(found["wrong"])),
        ("tokens a second, all streams together", found["tokens_per_second"]),
        ("time to the first token, median / 95 %", f"{both('first_token_ms')} (alone {both('alone_first_token_ms')})"),
        ("between two pieces of text, median / 95 %", f"{both('between_tokens_ms')} (alone {both('alone_between_tokens_ms')})"),
        ("resident memory at the start, after a fifth of the time, at the end", f"{start:.0f}, {settled:.0f}, {end:.0f} MiB"),
        ("its slope from a fifth of the time on, in the second half", f"{found['slope_mib_per_minute']:+.2f}, "
         f"{found['later_slope_mib_per_minute']:+.2f} MiB a minute"),
        ("pages of the cache when the load was over", f"{pages['used']} used, {pages['free']} free, {pages['cached']} cached"),
        ("after SIGTERM amid the same number of streams", f"{found['ended_whole']} of {found['streams']} answers whole, "
         f"{drained['pages_used']} pages used, status {found['exit_status']}, after {found['stop_seconds']} s"),
    ]  # fmt: skip
    head = f"# Load on {model}\n\n{found['streams']} streams for {found['seconds']:.0f} s, clients on the same machine"
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"{head}{f' ({shown})' if (shown := ' '.join(arguments)) else ''}.\n\n| | |\n| --- | --- |\n{lines}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--kinds", type=int, default=32, help="different requests")
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    parser.add_argument("--out", type=Path, help="folder for the table and the figures")
    options, arguments = parser.parse_known_args()
    name = Path(options.model).name
    found = asyncio.run(run(options.model, name, options.seconds, options.streams, options.kinds, options.tokens, arguments))
    text = table(name, arguments, found)
    print(text)
    for fault in found["wrong"][:20]:
        say(fault[:500])
    if options.out is not None:
        (options.out / f"load-{name}.md").write_text(text, encoding="utf-8")
        (options.out / f"load-{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
