"""What a model costs on this machine: time, memory, their growth with length, and where the time goes.

`survey` decides what to measure and `runner` measures each point in a process of its own, which is `worker`.
"""
