"""Descriptions of devices that a phone can be made to look like."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._concurrency import async_run_blocking
from .._transport.deadline import time_limit
from ..errors import AgentBayError, InvalidArgumentError
from ..models.context import ContextSync, WhiteList
from ..models.mobile import MobileSimulateConfig, MobileSimulateMode, MobileSimulateUploadResult

if TYPE_CHECKING:
    from .client import AsyncAgentBay

_DIRECTORY_NAME = "agentbay_mobile_info"
_INTERNAL_PATH = f"/data/{_DIRECTORY_NAME}"
_FILE_NAME = "dev_info.json"
_PAGE_SIZE = 50  # entries


@checked_arguments()
class AsyncMobileSimulateService:
    """Keep the description of a device, and make the configuration that simulates it.

    Attributes:
        context_id: The context that holds the description; None as long as there is none.
        use_internal_context: Whether that context is the service's own, not one that a session synchronizes anyway.
        mobile_dev_info_path: Where a session finds the description.
    """

    def __init__(self, agent_bay: AsyncAgentBay) -> None:
        if agent_bay is None:
            raise InvalidArgumentError("agent_bay is required")
        if getattr(agent_bay, "context", None) is None:
            raise InvalidArgumentError("agent_bay.context is required")
        self.agent_bay = agent_bay
        self.context_service = agent_bay.context
        self.simulate_enable = False
        self.simulate_mode = MobileSimulateMode.PROPERTIES_ONLY
        self.context_id: str | None = None
        self.context_sync: ContextSync | None = None
        self.mobile_dev_info_path: str | None = None
        self.use_internal_context = True

    def set_simulate_enable(self, enable: bool) -> None:
        """Switch the simulation on or off."""
        self.simulate_enable = enable

    def get_simulate_enable(self) -> bool:
        """Whether the simulation is on."""
        return self.simulate_enable

    def set_simulate_mode(self, mode: MobileSimulateMode) -> None:
        """Choose which part of the device is simulated."""
        self.simulate_mode = mode

    def get_simulate_mode(self) -> MobileSimulateMode:
        """Return which part of the device is simulated."""
        return self.simulate_mode

    def set_simulate_context_id(self, context_id: str) -> None:
        """Use the description that an earlier `upload_mobile_info` has stored."""
        self.context_id = context_id
        self.mobile_dev_info_path = _INTERNAL_PATH
        self.use_internal_context = True

    def get_simulate_context_id(self) -> str | None:
        """Return the context that holds the description."""
        return self.context_id

    def get_simulate_config(self) -> MobileSimulateConfig:
        """Make the configuration for `MobileExtraConfig.simulate_config`."""
        return MobileSimulateConfig(
            simulate=self.simulate_enable,
            simulate_path=self.mobile_dev_info_path,
            simulate_mode=self.simulate_mode,
            simulated_context_id=self.context_id if self.use_internal_context else None,
        )

    async def has_mobile_info(self, context_sync: ContextSync, *, timeout: float | None = None) -> bool:
        """Whether a context holds a description already.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            InvalidArgumentError: If the context or its path is not given.
            AgentBayError: If that cannot be found out.

        Wire: DescribeContextFiles
        """
        with time_limit(timeout):
            _check_sync(context_sync)
            folder = f"{_directory_in(context_sync)}/"
            found = await self.context_service._list_folder(context_sync.context_id, folder, _PAGE_SIZE)
            if not any(entry.file_name == _FILE_NAME for entry in found):
                return False
            self._use_own_context(context_sync)
            return True

    async def upload_mobile_info(
        self, mobile_dev_info_content: str, context_sync: ContextSync | None = None, *, timeout: float | None = None
    ) -> MobileSimulateUploadResult:
        """Store the description of a device.

        Args:
            mobile_dev_info_content: The description, a JSON object.
            context_sync: The context that shall hold it; None makes one.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            InvalidArgumentError: If the description is empty or no JSON.

        Wire: GetContext, GetContextFileUploadUrl
        """
        with time_limit(timeout):
            _check_description(mobile_dev_info_content)
            try:
                if context_sync is None:
                    name = f"mobile_sim_{uuid.uuid4().hex}_{int(time.time())}"
                    made = (await self.context_service.get(name, create=True)).unwrap()
                    self.set_simulate_context_id(made.context_id)
                    path = f"{_INTERNAL_PATH}/{_FILE_NAME}"
                else:
                    _check_sync(context_sync)
                    self._use_own_context(context_sync)
                    _choose_directory(context_sync)
                    # Two slashes, as the published client writes: a store that keeps them apart has it under this name.
                    path = f"{self.mobile_dev_info_path}//{_FILE_NAME}"
                assert self.context_id is not None
                await self._upload(self.context_id, path, mobile_dev_info_content)
            except InvalidArgumentError:
                raise
            except AgentBayError as error:
                return MobileSimulateUploadResult(success=False, error_message=str(error))
            return MobileSimulateUploadResult(success=True, mobile_simulate_context_id=self.context_id)

    def _use_own_context(self, context_sync: ContextSync) -> None:
        self.context_id, self.context_sync = context_sync.context_id, context_sync
        self.mobile_dev_info_path = _directory_in(context_sync)
        self.use_internal_context = False

    async def _upload(self, context_id: str, path: str, content: str) -> None:
        # The transfer sends files only. The directory is private to this user, and goes also after a failure.
        with tempfile.TemporaryDirectory(prefix="agentbay-mobile-") as directory:
            file = Path(directory, _FILE_NAME)
            await async_run_blocking(file.write_text, content, "utf-8")
            await self.context_service.upload(context_id, file, path)


def _directory_in(context_sync: ContextSync) -> str:
    return f"{context_sync.path.rstrip('/')}/{_DIRECTORY_NAME}"


def _check_sync(context_sync: ContextSync) -> None:
    if context_sync is None:
        raise InvalidArgumentError("context_sync is required")
    if not context_sync.context_id:
        raise InvalidArgumentError("context_sync.context_id is required")
    if not context_sync.path:
        raise InvalidArgumentError("context_sync.path is required")


def _check_description(content: str) -> None:
    if not content:
        raise InvalidArgumentError("mobile_dev_info_content is required")
    try:
        described = json.loads(content)
    except ValueError as error:
        raise InvalidArgumentError(f"mobile_dev_info_content is not a valid JSON string: {error}") from error
    if not described or not isinstance(described, dict):
        raise InvalidArgumentError("mobile_dev_info_content is not a valid JSON string")


def _choose_directory(context_sync: ContextSync) -> None:
    """Let a white list of the synchronization choose the description too."""
    policy = context_sync.policy
    # Without a white list everything is synchronized, the description included.
    if policy is None or policy.bw_list is None or not policy.bw_list.white_lists:
        return
    entry = WhiteList(f"/{_DIRECTORY_NAME}/", [])
    if entry.path not in [chosen.path for chosen in policy.bw_list.white_lists]:
        policy.bw_list.white_lists.append(entry)
