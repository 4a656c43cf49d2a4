"""A real HTTP server on the loopback that speaks the dialects, and misbehaves when it is told to."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """`faults` are used up by the first requests, in order; then every request is answered with `answer(messages)`: (text, reasoning).

    A fault is a status, (status, headers), or one of: hang, disconnect, half, malformed, no-usage, odd-usage, dear, keep-alive, broken-off.
    `dialect` says whose form of chat completions is spoken; Anthropic's is known by its path.
    """

    def __init__(self, dialect="openai"):
        self.dialect = dialect
        self.faults, self.seen, self.delay = [], [], 0.0
        self.most_at_once = self._at_once = 0
        self.answer = lambda messages: (f"echo: {messages[-1]['content']}", "")
        self.usage, self.finish = {"prompt": 10, "completion": 5}, "stop"
        self._lock, self.gone = threading.Lock(), threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                with suppress(BrokenPipeError, ConnectionResetError):
                    owner._handle(self)

            def log_message(self, *arguments):
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self):
        self.gone.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def bodies(self):
        return [json.dumps(body, sort_keys=True) for _, _, body in self.seen]

    def _handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.seen.append((handler.path, dict(handler.headers), body))
            fault = self.faults.pop(0) if self.faults else None
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.delay)
            self._reply(handler, body, fault)
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, handler, body, fault):
        if fault == "hang":
            self.gone.wait(20)
            handler.close_connection = True
        elif fault == "disconnect":
            handler.close_connection = True
        elif fault == "keep-alive":
            self._send(handler, 200, None, {"transfer-encoding": "chunked"})
            while not self.gone.wait(0.02):
                handler.wfile.write(b"1\r\n\n\r\n")
                handler.wfile.flush()
        elif fault == "malformed":
            self._send(handler, 200, b'{"choices": [')
        elif fault == "half":
            self._send(handler, 200, b'{"choices"', {"content-length": "1000"})
            handler.close_connection = True
        elif isinstance(fault, int | tuple):
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            sent = handler.headers.get("authorization", handler.headers.get("x-api-key", ""))
            self._send(handler, status, json.dumps(self._error(handler.path, status, f"no, not with {sent}")).encode(), headers)
        else:
            self._send(handler, 200, json.dumps(self._answer(handler.path, body, fault)).encode())

    def _error(self, path, status, message):
        if path.endswith("/v1/messages"):
            return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
        if self.dialect == "mistral":
            detail = [{"type": "value_error", "loc": ["body", "model"], "msg": message, "input": "m"}]
            return {"detail": detail} if status == 422 else {"object": "error", "message": message, "type": "x", "param": None, "code": "1"}
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request_error"}}

    def _answer(self, path, body, fault):
        text, reasoning = self.answer(body["messages"])
        prompt, completion = self.usage["prompt"], self.usage["completion"]
        if fault == "dear":
            prompt, completion = 10_000_000, 10_000_000
        if path.endswith("/v1/messages"):
            thinking = [{"type": "thinking", "thinking": reasoning, "signature": "x"}] if reasoning else []
            usage = {"input_tokens": prompt, "output_tokens": completion}
            finish = {"stop": "end_turn", "length": "max_tokens"}.get(self.finish, self.finish)
            reply = {"type": "message", "model": "m-1", "content": [*thinking, {"type": "text", "text": text}], "stop_reason": finish}
        else:
            usage = {"prompt_tokens": prompt, "completion_tokens": completion}
            message = {"role": "assistant", "content": text, **({"reasoning_content": reasoning} if reasoning else {})}
            if self.dialect == "deepseek":
                cached = self.usage.get("cached", 0)
                usage |= {"prompt_cache_hit_tokens": cached, "prompt_cache_miss_tokens": prompt - cached}
            if self.dialect == "mistral" and reasoning:
                chunks = [{"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}, {"type": "text", "text": text}]
                message = {"role": "assistant", "content": chunks, "tool_calls": None, "prefix": False}
            broken = {"deepseek": "insufficient_system_resource", "mistral": "error"}.get(self.dialect)
            finish = broken if fault == "broken-off" else self.finish
            reply = {"model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        if fault == "no-usage":
            return reply
        return {**reply, "usage": dict.fromkeys(usage, -1) if fault == "odd-usage" else usage}

    def _send(self, handler, status, content, headers=None):
        handler.send_response(status)
        sized = {"content-length": str(len(content))} if content is not None else {}
        for name, value in {"content-type": "application/json", **sized, **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content or b"")
        handler.wfile.flush()
