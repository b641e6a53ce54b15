"""Run `python -m agentbay.local` with zygotes that import `fuzzed_sandboxes`."""

from __future__ import annotations

import sys
from pathlib import Path

from agentbay.local.__main__ import main
from agentbay.local.sandbox.service import zygote_process

_HERE = str(Path(__file__).parent)
_START, _REST = zygote_process._BOOTSTRAP_CODE.split("from {module}")
zygote_process._BOOTSTRAP_CODE = (
    f"{_START}sys.path.append({_HERE!r}); import fuzzed_sandboxes; fuzzed_sandboxes.patch(); from {{module}}{_REST}"
)

sys.exit(main())
