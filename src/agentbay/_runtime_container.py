"""Runs a private local runtime in a container of docker or podman."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, cast

from ._runtime_wheel import write_wheel
from .errors import ConfigurationError
from .models.local_options import LocalOptions, command_line

ENGINES = ("docker", "podman")  # in the order of search
_CONTAINERFILE = Path(__file__).parent / "local" / "Containerfile"
_IMAGE = "localhost/agentbay-local"
_PORT = 8080
_STATE_DIR = "/var/lib/agentbay"
_SKILLS_DIR = "/skills"
_ENGINE_TIMEOUT_SECONDS = 30.0
_BUILD_TIMEOUT_SECONDS = 1800.0
_SHOWN_LINES = 20  # of what a failed build says
# The runtime makes namespaces and mounts as an ordinary user without capabilities. The profiles of the engines forbid
# that, and their masks of /proc forbid mounting another one.
_SECURITY = (
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--security-opt=seccomp=unconfined",
    "--security-opt=systempaths=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=label=disable",
)
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_LOOPBACK = re.compile(r"(?:^|//|@)(?:localhost|127\.[0-9.]+|\[::1\])(?=[:/?]|$)")
_REACHED_FROM_INSIDE = ("model_url", "context_store", "image_registry", "image_mirror")  # options that name a host
_CREDENTIALS = {"model_url": ("AGENTBAY_MODEL_API_KEY",), "context_store": ("AWS_", "OSS_")}  # beginnings of variables
_logger = logging.getLogger("agentbay")


class ContainerRuntime:
    """A private runtime in a container.

    The container ends and is removed when its standard input closes.
    """

    start_timeout_seconds = 120.0  # of a virtual machine with a cold cache

    def __init__(self, options: LocalOptions) -> None:
        """Take the options.

        Raises:
            InvalidArgumentError: An option has a wrong type.
            TypeError: There is no option of that name.
        """
        command_line(options)  # refuses what is wrong now, and not at the start
        self._options = options
        self._engine = ""
        self._name = f"agentbay-{secrets.token_hex(8)}"

    def spawn(self, stderr_file: IO[str]) -> subprocess.Popen[str]:
        """Start the container, after its image is made if need be.

        Raises:
            ConfigurationError: No engine answers, the image cannot be built, or an option has no meaning there.
        """
        run_options, arguments = _translate(self._options)
        self._engine = find_container_engine(self._options.get("container"))
        image = self._options.get("container_image") or _make_image(self._engine)
        command = [self._engine, "run", "--rm", "--interactive", f"--name={self._name}", *_SECURITY, *run_options]
        command += [f"--publish=127.0.0.1::{_PORT}", "--pids-limit=-1", "--entrypoint=python", image]
        command += ["-P", "-m", "agentbay.local", "--log-level=warning", "--published=loopback", f"--port={_PORT}"]
        return subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr_file,
            text=True,
            # Ctrl-C must reach this process alone, on Windows too.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def url(self, ready_line: str) -> str:
        """Return the URL of the port that the engine has published.

        Raises:
            ConfigurationError: The engine does not know it.
        """
        done = _run([self._engine, "port", self._name, str(_PORT)])
        address = done.stdout.split()
        if done.returncode or not address:
            raise ConfigurationError(f"The local runtime cannot start: {self._engine} port: {done.stderr.strip()}")
        return f"http://{address[0]}"

    def kill(self, child: subprocess.Popen[str]) -> None:
        """End the container, whatever it does, and remove it."""
        child.kill()
        _run([self._engine, "rm", "--force", "--volumes", self._name])


def find_container_engine(engine: str | None) -> str:
    """Return the path of an engine that answers.

    Raises:
        ConfigurationError: There is none; the message says what to install or to start.
    """
    problems = []
    for name in [engine] if engine else ENGINES:
        program = shutil.which(name)
        if program is None:
            problems.append(f"{name} is not installed")
            continue
        done = _run([program, "ps", "--quiet"])
        if done.returncode == 0:
            return program
        problems.append(f"{name} does not answer ({_last_lines(done.stderr, 1)})")
    raise ConfigurationError(
        f"The local runtime needs Linux or a container engine; this is {sys.platform}, and {', '.join(problems)}.",
        hint="Install Docker (https://docs.docker.com/get-started/get-docker/) or Podman (https://podman.io), and "
        "start it. Or use the cloud with an API key.",
    )


def _translate(options: LocalOptions) -> tuple[list[str], list[str]]:
    """Return options of the engine and arguments of the runtime.

    Raises:
        ConfigurationError: An option names something that a container does not reach.
    """
    given = cast("dict[str, Any]", options.copy())
    for name in _REACHED_FROM_INSIDE:
        if given.get(name) and _LOOPBACK.search(given[name]):
            raise ConfigurationError(
                f"{name}={given[name]!r} is the loopback of this machine, which the runtime in a container does not "
                "reach.",
                hint="Write host.docker.internal (docker) or host.containers.internal (podman) as its host.",
            )
    run_options = [f"--volume={_state_volume(given.get('state_dir'))}{_STATE_DIR}"]
    given["state_dir"] = _STATE_DIR
    if given.get("skills"):
        source = Path(given["skills"]).expanduser().absolute()
        run_options.append(f'--mount=type=bind,"source={source}",target={_SKILLS_DIR},readonly')
        given["skills"] = _SKILLS_DIR
    for option, beginnings in _CREDENTIALS.items():
        if given.get(option):
            # Without a value: the engine takes it from its environment, and no command line shows it.
            run_options += [f"--env={name}" for name in os.environ if name.startswith(beginnings)]
    return run_options, command_line(cast("LocalOptions", given))


def _state_volume(state_dir: str | None) -> str:
    if not state_dir:
        return ""  # a volume without a name, which goes with the container
    if not _VOLUME_NAME.fullmatch(state_dir):
        raise ConfigurationError(
            f"state_dir={state_dir!r} is no name of a volume, where a runtime in a container keeps its files.",
            hint="Give a name, such as 'agentbay'; the engine makes the volume.",
        )
    return f"{state_dir}:"


def _make_image(engine: str) -> str:
    """Return the image of this version, and build it if the engine has none."""
    with tempfile.TemporaryDirectory(prefix="agentbay-image-") as directory:
        tag = write_wheel(Path(directory))
        image = f"{_IMAGE}:{tag}"
        if _run([engine, "image", "inspect", image]).returncode == 0:
            return image
        _logger.warning("%s builds the image of the local runtime (%s), once; this takes some minutes", engine, image)
        done = _run([engine, "build", f"--tag={image}", f"--file={_CONTAINERFILE}", directory], _BUILD_TIMEOUT_SECONDS)
    if done.returncode:
        raise ConfigurationError(
            f"The image of the local runtime cannot be built by {engine}: "
            f"{_last_lines(done.stdout + done.stderr, _SHOWN_LINES)}",
            hint=f"Build one from {_CONTAINERFILE}, on a base that can be pulled, and name it: container_image=...",
        )
    return image


def _run(command: list[str], timeout: float = _ENGINE_TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {timeout:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", error.strerror or str(error))


def _last_lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[-count:]) or "it gave no reason"
