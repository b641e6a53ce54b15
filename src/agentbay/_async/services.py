"""The services of a session, each loaded when it is first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import AsyncAgent
    from .browser import AsyncBrowser
    from .code import AsyncCode
    from .command import AsyncCommand
    from .computer import AsyncComputer
    from .context_manager import AsyncContextManager
    from .env import AsyncEnv
    from .filesystem import AsyncFileSystem
    from .git import AsyncGit
    from .mobile import AsyncMobile
    from .oss import AsyncOss
    from .pty import AsyncPty
    from .session import AsyncSession
    from .ws_client import AsyncWsClient


# Each property imports its module only when it is used, so that `import agentbay` stays quick.
class AsyncSessionServices:
    """The services of a session."""

    @cached_property
    def command(self) -> AsyncCommand:
        """Run shell commands."""
        from .command import AsyncCommand

        return AsyncCommand(self._session)

    @cached_property
    def code(self) -> AsyncCode:
        """Run code in Python and other languages."""
        from .code import AsyncCode

        return AsyncCode(self._session)

    @cached_property
    def file_system(self) -> AsyncFileSystem:
        """Read, write, list and transfer files."""
        from .filesystem import AsyncFileSystem

        return AsyncFileSystem(self._session)

    @cached_property
    def git(self) -> AsyncGit:
        """Run git."""
        from .git import AsyncGit

        return AsyncGit(self._session)

    @cached_property
    def env(self) -> AsyncEnv:
        """Read and set environment variables."""
        from .env import AsyncEnv

        return AsyncEnv(self._session)

    @cached_property
    def oss(self) -> AsyncOss:
        """Copy files to and from object storage."""
        from .oss import AsyncOss

        return AsyncOss(self._session)

    @cached_property
    def browser(self) -> AsyncBrowser:
        """The browser."""
        from .browser import AsyncBrowser

        return AsyncBrowser(self._session)

    @cached_property
    def agent(self) -> AsyncAgent:
        """Agents, which do tasks that are given in words."""
        from .agent import AsyncAgent

        return AsyncAgent(self._session)

    @cached_property
    def computer(self) -> AsyncComputer:
        """The desktop: mouse, keyboard, screen, windows, applications."""
        from .computer import AsyncComputer

        return AsyncComputer(self._session)

    @cached_property
    def mobile(self) -> AsyncMobile:
        """The phone: touch, keys, elements of the screen, applications."""
        from .mobile import AsyncMobile

        return AsyncMobile(self._session)

    @cached_property
    def context(self) -> AsyncContextManager:
        """Copy and bind contexts."""
        from .context_manager import AsyncContextManager

        return AsyncContextManager(self._session)

    @property
    def fs(self) -> AsyncFileSystem:
        """The same as `file_system`."""
        return self.file_system

    @property
    def filesystem(self) -> AsyncFileSystem:
        """The same as `file_system`."""
        return self.file_system

    @property
    def files(self) -> AsyncFileSystem:
        """The same as `file_system`."""
        return self.file_system

    @cached_property
    def pty(self) -> AsyncPty:
        """Open terminals."""
        from .pty import AsyncPty

        return AsyncPty(self._session)

    @cached_property
    def ws(self) -> AsyncWsClient:
        """The session's WebSocket, for this package's own use."""
        from .ws_client import AsyncWsClient

        # Closing the client must also close the WebSocket of a session that nobody deletes.
        made = AsyncWsClient(self._session)
        self._session.agent_bay.client.register_websocket(made)
        return made

    @property
    def _session(self) -> AsyncSession:
        raise NotImplementedError
