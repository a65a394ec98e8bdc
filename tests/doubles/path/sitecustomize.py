"""Python reads this file when it starts with this folder on its path: libcudart is the double from then on."""

import os

if "MMEDGE_DOUBLES" in os.environ:
    from mmedge_doubles.install import double_of_this_process, serve_cudart

    serve_cudart(lambda: double_of_this_process().cudart)
