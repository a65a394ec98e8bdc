"""Other programs beside mmedge in the same interleaved run: a script each, in an environment of its own.

A peer serves the protocol of mmedge's workers (`mmedge.profiling.worker.main`) with an opener of its own: it loads what
a candidate names, and answers with the time of each stage under mmedge's clock. To add one: ``NAME.py`` here, and
``NAME.txt`` with what it needs installed (`environment` makes the environment from that).
"""
