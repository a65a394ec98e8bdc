"""How fast, how large and how accurate bundles are on this machine, with the reasons to doubt it.

Timings of one program vary from minute to minute by more than most programs differ, so candidates are never measured
one after the other: all are loaded at once, each in a process of its own, and take turns on the same inputs.

`profile` is the run from start to end: `candidates` and `inputs` say what is compared and asked, `measure` starts the
processes (`worker`) and asks them, `extras` measures besides. A run is kept as `run` describes it. What the machine
tells is in `machine`, what is made of the samples in `numbers`, load and endurance in `load`, the inside of graphs in
`layers`, rules and comparisons in `judging`, and what people see in `showing`. A new kind of task is one entry of
`tasks`, and one of `numbers.quality` where its answers can be judged.
"""
