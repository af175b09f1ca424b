"""`python -m semamba` is the command line; `torchrun -m semamba train` starts it in several processes."""

from __future__ import annotations

from semamba.cli import main

if __name__ == "__main__":
    main()
