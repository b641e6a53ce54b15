"""A web service that runs untrusted Python, one session per request. Needs FastAPI.

    python examples/service.py 8000
    curl -d 'print(6 * 7)' http://127.0.0.1:8000/run

The lifespan makes the one client, which all requests share.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from agentbay import AgentBayError, AsyncAgentBay, CommandTimeoutError

LARGEST = 64 * 1024  # bytes of a program
SECONDS = 5


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client when the service starts, and close it at the end."""
    async with AsyncAgentBay.local() as bay:
        app.state.bay = bay
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/run")
async def run(request: Request) -> JSONResponse:
    """Run the body of a request, and return its output."""
    bay: AsyncAgentBay = request.app.state.bay
    program = await request.body()
    if len(program) > LARGEST:
        return JSONResponse({"error": "The program is too long."}, 413)
    # If the caller goes away and the request is cancelled, the session is deleted all the same.
    async with bay.session() as session:
        (await session.file_system.write_file("program.py", program)).unwrap()
        result = await session.command.run("python3 program.py", timeout=SECONDS)
    if isinstance(result.exception, CommandTimeoutError):
        return JSONResponse({"error": f"It ran for more than {SECONDS} s.", "stdout": result.exception.stdout}, 422)
    result.unwrap()
    return JSONResponse({"exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr})


@app.exception_handler(AgentBayError)
async def failed(_: Request, error: Exception) -> JSONResponse:
    """Report a failed session, and whether a retry may help."""
    assert isinstance(error, AgentBayError)
    return JSONResponse({"error": error.message}, 503 if error.retryable else 500)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
