"""``python -m mmedge`` is the command ``mmedge``."""

import sys

from mmedge.cli import main

if __name__ == "__main__":
    sys.exit(main())
