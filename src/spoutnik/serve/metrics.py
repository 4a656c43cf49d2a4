"""Figures for Prometheus, in a registry of the server's own."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spoutnik.serve.backend import Backend, Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class _Load(Collector):
    """How busy the backend is at the moment of asking."""

    def __init__(self, backend: Backend):
        self._backend = backend

    def collect(self) -> list[Metric]:
        load = self._backend.load()
        pages = GaugeMetricFamily("spoutnik_cache_pages", "Pages of the engine's cache.", labels=["state"])
        for state in ("used", "free", "cached"):
            pages.add_metric([state], getattr(load.pages, state))
        return [
            pages,
            GaugeMetricFamily("spoutnik_replicas", "Engines that are ready.", value=load.replicas),
            CounterMetricFamily("spoutnik_replica_losses", "Engines that were lost.", value=load.losses),
            CounterMetricFamily("spoutnik_requests_resumed", "Requests that went on after their engine was lost.", value=load.resumed),
            GaugeMetricFamily("spoutnik_requests_running", "Requests that are being answered.", value=load.running),
            GaugeMetricFamily("spoutnik_requests_waiting", "Requests in line.", value=load.waiting),
        ]


class Metrics:
    """What is counted; `page` is what a scraper reads."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, backend: Backend):
        self._registry = registry = CollectorRegistry()
        registry.register(_Load(backend))
        self.first_token = Histogram(
            "spoutnik_time_to_first_token_seconds", "From a request's arrival to its first token.", buckets=SECONDS, registry=registry
        )
        self.between_tokens = Histogram(
            "spoutnik_inter_token_seconds", "From an answer's token to its next.", buckets=SECONDS, registry=registry
        )
        self.whole = Histogram(
            "spoutnik_request_seconds", "From a request's arrival to the end of its answer.", buckets=SECONDS, registry=registry
        )
        self.prompt_tokens = Counter("spoutnik_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.cached_tokens = Counter("spoutnik_cached_prompt_tokens", "Of these, found in the cache.", registry=registry)
        self.completion_tokens = Counter("spoutnik_completion_tokens", "Tokens drawn.", registry=registry)
        self.answers = Counter("spoutnik_answers", "Answers by how they ended.", ["finish_reason"], registry=registry)
        self.cpu_seconds = Counter("spoutnik_answer_cpu_seconds", "Processor time of answers.", registry=registry)
        self.energy_joules = Counter("spoutnik_answer_energy_joules", "Energy of answers, measured or estimated.", registry=registry)
        self.responses = Counter("spoutnik_http_responses", "HTTP responses.", ["method", "path", "status"], registry=registry)

    def count(self, usage: Usage, finish_reasons: Sequence[str]) -> None:
        """The answers to one request have ended."""
        for reason in finish_reasons:
            self.answers.labels(reason).inc()
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.completion_tokens.inc(usage.completion_tokens)
        self.cpu_seconds.inc(usage.cost.cpu_seconds)
        self.energy_joules.inc(usage.cost.energy_joules)

    def page(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry)
