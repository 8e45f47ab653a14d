"""The system-call guard: launcher, holder and supervisor. Standard library only, Python 3.7 syntax.

What a kernel or a terminal executes and connects to is trapped by a seccomp filter with a user notification listener.
The launcher installs the filter on itself and becomes the command; the holder keeps every listener and never lets a
caller wait; the supervisor, a child of the holder, answers and tells the agent what it saw.
"""
