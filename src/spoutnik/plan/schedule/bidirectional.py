"""DualPipe and DualPipeV: forwards of one direction run together with backwards of the other and hide each other's communication.

Source: DeepSeek-V3's report (arXiv 2412.19437, section 3.2.1) and the repository deepseek-ai/DualPipe, which names the eight phases. A
device of DualPipeV does what the device at the same place of DualPipe's first half does: its second direction is the way back through the
V.
"""

from spoutnik.plan.schedule.cells import Task


def dualpipe(devices: int, microbatches: int) -> list[list[Task]]:
    """Half of the microbatches (the first ones) enter at device 0, the others at the last, so every device holds two stages' parameters."""
    rows = []
    for device in range(devices):
        second_half = device >= devices // 2
        place = min(device, devices - 1 - device)
        stages = (devices - 1 - device, device) if second_half else (device, devices - 1 - device)
        first = (microbatches // 2, 0) if second_half else (0, microbatches // 2)
        rows.append(_row(devices // 2, place, microbatches // 2, stages, first))
    return rows


def dualpipev(devices: int, microbatches: int) -> list[list[Task]]:
    """Device d holds stages d and 2p - 1 - d of 2p."""
    return [_row(devices, device, microbatches, (device, 2 * devices - 1 - device), (0, 0)) for device in range(devices)]


def _row(half: int, place: int, count: int, stages: tuple[int, int], first: tuple[int, int]) -> list[Task]:
    """One device: `place` from the end of a half of `half` devices, `count` microbatches of each of two directions, 0 being the one that it
    starts with, on `stages` and with numbers from `first` on."""
    row: list[Task] = []
    forwards, backwards = list(first), list(first)
    waiting: list[tuple[int, int]] = []

    def forward(way: int) -> tuple[int, int]:
        forwards[way] += 1
        return stages[way], forwards[way] - 1

    def backward(way: int) -> tuple[int, int]:
        backwards[way] += 1
        return stages[way], backwards[way] - 1

    def run_f(way: int) -> None:
        row.append(Task("F", *forward(way)))

    def run_b(way: int, split: bool = False) -> None:
        what = backward(way)
        row.append(Task("I" if split else "B", *what))
        if split:
            waiting.append(what)

    def run_w() -> None:
        row.append(Task("W", *waiting.pop(0)))

    def run_pair(way: int) -> None:
        row.append(Task("FB", *forward(way), beside=backward(1 - way)))

    behind = half - place - 1
    for _ in range(2 * behind):
        run_f(0)
    for _ in range(place + 1):
        run_f(0)
        run_f(1)
    for _ in range(behind):
        run_b(1, split=True)
        run_w()
        run_f(1)
    for index in range(count - 2 * half + place + 1):
        if index == 0 and behind == 0:
            run_f(0)
            run_b(1)
        else:
            run_pair(0)
        run_pair(1)
    for _ in range(behind):
        run_b(1)
        run_pair(1)
    # In the second half of these the weights wait, so that the last backwards reach the other devices sooner.
    for index in range(2 * (place + 1)):
        run_b(1 - index % 2, split=index > place)
    for _ in range(behind):
        run_w()
        run_b(0, split=True)
    for _ in range(place + 1):
        run_w()
    return row
