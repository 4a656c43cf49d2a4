"""The planner: what a model, a run, a service or a rule costs, before anything runs. A library as well as a command; imports no torch.

Every number that leaves it is a `Figure` with its formula and inputs, and every uncertain one is a range.
"""
