"""``python -m neupims_sim`` is the program ``neupims-sim``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interruption while the program loads is one line, too."""
    try:
        from neupims_sim.cli import main as program
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    program()


if __name__ == "__main__":
    main()
