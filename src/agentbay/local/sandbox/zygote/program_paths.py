"""What sandboxes see of the machine: its programs, and settings that programs read."""

from __future__ import annotations

# links to /usr where it is merged, directories elsewhere
PROGRAM_DIRECTORIES = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
_HOST_PATHS = (
    "/usr", "/nix/store", "/etc/alternatives", "/etc/bash.bashrc", "/etc/ca-certificates", "/etc/chromium",
    "/etc/chromium.d", "/etc/crypto-policies", "/etc/fonts", "/etc/inputrc", "/etc/java-17-openjdk",
    "/etc/java-21-openjdk", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/magic",
    "/etc/mime.types", "/etc/os-release", "/etc/perl", "/etc/pki", "/etc/profile.d", "/etc/protocols",
    "/etc/python3", "/etc/R", "/etc/services", "/etc/ssl", "/etc/X11", "/etc/xdg", "/var/cache/fontconfig",
)  # fmt: skip
PROGRAM_PATHS = (*(f"/{name}" for name in PROGRAM_DIRECTORIES), *_HOST_PATHS)


def is_of_machine(path: str) -> bool:
    """Return whether a sandbox sees the machine's file or directory of that path."""
    return any(path == top or path.startswith(f"{top}/") for top in PROGRAM_PATHS)
