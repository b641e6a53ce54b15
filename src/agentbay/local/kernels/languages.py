"""The languages, and how the kernel of each is started in a sandbox."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.kernels.programs.memory_limit import LIMIT_VARIABLE
from agentbay.local.kernels.python_program import python_program
from agentbay.local.sandbox.service.manager import Sandbox

KernelFactory = Callable[[Sandbox, Mapping[str, str], ByteBudget], Awaitable[Kernel]]

_PROGRAMS = Path(__file__).with_name("programs")
_JUPYTER = re.compile(r"jupyter:([a-z0-9._-]+)")  # followed by the name of a kernelspec
_NOT_FOUND = "exited with 127"  # of a kernel whose program is not there
_SANDBOX_PATH = "/usr/local/bin:/usr/bin:/bin"  # the part of PATH that sandboxes share with this machine
# A loader reads the program from the socket: the files of this package are not visible in every sandbox.
_PYTHON_LOADER = (
    "import os\n"
    "def read(n):\n"
    " b=b''\n"
    " while len(b)<n: b+=os.read(0,n-len(b)) or os._exit(1)\n"
    " return b\n"
    "exec(compile(read(int.from_bytes(read(4),'little')),'<kernel>','exec'))"
)
_IPYTHON_COPY = """\
import sys
if sys.version_info < {version}:
    sys.exit("The image's Python is older than %d.%d, which code needs; commands can use it." % {version})
