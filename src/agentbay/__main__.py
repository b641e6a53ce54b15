"""`python -m agentbay`: the command where its folder is not on PATH."""

import sys

from agentbay.cli import main

sys.exit(main())
