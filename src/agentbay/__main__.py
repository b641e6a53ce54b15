"""`python -m agentbay`: the command line, also where its script is not on PATH."""

import sys

from agentbay.cli import main

sys.exit(main())
