"""The entry point: `corral …`, `python -m corral …`, or either through a link named `ollama`."""

import sys


def main() -> int:
    """Runs the command line that the process was started with; its exit status."""
    try:
        from corral.cli import program
    except KeyboardInterrupt:  # Ctrl-C while modules are still being loaded
        return 130
    return program.run(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
