"""What a network costs on this machine, in each form that it can be run in, and which form fits a budget.

`forms` says what is measured, `measure` asks for it, `worker` does it in a process of its own.
"""
