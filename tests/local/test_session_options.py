"""Options of sessions over the bare wire, for root and for an ordinary user."""

from __future__ import annotations

import json

import pytest

from tests.local.raw import Refused, embedded
from tests.local.users import User


def options(**fields: object) -> dict[str, str]:
    return {"SessionOptions": json.dumps(fields)}


def test_what_each_user_can_give(somebody: User):
    """New directories need no privilege, and overlays need root, which their refusal says."""
    with embedded(None, **somebody.starts()) as (_, wire):
        created = wire.data("CreateMcpSession", **options(Writable=["/app", "/var/lib/x"], Cwd="/app", Envs={"A": "b"}))
        assert created["GivenOptions"] == ["envs", "cwd", "writable"]
        script = "echo $A > f; echo c > /var/lib/x/f; pwd; cat /app/f /var/lib/x/f; stat -c %U /app"
        assert wire.stdout(created["SessionId"], script) == "/app\nb\nc\nwuying\n"
        wire.data("DeleteSessionAsync", SessionId=created["SessionId"])
        if somebody.is_root:
            with wire.session(**options(Writable=["/usr"])) as session:
                assert wire.stdout(session, "touch /usr/bin/made-here; ls /usr/bin/made-here") == "/usr/bin/made-here\n"
        else:
            for path in ("/usr", "/", "/opt"):
                with pytest.raises(Refused, match="runtime of root") as refused:
                    wire.create(**options(Writable=[path]))
                assert refused.value.code == "WritableNotSupported.Local"
        assert wire.data("ListSession") == []


def test_without_namespaces():
    """Where sessions have the machine's files and network, only what is theirs can be chosen."""
    with embedded(None, "--isolation", "none") as (_, wire):
        with wire.session(**options(Cwd="work/here", Envs={"A": "b"}, Writable=["/home/wuying/data"])) as session:
            assert wire.stdout(session, "pwd; echo $A").endswith("/home/work/here\nb\n")
        for wish in ({"Writable": ["/app"]}, {"Network": ["pypi.org"]}):
            with pytest.raises(Refused) as refused:
                wire.create(**options(**wish))
            assert refused.value.code in ("WritableNotSupported.Local", "NetworkNotSupported.Local")


@pytest.mark.parametrize(
    "wish", [{"Envs": {"A=": "b"}}, {"Envs": {"A": "b\0"}}, {"Cwd": "a\0"}, {"Writable": [f"/d{n}" for n in range(40)]}]
)
def test_nonsense_is_refused(wire, wish):
    """What a client cannot have checked is checked again."""
    with pytest.raises(Refused) as refused:
        wire.create(**options(**wish))
    assert refused.value.code.startswith("InvalidParameter")
    with pytest.raises(Refused):
        wire.create(SessionOptions="[1, 2")
