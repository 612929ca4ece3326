"""`python -m aiosvc.demo` is `aiosvc demo`: same options, same exit codes."""

import sys

from aiosvc.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
