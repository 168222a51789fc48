"""``python -m secateur`` is the ``secateur`` command."""

from .runtime.cli import main

if __name__ == "__main__":
    main()
