"""Browser extensions, kept in a context from which sessions load them."""

from __future__ import annotations

import time
import uuid
from builtins import list as List  # noqa: N812 - a method is called list
from pathlib import Path
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._concurrency import async_run_blocking
from .._transport.deadline import time_limit
from ..errors import AgentBayError, InvalidArgumentError
from ..models.browser import ExtensionOption
from ..models.context_results import Context
from ..models.extension import Extension

if TYPE_CHECKING:
    from .client import AsyncAgentBay

_FOLDER = "/tmp/extensions"
_PAGE_SIZE = 100  # extensions


@checked_arguments()
class AsyncExtensionsService:
    """Store browser extensions, and choose which of them a session loads.

    Attributes:
        context_name: The name of the context that holds them.
        auto_created: Whether this service has made up that name, so that `cleanup` deletes the context.
    """

    def __init__(self, agent_bay: AsyncAgentBay, context_id: str = "") -> None:
        if agent_bay is None:
            raise InvalidArgumentError("agent_bay is required")
        self.agent_bay = agent_bay
        self.context_service = agent_bay.context
        self.auto_created = not context_id
        self.context_name = context_id or f"extensions-{int(time.time())}"
        self.context_id = ""
        self.extension_context: Context | None = None

    async def create(self, local_path: str, *, timeout: float | None = None) -> Extension:
        """Store an extension.

        Args:
            local_path: The extension, packed as a ZIP file.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            FileNotFoundError: There is no such file.
            InvalidArgumentError: It is no ZIP file.
            AgentBayError: It could not be stored.

        Wire: GetContext, GetContextFileUploadUrl
        """
        with time_limit(timeout):
            await async_run_blocking(_check_file, local_path)
            if Path(local_path).suffix.lower() != ".zip":
                raise InvalidArgumentError(
                    f"Unsupported plugin format '{Path(local_path).suffix}'. Only ZIP format (.zip) is supported."
                )
            extension_id = f"ext_{uuid.uuid4().hex}.zip"
            await self._upload(local_path, extension_id)
            return Extension(extension_id, Path(local_path).name)

    async def list(self, *, timeout: float | None = None) -> List[Extension]:
        """List the extensions.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            AgentBayError: They cannot be listed.

        Wire: GetContext, DescribeContextFiles
        """
        with time_limit(timeout):
            try:
                context = await self._get_context()
                found = await self.context_service._list_folder(context.id, _FOLDER, _PAGE_SIZE)
            except AgentBayError as error:
                raise AgentBayError(
                    f"An error occurred while listing browser extensions: {error.message}", **error.context()
                ) from error
            return [Extension(entry.file_name, entry.file_name, entry.gmt_create) for entry in found]

    async def update(self, extension_id: str, new_local_path: str, *, timeout: float | None = None) -> Extension:
        """Replace an extension.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            FileNotFoundError: There is no such file.
            InvalidArgumentError: There is no such extension.
            AgentBayError: It could not be stored.

        Wire: DescribeContextFiles, GetContextFileUploadUrl
        """
        with time_limit(timeout):
            await async_run_blocking(_check_file, new_local_path)
            # Uploading would create a new extension under a mistyped id.
            if extension_id not in [extension.id for extension in await self.list()]:
                raise InvalidArgumentError(
                    f"Browser extension with ID '{extension_id}' not found in the context. Cannot update."
                )
            await self._upload(new_local_path, extension_id)
            return Extension(extension_id, Path(new_local_path).name)

    async def delete(self, extension_id: str, *, timeout: float | None = None) -> bool:
        """Delete an extension.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            Whether the service has deleted it.

        Wire: DeleteContextFile
        """
        with time_limit(timeout):
            context = await self._get_context()
            return (await self.context_service.delete_file(context.id, f"{_FOLDER}/{extension_id}")).success

    async def cleanup(self, *, timeout: float | None = None) -> bool:
        """Delete the context, if this service has made it.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Returns:
            False if the service refuses.

        Wire: DeleteContext
        """
        with time_limit(timeout):
            if not self.auto_created or self.extension_context is None:
                return True
            deleted = await self.context_service.delete(self.extension_context)
            if deleted.success:
                self.extension_context, self.context_id = None, ""
            return deleted.success

    async def create_extension_option(
        self, extension_ids: List[str], *, timeout: float | None = None
    ) -> ExtensionOption:
        """Choose which extensions a session loads, for `BrowserContext(extension_option=...)`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            ValueError: No extension was chosen.

        Wire: GetContext
        """
        with time_limit(timeout):
            return ExtensionOption((await self._get_context()).id, extension_ids)

    async def _get_context(self) -> Context:
        if self.extension_context is None:
            found = await self.context_service.get(self.context_name, create=True)
            if not found.success or found.context is None:
                raise AgentBayError(
                    f"Failed to create extension repository context: {self.context_name}: {found.error_message}"
                ) from found.exception
            self.extension_context, self.context_id = found.context, found.context.id
        return self.extension_context

    async def _upload(self, local_path: str, extension_id: str) -> None:
        context = await self._get_context()
        await self.context_service.upload(context.id, local_path, f"{_FOLDER}/{extension_id}")


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"The specified local file was not found: {path}")
