"""The options of a private local runtime."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypedDict, get_type_hints

from .._arguments import ArgumentCheck

# Say how it is started; the runtime itself has no such options.
OF_THE_LAUNCHER = ("container", "container_image")
_PLURALS = {"allow_hosts": "allow_host", "storage_hosts": "storage_host"}


class LocalOptions(TypedDict, total=False):
    """Options of a local runtime, as `AgentBay.local()` and `local_runtime()` take them.

    Those that are None or missing have the defaults of the command `agentbay local`. A size is a number of bytes or a
    text such as "2GiB".

    Attributes:
        container: Engine that runs it in a container, "docker" or "podman". None is a process of this machine on Linux;
            elsewhere it is the first of the two that is installed and answers.
        container_image: Image of that container; None is one of this version, which the first start builds.
        state_dir: Directory for its files; None is a temporary one that goes with it. In a container, the name of a
            volume of the engine.
        isolation: "auto" isolates by namespaces, and refuses where a machine forbids them. "landlock" and "none"
            leave more or less open; `agentbay local doctor` says what.
        network: Of sessions that do not say by `policy_id`: "none"; "proxy", a proxy to what this machine's package
            clients are set up to reach; "host", this machine's own. None means "proxy", or "host" without namespaces.
        allow_hosts: HOST or HOST:PORT each, which the proxy allows too. Without a port: 80 and 443.
        storage_hosts: Storage that sessions may copy from and to although its address is not public, HOST[:PORT].
        context_store: Bucket that keeps the files of contexts, as s3://BUCKET/PREFIX?endpoint=https://...; credentials
            come from the environment. None is the state directory.
        skills: Folder whose subdirectories with a `SKILL.md` are the skills that sessions can load.
        model_url: OpenAI-compatible endpoint of a model for the operator and the agents. Its key comes from the
            environment variable `AGENTBAY_MODEL_API_KEY`.
        model: Name of that model.
        task_steps: Steps that one task of the model may take.
        task_time: Seconds that one task of the model may take.
        task_tokens: Tokens that one task of the model may read and write.
        image_registry: Registry of images whose names have no host, as HOST or HOST/PATH.
        image_mirror: Mirror that is asked for all images; the name of an image with its host is appended.
        link_url: Whether clients may call the tools of a session directly.
        start_ahead: Whether the browser or desktop of the next session is started ahead, once a session has used one.
        max_sessions: Sessions at a time.
        session_memory: Size of the memory of a session.
        session_processes: Processes and threads of a session.
        session_disk: Size of the disk space of a session.
        session_cpus: Processors of a session, such as 0.5; needs control groups.
        session_open_files: Open files of each process of a session.
        output_limit: Size kept of each output stream of a command.
        memory: Size of the memory of all sessions together.
        processes: Processes of all sessions together.
        cpus: Processors of all sessions together; needs control groups.
    """

    container: Literal["docker", "podman"] | None
    container_image: str | None
    state_dir: str | None
    isolation: str
    network: str | None
    allow_hosts: Sequence[str]
    storage_hosts: Sequence[str]
    context_store: str | None
    skills: str | None
    model_url: str | None
    model: str | None
    task_steps: int | None
    task_time: float | None
    task_tokens: int | None
    image_registry: str | None
    image_mirror: str | None
    link_url: Literal["on", "off"]
    start_ahead: Literal["on", "off"]
    max_sessions: int | None
    session_memory: int | str | None
    session_processes: int | None
    session_disk: int | str | None
    session_cpus: float | None
    session_open_files: int | None
    output_limit: int | str | None
    memory: int | str | None
    processes: int | None
    cpus: float | None


def command_line(options: LocalOptions) -> list[str]:
    """Return the command line of `agentbay local` that these options stand for.

    Raises:
        InvalidArgumentError: An option has a wrong type.
        TypeError: There is no option of that name.
    """
    _checker()((), options)
    arguments = []
    for name, given in options.items():
        if name in OF_THE_LAUNCHER:
            continue
        values = given if isinstance(given, (list, tuple)) else [given]
        arguments += [f"{option_name(name)}={value}" for value in values if value not in (None, "")]
    return arguments


def option_name(name: str) -> str:
    """Return the option of the command line that a name of `LocalOptions` stands for."""
    return f"--{_PLURALS.get(name, name).replace('_', '-')}"


def names_by_option() -> Mapping[str, str]:
    """Return the names of `LocalOptions` by the options of the command line."""
    return {option_name(name): name for name in LocalOptions.__annotations__}


@cache
def _checker() -> ArgumentCheck:
    def local(self: object, **_: Any) -> None: ...

    kinds = get_type_hints(LocalOptions)
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in kinds.items()]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    local.__signature__ = inspect.Signature([this, *named])  # type: ignore[attr-defined]
    return ArgumentCheck(local)
