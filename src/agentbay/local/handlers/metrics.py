"""The metrics tool."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

from agentbay._wire.tools import GetMetrics, ToolReply
from agentbay.local.handlers.handler_tables import tool_handler
from agentbay.local.handlers.results import text_result
from agentbay.local.sessions.session import Session


@tool_handler(GetMetrics)
async def get_metrics(session: Session, _: GetMetrics) -> ToolReply:
    """Measure the session's use of processors, memory and disk, beside the machine's totals."""
    with session.using() as sandbox:
        usage = await sandbox.usage()
    processors = len(os.sched_getaffinity(0))
    disk = os.statvfs(session.directory)
    body = {
        "cpu_count": processors,
        "cpu_used_pct": round(session.cpu_meter.sample(usage.cpu_seconds) / processors * 100, 2),
        "disk_total": disk.f_blocks * disk.f_frsize,
        "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "mem_total": _memory_total(),
        "mem_used": usage.memory_bytes,
        # A session has no network interface but its own loopback, which these do not count.
        "rx_rate_kbyte_per_s": 0.0,
        "tx_rate_kbyte_per_s": 0.0,
        "rx_used_kbyte": 0.0,
        "tx_used_kbyte": 0.0,
        "timestamp": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
    }
    return text_result(json.dumps(body))


def _memory_total() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
