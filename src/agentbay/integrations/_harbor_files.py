"""The files of a session, as tasks of Harbor copy them."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path
from uuid import uuid4

from harbor.environments import tar_transfer

from agentbay import AsyncSession

NO_LIMIT_SECONDS = 24 * 3600


class SessionFiles:
    """Copies files and directories, by programs that each image of a task has."""

    session: AsyncSession
    logger: logging.Logger

    async def upload_file(self, source_path: Path | str, target_path: str) -> None:
        """Copy a file into the session, with its permissions."""
        source = Path(source_path)
        content, mode = await asyncio.to_thread(lambda: (source.read_bytes(), stat.S_IMODE(source.stat().st_mode)))
        (await self.session.file_system.write_file(target_path, content)).unwrap()
        (await self.session.command.run(["chmod", f"{mode:o}", target_path])).check()

    async def upload_dir(self, source_dir: Path | str, target_dir: str) -> None:
        """Copy a directory into the session."""
        packed = await asyncio.to_thread(tar_transfer.pack_dir_to_bytes, source_dir, compress=True, include_root=False)
        (await self.session.file_system.create_directory(target_dir)).unwrap()
        unpack = ["tar", "-xzof", "-", "-C", target_dir]  # -o: a session has one user, so owners cannot be kept
        (await self.session.command.run(unpack, stdin=packed.getvalue(), timeout=NO_LIMIT_SECONDS)).check()

    async def download_file(self, source_path: str, target_path: Path | str) -> None:
        """Copy a file from the session."""
        content = (await self.session.file_system.read_file(source_path, format="bytes")).unwrap().content
        Path(target_path).parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(Path(target_path).write_bytes, content)

    async def download_dir(self, source_dir: str, target_dir: Path | str) -> None:
        """Copy a directory from the session, without links that lead out of it."""
        archive = f"/tmp/.harbor-{uuid4().hex}.tar.gz"
        pack = tar_transfer.remote_pack_command(source_dir, archive)
        try:
            done = (await self.session.command.run(pack, timeout=NO_LIMIT_SECONDS)).unwrap()
            if not tar_transfer.tar_pack_succeeded(done.exit_code, stderr=done.stderr, logger=self.logger):
                raise RuntimeError(f"Cannot pack {source_dir!r} in the session: {done.stderr}")
            content = (await self.session.file_system.read_file(archive, format="bytes")).unwrap().content
        finally:
            await self.session.file_system.delete_file(archive)
        await asyncio.to_thread(tar_transfer.extract_dir_from_bytes, content, target_dir)
