"""Object storage, reached from inside a session."""

from __future__ import annotations

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._transport.oss import read_oss_init, read_oss_text
from .._wire.tools import OssDownload, OssDownloadAnonymous, OssEnvInit, OssUpload, OssUploadAnonymous
from ..models.oss import OSSClientResult, OSSDownloadResult, OSSUploadResult
from .error_boundary import folded
from .service import AsyncBaseService


@checked_arguments()
class AsyncOss(AsyncBaseService):
    """Move files between a session and object storage (OSS).

    They do not pass through this machine.

    Keys, tokens and presigned URLs are in no error and no repr.
    """

    @folded(OSSClientResult)
    async def env_init(
        self,
        access_key_id: str,
        access_key_secret: str,
        security_token: str,
        endpoint: str | None = None,
        region: str | None = None,
        *,
        timeout: float | None = None,
    ) -> OSSClientResult:
        """Set the temporary credentials that `upload` and `download` use.

        Args:
            access_key_id, access_key_secret, security_token: As the security token service issued them.
            endpoint: Host of the storage; None is the one of the session's region.
            region: Region of the storage; None is the session's.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/oss_env_init
        """
        with time_limit(timeout):
            call = OssEnvInit(
                access_key_id=access_key_id,
                access_key_secret=access_key_secret,
                security_token=security_token,
                endpoint=endpoint or None,
                region=region or None,
            )
            reply = await self.session._run_tool(call)
            # The tool's error may repeat the credentials, so they are handed over to be redacted.
            text = read_oss_init(reply, (access_key_id, access_key_secret, security_token))
            return OSSClientResult(request_id=reply.request_id, success=True, client_config=text)

    @folded(OSSUploadResult)
    async def upload(self, bucket: str, object: str, path: str, *, timeout: float | None = None) -> OSSUploadResult:
        """Copy a file of the session into a bucket.

        Needs `env_init`.

        Args:
            bucket: The bucket.
            object: What to call it there.
            path: The file in the session.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/oss_upload
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(OssUpload(bucket=bucket, object=object, path=path))
            text = read_oss_text(reply, "Failed to upload to OSS")
            return OSSUploadResult(request_id=reply.request_id, success=True, content=text)

    @folded(OSSUploadResult)
    async def upload_anonymous(self, url: str, path: str, *, timeout: float | None = None) -> OSSUploadResult:
        """Send a file of the session to a presigned URL.

        Args:
            url: The URL, made for uploading.
            path: The file in the session.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/oss_upload_annon
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(OssUploadAnonymous(url=url, path=path))
            text = read_oss_text(reply, "Failed to upload anonymously", url)
            return OSSUploadResult(request_id=reply.request_id, success=True, content=text)

    @folded(OSSDownloadResult)
    async def download(self, bucket: str, object: str, path: str, *, timeout: float | None = None) -> OSSDownloadResult:
        """Copy an object of a bucket into a file of the session.

        Needs `env_init`.

        Args:
            bucket: The bucket.
            object: What it is called there.
            path: The file in the session.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/oss_download
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(OssDownload(bucket=bucket, object=object, path=path))
            text = read_oss_text(reply, "Failed to download from OSS")
            return OSSDownloadResult(request_id=reply.request_id, success=True, content=text)

    @folded(OSSDownloadResult)
    async def download_anonymous(self, url: str, path: str, *, timeout: float | None = None) -> OSSDownloadResult:
        """Fetch a presigned URL into a file of the session.

        Args:
            url: The URL, made for downloading.
            path: The file in the session.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/oss_download_annon
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(OssDownloadAnonymous(url=url, path=path))
            text = read_oss_text(reply, "Failed to download anonymously", url)
            return OSSDownloadResult(request_id=reply.request_id, success=True, content=text)
