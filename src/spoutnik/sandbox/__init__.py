"""Untrusted Python programs, run without network, privileges or a view of this machine. `pool.SandboxPool` is the way in.

The runner's process imports this room, so nothing is imported here.
"""
