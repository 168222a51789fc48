"""``python -m secateur`` is the ``secateur`` command."""

import os
import sys

from .cli import main

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109
        del sys.path[0]  # a file of the working directory must not stand in for a library
    main()
