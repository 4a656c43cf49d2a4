"""Schedules in which every microbatch enters at the first stage: 1F1B, interleaved 1F1B, ZB1P and ZBV.

Sources: Narayanan et al. 2021 (arXiv 2104.04473) for 1F1B and interleaving; Qi et al. 2023 (arXiv 2401.10241) for ZB-H1, here called ZB1P
as DeepSeek does; Qi et al. 2024 (arXiv 2405.15362) for the V of ZBV.
"""

from spoutnik.plan.schedule.cells import Kind, Task

KINDS: dict[str, Kind] = {"F": "F", "I": "I", "W": "W"}


def one_f_one_b(devices: int, microbatches: int) -> list[list[Task]]:
    """Device d runs ahead by as many forwards as there are devices behind it, then alternates."""
    rows = []
    for device in range(devices):
        ahead = min(devices - device - 1, microbatches)
        row = [Task("F", device, index) for index in range(ahead)]
        for index in range(microbatches - ahead):
            row += [Task("F", device, ahead + index), Task("B", device, index)]
        row += [Task("B", device, index) for index in range(microbatches - ahead, microbatches)]
        rows.append(row)
    return rows


def zb1p(devices: int, microbatches: int) -> list[list[Task]]:
    """1F1B whose backward for weights waits: device d keeps d of them back, so that all devices hold as many activations as the first does,
    and spends them where it would wait."""
    rows = []
    for device in range(devices):
        ahead = min(devices - device - 1, microbatches)
        row, weights = [Task("F", device, index) for index in range(ahead)], 0
        for index in range(microbatches):
            if ahead + index < microbatches:
                row.append(Task("F", device, ahead + index))
            row.append(Task("I", device, index))
            if index >= device:
                row.append(Task("W", device, weights))
                weights += 1
        row += [Task("W", device, index) for index in range(weights, microbatches)]
        rows.append(row)
    return rows


def interleaved(devices: int, microbatches: int, chunks: int) -> list[list[Task]]:
    """Device d holds stages d, d + p, d + 2p, ...; microbatches pass through a chunk in groups of p (Megatron-LM's order)."""
    total = microbatches * chunks

    def piece(kind: str, device: int, number: int) -> Task:
        group, place = divmod(number, devices * chunks)
        chunk, index = divmod(place, devices)
        if kind == "B":
            chunk = chunks - 1 - chunk
        return Task("F" if kind == "F" else "B", chunk * devices + device, group * devices + index)

    rows = []
    for device in range(devices):
        ahead = min((devices - device - 1) * 2 + (chunks - 1) * devices, total)
        row = [piece("F", device, number) for number in range(ahead)]
        for number in range(total - ahead):
            row += [piece("F", device, ahead + number), piece("B", device, number)]
        row += [piece("B", device, number) for number in range(total - ahead, total)]
        rows.append(row)
    return rows


def zbv(devices: int, microbatches: int) -> list[list[Task]]:
    """Device d holds stages d and 2p - 1 - d, so the last stage lies where the first one does and its backward needs no trip."""
    rows = []
    for device in range(devices):
        stages = (device, 2 * devices - 1 - device)
        row = _Row(stages)
        count = max(microbatches, 2 * devices - 1)
        row.add(2 * (devices - device) - 1, "F0")
        row.add(device, "F1", "F0")
        row.add(devices - device, "F1", "I1", "W1")
        while row.count["F1"] < row.count["F0"] or row.count["F0"] < count:
            if row.count["F0"] < count:
                row.add(1, "F0")
            row.add(1, "I0", "W0", "F1", "I1", "W1")
        row.add(device, "I0", "I1")
        row.add(devices - device, "I0", "W0")
        row.add(row.count["I1"] - row.count["W1"], "W1")
        row.add(row.count["I0"] - row.count["W0"], "W0")
        rows.append([task for task in row.tasks if task.microbatch < microbatches])
    return rows


class _Row:
    """A device with two chunks: the next microbatch of each kind of work on each."""

    def __init__(self, stages: tuple[int, int]) -> None:
        self.stages = stages
        self.tasks: list[Task] = []
        self.count = {kind + chunk: 0 for kind in "FIW" for chunk in "01"}

    def add(self, times: int, *works: str) -> None:
        for _ in range(times):
            for work in works:
                self.tasks.append(Task(KINDS[work[0]], self.stages[int(work[1])], self.count[work]))
                self.count[work] += 1
