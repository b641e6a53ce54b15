"""Write the tools of sessions as JSON files, which the local runtime sends with every new session.

    python build_catalogue.py            write them
    python build_catalogue.py --check    write nothing; fail if what is there is not what would be written

They are made from the classes in `_wire` that read the arguments. A runtime that made all of these classes at its start
would take a tenth longer.
"""

from __future__ import annotations

import sys

from agentbay.local.handlers.tool_calls import catalogue_file, generate_catalogue
from agentbay.local.sessions.images import DEFAULT_IMAGE, PHONE_IMAGE


def main() -> int:
    """Write or check the files, and return the exit status."""
    stale = []
    for image_id in (DEFAULT_IMAGE, PHONE_IMAGE):
        file, text = catalogue_file(image_id), generate_catalogue(image_id) + "\n"
        if not file.exists() or file.read_text(encoding="ascii") != text:
            stale.append(file.name)
            if "--check" not in sys.argv[1:]:
                file.write_text(text, encoding="ascii")
    if stale and "--check" in sys.argv[1:]:
        print(f"Not as build_catalogue.py writes them: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
