"""The processes of a command, also those that left its process group and session."""

from __future__ import annotations

from collections.abc import Set

from agentbay.local.sandbox.inside.spawning import has_tag
from agentbay.local.sandbox.shared.proc_fs import ProcessTable, read_proc_file


def find_tagged(proc: int, table: ProcessTable, request: int) -> set[int]:
    """Return the processes that a request has started, however they tried to leave it."""
    return {pid for pid in table if has_tag(read_proc_file(proc, f"{pid}/limits"), request)}


def find_process_tree(root: int, table: ProcessTable, known: Set[int]) -> set[int]:
    """Return `root`, `known`, their descendants, and all who share a session with one.

    The session finds processes whose parent has ended, as after a double fork: process 1 is their parent now.
    """
    members = set(known)
    while True:
        sessions = {root} | {table[pid].session for pid in members}  # each command leads a session
        grown = {
            pid
            for pid, process in table.items()
            if pid == root or process.parent in members or process.session in sessions
        } | members
        if grown == members:
            return members
        members = grown
