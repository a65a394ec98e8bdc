"""How fast, how large and how accurate bundles are on this machine, with the reasons to doubt it.

Timings of one program vary from minute to minute by more than most programs differ, so candidates are never measured
one after the other: all are loaded at once, each in a process of its own, and take turns on the same pictures.
"""
