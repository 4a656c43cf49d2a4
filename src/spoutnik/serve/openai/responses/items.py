"""An answer as items of output, and the events that tell of them as they grow."""

import secrets
from collections.abc import Mapping
from typing import Any

from spoutnik.serve.answer import Likelihood, Part, Reasoning, Text, ToolArguments, ToolStart
from spoutnik.serve.carried import carry
from spoutnik.serve.openai.logprobs import chat_logprobs
from spoutnik.text.token_bytes import TokenBytes

Event = dict[str, Any]
PREFIXES = {"reasoning": "rs", "message": "msg", "function_call": "fc"}
PARTS = {"reasoning": "reasoning_text", "message": "output_text"}


class Items:
    """Takes an answer's parts; at most the last item is open. With `carrying`, thinking comes in `encrypted_content`, too; `namespaced` has
    (namespace, name) of functions that the client knows so.
    """

    def __init__(self, token_bytes: TokenBytes, carrying: bool, namespaced: Mapping[str, tuple[str, str]]):
        self.finished: list[dict[str, Any]] = []
        """Items that are complete, or as complete as they will be."""
        self._token_bytes, self._carrying, self._namespaced = token_bytes, carrying, namespaced
        self._open: str | None = None  # the type of the item that grows
        self._head: dict[str, Any] = {}
        self._text = ""
        self._likelihoods: list[Likelihood] = []  # of tokens of the answer that no text was told with yet
        self._logprobs: list[dict[str, Any]] = []  # of the item that grows

    def add(self, part: Part) -> list[Event]:
        """What the part changes."""
        if isinstance(part, Reasoning):
            return self._in("reasoning", {"summary": []}) + self._grow("reasoning_text", part.text)
        if isinstance(part, Text):
            return self._in("message", {"role": "assistant"}) + self._grow("output_text", part.text, logprobs=self._take())
        if isinstance(part, ToolStart):
            namespace, name = self._namespaced.get(part.name, (None, part.name))
            function = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
            return self.close() + self._in("function_call", {"call_id": part.id, **function, "arguments": ""})
        if isinstance(part, ToolArguments):
            return self._grow("function_call_arguments", part.text)
        if isinstance(part, Likelihood) and not part.reasoning:
            self._likelihoods.append(part)
        return []

    def close(self, whole: bool = True) -> list[Event]:
        """Ends the open item, if there is one; it is incomplete unless it is `whole`."""
        if self._open is None:
            return []
        kind, text, status = self._open, self._text, "completed" if whole else "incomplete"
        if kind == "function_call":
            self._likelihoods = []  # of the call's own tokens
            events = [self._event("function_call_arguments.done", name=self._head["name"], arguments=text)]
            item = self._head | {"arguments": text, "status": status}
        else:
            if kind == "message":
                self._take()
            part = self._part(text)
            logprobs = {"logprobs": self._logprobs} if kind == "message" else {}
            events = [
                self._event(f"{PARTS[kind]}.done", content_index=0, text=text, **logprobs),
                self._event("content_part.done", content_index=0, part=part),
            ]
            carrying = {"encrypted_content": carry(text)} if kind == "reasoning" and self._carrying else {}
            item = self._head | {"content": [part], "status": status, **carrying}
        events.append({"type": "response.output_item.done", "output_index": len(self.finished), "item": item})
        self.finished.append(item)
        self._open = None
        return events

    def _in(self, kind: str, fields: dict[str, Any]) -> list[Event]:
        """Makes sure that an item of this kind is open."""
        if self._open == kind:
            return []
        events = self.close()
        self._open, self._text, self._logprobs = kind, "", []
        self._head = {"id": f"{PREFIXES[kind]}_{secrets.token_hex(12)}", "type": kind, "status": "in_progress", **fields}
        item = self._head if kind == "function_call" else self._head | {"content": []}
        events.append({"type": "response.output_item.added", "output_index": len(self.finished), "item": item})
        if kind != "function_call":
            events.append(self._event("content_part.added", content_index=0, part=self._part("")))
        return events

    def _grow(self, kind: str, text: str, **others: Any) -> list[Event]:
        self._text += text
        place = {} if kind == "function_call_arguments" else {"content_index": 0}
        return [self._event(f"{kind}.delta", **place, delta=text, **others)]

    def _take(self) -> list[dict[str, Any]]:
        """Log-probabilities that came since the last call, now of the open message."""
        entries: list[dict[str, Any]] = chat_logprobs(self._likelihoods, self._token_bytes)["content"]
        self._likelihoods = []
        self._logprobs += entries
        return entries

    def _part(self, text: str) -> dict[str, Any]:
        assert self._open is not None
        others = {"annotations": [], "logprobs": self._logprobs} if self._open == "message" else {}
        return {"type": PARTS[self._open], "text": text, **others}

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": f"response.{kind}", "item_id": self._head["id"], "output_index": len(self.finished), **fields}
