"""The egress policy and the address check."""

from __future__ import annotations

import pytest

from agentbay.local.network.egress_policy import EgressPolicy, HostPort, parse_host_port, parse_rule
from agentbay.local.outbound.address_check import is_public_address


@pytest.mark.parametrize(
    ("text", "covered", "not_covered"),
    [
        ("example.test", ["example.test:80", "EXAMPLE.test.:443"], ["example.test:22", "a.example.test:80"]),
        ("example.test:8080", ["example.test:8080"], ["example.test:80", "xexample.test:8080"]),
        ("*.example.test", ["a.example.test:443", "a.b.example.test:80"], ["example.test:443", "a.example.test:22"]),
        ("*:443", ["anything.test:443"], ["anything.test:80"]),
        ("[::1]:8000", ["[::1]:8000"], ["127.0.0.1:8000"]),
        ("::1", ["[::1]:80"], ["[::1]:8000"]),
        ("127.0.0.1:8000", ["127.0.0.1:8000"], ["localhost:8000", "127.1:8000"]),
    ],
)  # fmt: skip
def test_rule_matches(text, covered, not_covered):
    """A name covers itself on its ports, and a pattern every subdomain."""
    rules = EgressPolicy([parse_rule(text)])
    assert all(rules.find_rule(parse_host_port(text)) for text in covered)
    assert not any(rules.find_rule(parse_host_port(text)) for text in not_covered)


@pytest.mark.parametrize(
    "text",
    ["", "https://example.test", "example.test/path", "user@example.test", "a b", "exa*mple.test", "example.test:0",
     "example.test:99999", "example.test:x", "%31.test", "-", "a\\b"],
)  # fmt: skip
def test_invalid_rules(text):
    """Text that is no HOST[:PORT] is refused."""
    with pytest.raises(ValueError, match=r"is not HOST|[Pp]ort"):
        parse_rule(text)


def test_name_before_pattern():
    """A rule that names the host wins over a pattern."""
    rules = EgressPolicy([parse_rule("*"), parse_rule("registry.test")])
    found = rules.find_rule(HostPort("registry.test", 443))
    assert found is not None
    assert not found.is_pattern


@pytest.mark.parametrize(
    ("address", "public"),
    [("1.1.1.1", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("::1", False), ("10.0.0.1", False),
     ("169.254.169.254", False), ("100.100.100.200", False), ("fd00:ec2::254", False), ("0.0.0.0", False),
     ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("64:ff9b::101:101", True), ("2002:7f00:1::", False),
     ("224.0.0.1", False), ("fe80::1%lo", False), ("fec0::1", False), ("64:ff9b:1::7f00:1", False),
     ("::7f00:1", False), ("::ffff:0:127.0.0.1", False), ("3fff::1", False), ("5f00::1", False), ("100::1", False),
     ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False), ("2002:808:808::1", True)],
)  # fmt: skip
def test_public_addresses(address, public):
    """An address is as public as the IPv4 address that it embeds."""
    assert is_public_address(address) == public
