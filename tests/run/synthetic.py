"""A record as a whole run of the default recipe writes it, made of smooth formulas: only for looking at the report's layout."""

import math
import random


def events():
    rng = random.Random(1)
    yield {
        "event": "run_start",
        "time": 1.79e9,
        "recipe": "sputnik",
        "seed": 1957,
        "machine": "AMD EPYC, 2 cores, 24 GiB",
        "spoutnik": "0.1.0",
    }
    stages = [
        ("corpus", "corpus", {}, 20),
        ("base", "pretrain", {"data": "corpus"}, 480),
        ("r1-zero", "rl", {"from": "base"}, 360),
        ("cold-start-samples", "sample", {"from": "r1-zero"}, 40),
        ("cold-start", "sft", {"from": "base", "data": "cold-start-samples"}, 60),
        ("r1", "rl", {"from": "cold-start"}, 200),
        ("r1-samples", "sample", {"from": "r1"}, 60),
        ("r1-distill-smollm2", "distill", {"from": "smollm2", "data": "r1-samples"}, 300),
        ("student-base", "pretrain", {"data": "corpus"}, 90),
        ("student", "distill", {"from": "student-base", "teacher": "r1"}, 80),
        ("eval", "eval", {"models[0]": "base"}, 120),
    ]
    now = 1.79e9
    for name, kind, inputs, seconds in stages:
        yield {
            "event": "stage_start",
            "time": now,
            "stage": name,
            "kind": kind,
            "inputs": inputs,
            "definition": {},
            "minutes": round(seconds / 55, 1),
        }
        for event in steps(name, kind, rng):
            yield {"time": now, "stage": name, **event}
        if name == "base":
            source = {"source": "countdown", "tokens": 19900, "nats_per_token": 0.4812, "bits_per_byte": 0.2734}
            yield {"event": "held-out", "time": now, "stage": name, "sources": [source], "max_violation": 0.213, "dead_experts": 0}
        if kind == "eval":
            yield from ({"time": now, "stage": name, **event} for event in evaluations())
        now += seconds
        costs = {"wall_s": seconds, "cpu_s": seconds * 1.9, "cores": 2, "tokens": seconds * 11000, "flops": seconds * 4e10}
        costs |= {"energy_joules": seconds * 19.0, "energy_source": "estimated (10 W per busy core)", "money": seconds / 3600 * 0.085}
        yield {
            "event": "stage_end",
            "time": now,
            "stage": name,
            "kind": kind,
            "costs": {**costs, "currency": "EUR", "resumptions": int(name == "r1")},
        }


def steps(name, kind, rng):
    count = {"pretrain": 900, "rl": 120, "sft": 200, "distill": 160}.get(kind, 0)
    for step in range(1, count + 1):
        done = step / count
        event = {
            "event": "step",
            "step": step,
            "grad_norm": 0.4 + rng.random() * 0.3 + math.exp(-9 * done),
            "learning_rate": 1e-3 * min(1, 5 * (1 - done)),
        }
        loss = 0.9 + 5.5 * math.exp(-7 * done) + rng.gauss(0, 0.06)
        if kind == "pretrain":
            event |= {
                "loss": loss * 1.3,
                "ce": loss,
                "mtp_loss": loss * 1.25,
                "tokens_per_s": 11000 + rng.gauss(0, 400),
                "dead_experts": max(0, 3 - step // 40),
            }
            event["max_violation"] = 0.2 + 2 * math.exp(-12 * done) + rng.random() * 0.1
            if step % 10 == 0:
                event["load"] = [
                    [max(0.0, 0.125 + rng.gauss(0, 0.05 * math.exp(-4 * done)) * (0 if e == 3 and step < 50 else 1)) for e in range(8)]
                    for _ in range(5)
                ]
                if step < 50:
                    event["load"][2][3] = 0.0
        elif kind == "rl":
            accuracy = 0.3 + 0.5 * (1 - math.exp(-3 * done)) + rng.gauss(0, 0.03)
            event |= {
                "accuracy": accuracy,
                "format": min(1, 0.7 + done),
                "reward": accuracy + min(1, 0.7 + done),
                "faithful": 0.5 + 0.2 * done,
                "language": 1.0,
            }
            event |= {
                "response_length": 60 + 25 * done + rng.gauss(0, 2),
                "truncated": 0.2 * math.exp(-4 * done),
                "no_signal": 0.25 + 0.4 * done,
                "kl": 0.02 * done,
            }
            event |= {"clip_fraction": 0.01, "entropy": 1.2 * math.exp(-done), "mismatch": 2e-6 * (1 + rng.random())}
        elif name == "student":
            event |= {"reverse_kl": 1.5 * math.exp(-4 * done) + 0.05, "accuracy": 0.2 + 0.4 * done, "response_length": 70}
        else:
            event |= {"loss": 0.25 + 1.5 * math.exp(-8 * done) + rng.gauss(0, 0.02), "tokens_per_s": 900}
        yield event
        if kind == "rl" and step in (1, 2, 119, 120):
            late = step > 10
            text = "24 + 8 = 32, 32 - 7 = 25</think>\n<answer>24 + 8 - 7</answer>" if late else "24 + 24 = 30! 8 7 7 ...</think> <b>25</b>"
            yield {
                "event": "sample",
                "step": step,
                "when": "late" if late else "early",
                "prompt": "Use 7, 8 and 24 to make 25.",
                "text": text,
                "correct": late,
            }
        if kind == "rl" and step == 60:
            yield {
                "event": "warning",
                "step": 60,
                "message": "the loss of step 60 was not finite; the step was skipped and its batch saved",
            }


def evaluations():
    for task, shift in (("countdown", 0.0), ("arithmetic", -0.25)):
        for model, accuracy in [
            ("base", 0.31),
            ("r1-zero", 0.74),
            ("cold-start", 0.6),
            ("r1", 0.81),
            ("smollm2", 0.042),
            ("r1-distill-smollm2", 0.764),
            ("student", 0.55),
        ]:
            share, n = max(accuracy + shift, 0.0), 500
            z = 1.96
            middle, half = (
                (share + z * z / 2 / n) / (1 + z * z / n),
                z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n),
            )
            event = {
                "event": "eval",
                "model": model,
                "task": task,
                "n": n,
                "correct": round(share * n),
                "accuracy": share,
                "low": middle - half,
                "high": middle + half,
            }
            event |= {"pass@1": share, "mean_length": 71.3, "truncated": 0.01, "format": 0.99}
            yield event | ({} if task == "arithmetic" else {"faithful_steps": share * 0.9, "supported": share * 0.85})
