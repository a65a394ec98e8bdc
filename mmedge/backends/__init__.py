"""One file per engine, ending in ``BACKEND = ...``; files that start with an underscore are shared by several."""
