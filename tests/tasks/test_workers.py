"""Verifiers that hang, raise or crash are killed and reported, and the next call is served."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from spoutnik.tasks import Problem
from spoutnik.tasks.countdown import Countdown
from spoutnik.tasks.reward import grade
from spoutnik.tasks.workers import Fault, VerifierFaultError, VerifierPool


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, timeout_s=0.7, memory_bytes=1 << 29) as pool:
        yield pool


def test_results_come_back_in_order(pool: VerifierPool) -> None:
    assert pool.map("operator:add", [(i, 1) for i in range(10)]) == list(range(1, 11))


@pytest.mark.parametrize(("function", "arguments"), [("time:sleep", (60,)), ("builtins:pow", (9, 9**9))])
def test_a_hanging_verifier_is_killed_even_inside_a_long_c_call(pool: VerifierPool, function: str, arguments: tuple[int, ...]) -> None:
    start = time.monotonic()
    assert pool.call(function, *arguments) == Fault("timeout")
    assert time.monotonic() - start < 20
    assert pool.call("operator:add", 1, 1) == 2


def test_a_raising_verifier_is_reported_with_its_words(pool: VerifierPool) -> None:
    assert pool.call("operator:truediv", 1, 0) == Fault("raised: ZeroDivisionError: division by zero")


def test_a_verifier_that_eats_memory_is_stopped(pool: VerifierPool) -> None:
    assert pool.call("builtins:bytearray", 1 << 36) == Fault("raised: MemoryError: ")


@pytest.mark.parametrize(("function", "code"), [("os:_exit", 3), ("signal:raise_signal", -signal.SIGKILL)])
def test_a_verifier_that_dies_is_reported_and_replaced(pool: VerifierPool, function: str, code: int) -> None:
    assert pool.call(function, abs(code)) == Fault(f"died: exit code {code}")
    assert pool.call("operator:add", 1, 1) == 2


def test_a_verifier_that_does_not_exist_is_a_fault(pool: VerifierPool) -> None:
    assert pool.call("no_such_module:f").reason.startswith("raised: ModuleNotFoundError")
    assert pool.call("operator:no_such_function").reason.startswith("raised: AttributeError")


def test_verify_turns_a_fault_into_an_exception(pool: VerifierPool) -> None:
    assert pool.verify("operator:eq", 1, 1) is True
    with pytest.raises(VerifierFaultError, match="timeout"):
        pool.verify("time:sleep", 60)


def test_a_hanging_verifier_is_counted_and_not_a_silent_zero(pool: VerifierPool) -> None:
    class Hanging(Countdown):
        def verify(self, problem: Problem, answer: str) -> bool:
            return pool.verify("time:sleep", 60)

    problem = Countdown().problem("train", 0, 0)
    reward = grade(Hanging(), problem, f"so\n</think>\n<answer>{problem.answer}</answer>", thinking=True)
    assert reward.fault == "VerifierFaultError: timeout"
    assert reward.faulted


HANGING_PARENT = """
import os, signal, threading
from spoutnik.tasks.workers import VerifierPool
if __name__ == "__main__":
    pool = VerifierPool(timeout_s=60)
    print(pool.call("os:getpid"), flush=True)
    threading.Thread(target=pool.call, args=("time:sleep", 60), daemon=True).start()
    threading.Event().wait(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_hanging_verifier_does_not_outlive_a_killed_parent(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "parent.py")
    with open(script, "w") as file:
        file.write(HANGING_PARENT)
    parent = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    child, deadline = int(parent.stdout), time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended but was not yet collected by its new parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_without_a_main_guard_is_told_what_to_do(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "unguarded.py")
    with open(script, "w") as file:
        file.write('from spoutnik.tasks.workers import VerifierPool\nVerifierPool().call("os:getpid")\n')
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "__name__ == '__main__'" in result.stderr.strip().splitlines()[-1]
