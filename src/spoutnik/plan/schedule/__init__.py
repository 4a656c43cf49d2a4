"""Pipeline schedules: generated as programs of devices, simulated cell by cell, held against closed formulas, drawn."""

from spoutnik.plan.schedule.cells import Cell, Durations, Program, Task, Timeline
from spoutnik.plan.schedule.generate import SCHEDULES, check, chunks_per_device, generate
from spoutnik.plan.schedule.simulate import simulate

__all__ = ["SCHEDULES", "Cell", "Durations", "Program", "Task", "Timeline", "check", "chunks_per_device", "generate", "simulate"]
