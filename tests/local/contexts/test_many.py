from __future__ import annotations

import pytest

from tests.local.contexts.actions import create_context, delete_and_wait, sync_and_check, sync_item, wait_for_transfers
from tests.local.raw import Wire

TOP = "/tmp/many"
MAKE = (
    "import os,sys\n"
    "for i in range(int(sys.argv[1])):\n"
    "    if i % 100 == 0: os.mkdir(f'd{i // 100}')\n"
    "    open(f'd{i // 100}/f{i}', 'w').write(f'{i} ' * 20)\n"
)
COUNT = "cat d*/f* big 2>/dev/null | sha256sum; find . -type f | wc -l"


@pytest.mark.parametrize(
    ("storage", "number", "mebibytes"),
    [
        ("disk", 500, 20),
        ("bucket", 200, 20),
        pytest.param("disk", 100_000, 1, marks=pytest.mark.soak),
        pytest.param("disk", 100, 2048, marks=pytest.mark.soak),
        pytest.param("bucket", 10_000, 256, marks=pytest.mark.soak),
    ],
    indirect=["storage"],
)
def test_many_and_large(wire: Wire, number: int, mebibytes: int):
    """Many and large files are uploaded and downloaded whole."""
    context = create_context(wire)

    def run(session: str, command: str) -> str:
        result = wire.sh(session, f"mkdir -p {TOP} && cd {TOP} && {command}", timeout_ms=1_800_000)
        assert result["exit_code"] == 0, result
        return str(result["stdout"])

    wire.http.timeout = 1800
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        run(session, f'python3 -c "{MAKE}" {number} && head -c {mebibytes}M /dev/urandom > big')
        expected = run(session, COUNT)
        sync_and_check(wire, session)
        delete_and_wait(wire, session)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        assert [one["status"] for one in wait_for_transfers(wire, session, 1800)] == ["Success"]
        assert run(session, COUNT) == expected
    wire.data("DeleteContext", Id=context)
