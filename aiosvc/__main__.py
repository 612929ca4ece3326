"""`python -m aiosvc` is the command `aiosvc`."""

import sys

from aiosvc.cli import main

sys.exit(main())