sys.path.append({path!r})
"""
PYTHON_ENVIRONMENT = {"IPYTHONDIR": "/tmp/.ipython", "MPLCONFIGDIR": "/tmp/.matplotlib"}  # not below the user's home

_NODE_LOADER = (
    "{const fs=require('fs');"  # in a block, so that code can declare these names again
    "const read=(n)=>{const b=Buffer.alloc(n);let i=0;"
    "while(i<n){const k=fs.readSync(3,b,i,n-i);if(!k)process.exit(1);i+=k}return b};"
    "new Function('require','dynamicImport',read(read(4).readUInt32LE(0)).toString())"
    "(require,(name,options)=>import(name,options))}"
)
# The first gives the kernel the parser of Node's REPL. The second lets it survive an interrupt in the callback of a
# timer: Node would find its asynchronous context open, and abort.
_NODE_OPTIONS = "--expose-internals --no-force-async-hooks-checks"
# Java runs a file, which the program deletes; the options shorten the start
_JAVA_LOADER = (
    'd=$(mktemp -d) && head -c "$1" | tail -c +5 >"$d/JavaKernel.java" && '
    "exec java -Xshare:auto -XX:TieredStopAtLevel=1 -XX:+UseSerialGC --add-modules jdk.jshell "
    "--add-opens java.base/java.lang=ALL-UNNAMED "  # to change the environment
    '"$d/JavaKernel.java"'
)
_R_LOADER = (
    "local({incoming<-pipe(\"trap '' INT;exec cat<&3\",'rb');"
    "eval(parse(text=readChar(incoming,readBin(incoming,'integer',1,4,endian='little'),TRUE),keep.source=FALSE))})"
)


class LanguageNotInstalled(Exception):
    """This machine lacks a program or a library.

    The message says how to install it.
    """

    code = "LanguageNotInstalled.Local"


async def start_python(sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
    """Start a Python kernel as a new process."""
    if find_spec("IPython") is None:
        raise LanguageNotInstalled('Python kernels need IPython: pip install "agentbay-sdk[local,data]"')
    argv = [sandbox.python, "-I", "-X", "utf8", "-c", _PYTHON_LOADER]
    return await start(sandbox, argv, {**env, **python_environment(sandbox)}, python_program(), budget)


async def start_image_python(sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
    """Start a kernel by the own Python of an image."""
    if find_spec("IPython") is None:
        raise LanguageNotInstalled('Python kernels need IPython: pip install "agentbay-sdk[local,data]"')
    from agentbay.local.kernels import ipython_copy  # it imports importlib.metadata

    # Not isolated (-I), since an image may set PYTHONPATH. Its own IPython comes before the one that it is given.
    loader = _IPYTHON_COPY.format(version=ipython_copy.required_version(), path=ipython_copy.IPYTHON_COPY_PATH)
    argv = [sandbox.python, "-X", "utf8", "-c", loader + _PYTHON_LOADER]
    return await start(sandbox, argv, {**env, **python_environment(sandbox)}, python_program(), budget)


@contextmanager
def _needing(sandbox: Sandbox, program: str, need: str, package: str) -> Iterator[None]:
    """Say what this machine or the image lacks when a kernel is started.

    Raises:
        LanguageNotInstalled: It is not there.
    """
    if sandbox.image is None and shutil.which(program, path=_SANDBOX_PATH) is None:
        raise LanguageNotInstalled(f"{need}: apt-get install {package}")
    try:
        yield
    except KernelFailed as error:
        if sandbox.image is None or _NOT_FOUND not in str(error):
            raise
        raise LanguageNotInstalled(f"{need}, which the image of this session has not.") from error


async def start_javascript(sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
    """Start a JavaScript kernel."""
    # the shell moves the socket away from standard input, which code may read
    argv = ["sh", "-c", f'exec node {_NODE_OPTIONS} -e "$0" 3<&0 0</dev/null', _NODE_LOADER]
    with _needing(sandbox, "node", "JavaScript kernels need sh and Node.js 18 or later", "nodejs"):
        return await start(sandbox, argv, env, _program("node_kernel.js"), budget, interrupt_by_frame=True)


async def start_java(sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
    """Start a Java kernel, which takes seconds."""
    program = _program("JavaKernel.java")
    argv = ["sh", "-c", _JAVA_LOADER, "sh", str(len(program) + 4)]
    need = "Java kernels need sh and a JDK 17 or later, not only its runtime"
    with _needing(sandbox, "jshell", need, "openjdk-17-jdk-headless"):
        return await start(sandbox, argv, env, program, budget, interrupt_by_frame=True)


async def start_r(sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
    """Start an R kernel."""
    argv = ["sh", "-c", 'exec R --no-echo --no-save --no-restore --no-environ -e "$0" 3<&0 0</dev/null', _R_LOADER]
    with _needing(sandbox, "R", "R kernels need sh and R 4.0 or later", "r-base-core"):
        return await start(sandbox, argv, env, _program("r_kernel.R"), budget)


async def start_jupyter(spec: str, sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
    """Start the kernel of a kernelspec that is found inside the sandbox."""
    if find_spec("jupyter_client") is None:
        raise LanguageNotInstalled('Kernels of Jupyter need jupyter_client: pip install "agentbay-sdk[jupyter]"')
    argv = [sandbox.python, "-I", "-X", "utf8", "-c", _PYTHON_LOADER, spec]
    places = [*filter(None, [env.get("JUPYTER_PATH")]), f"{sys.prefix}/share/jupyter"]
    environment = {**env, **PYTHON_ENVIRONMENT, "JUPYTER_PATH": ":".join(places)}
    return await start(sandbox, argv, environment, _program("jupyter_kernel.py"), budget, interrupt_by_frame=True)


async def start(
    sandbox: Sandbox,
    argv: Sequence[str],
    env: Mapping[str, str],
    program: bytes,
    budget: ByteBudget,
    *,
    interrupt_by_frame: bool = False,
) -> Kernel:
    """Start a kernel as a command that reads its program from the socket.

    Args:
        argv: The command, a loader for the program.
    """
    kernel = Kernel(sandbox, budget, interrupt_by_frame=interrupt_by_frame)
    await kernel.connection.open()
    # The sandbox closes these descriptors, so the connection must not close the same numbers again.
    fds, kernel.connection.kernel_fds[:] = list(kernel.connection.kernel_fds), []
    ended = sandbox.start_command(argv, fds, env=env)
    kernel.connection.send_bytes(program)
    await kernel.wait_until_ready(ended)
    return kernel


def python_environment(sandbox: Sandbox) -> dict[str, str]:
    """Return the variables that a Python kernel needs beside those of its session."""
    memory = sandbox.watchdog.limits.total_memory_bytes
    return {**PYTHON_ENVIRONMENT, **({LIMIT_VARIABLE: str(memory)} if memory else {})}


@cache
def _program(name: str) -> bytes:
    return (_PROGRAMS / name).read_bytes()


_FACTORIES: dict[str, KernelFactory] = {
    "python": start_python,
    "javascript": start_javascript,
    "java": start_java,
    "r": start_r,
}


LANGUAGES = tuple(_FACTORIES)


def is_known(language: str) -> bool:
    """Return whether there is such a language, installed or not."""
    return language in _FACTORIES or _JUPYTER.fullmatch(language) is not None


def get_factory(language: str) -> KernelFactory:
    """Return the function that starts a kernel of a known language."""
    spec = _JUPYTER.fullmatch(language)
    return partial(start_jupyter, spec[1]) if spec else _FACTORIES[language]
