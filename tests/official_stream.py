"""One program for the official client and ours: what goes over the WebSocket, tasks of agents and notifications.

Run as `official_stream.py FLAVOUR WS_URL`. Prints what each step returned and told, as JSON. In public the official
client follows tasks of a phone only; what its agents of browsers and desktops have for that is private.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import agentbay
from agentbay import Config

sys.path.insert(0, str(Path(__file__).parent))
from official_ui import resolve

KINDS = ("reasoning", "content", "tool_call", "tool_result", "error")
STEPS = {
    "events": {},
    "a person is asked": {"answer": "1234"},
    "a person has no answer": {"answer": None},
    "a person fails": {"answer": ValueError("nobody there")},
    "nobody is asked": {},
    "an error": {},
    "a bad end": {},
    "an end without a result": {},
    "a result of its own": {},
    "late": {"timeout": 1},
}
ASKING = [step for step in STEPS if "person" in step or "nobody" in step]
OURS = hasattr(agentbay.AsyncAgent.Computer, "stream_task")


async def follow(agent, name, task, timeout, callbacks):
    if name == "mobile":
        return await resolve(agent.execute_task_and_wait(task, timeout, max_steps=7, **callbacks))
    if OURS:
        agent.initialized = True
        return await resolve(agent.execute_task_and_wait(task, timeout, **callbacks))
    params = {"task": task}
    if name == "browser":
        from agentbay._async.agent import DefaultSchema

        schema = json.dumps(DefaultSchema.model_json_schema())
        params.update(use_vision=False, full_page_screenshot=False, output_schema=schema)
    return await resolve(agent._execute_task_stream_ws(params, timeout, **callbacks))


async def exchange_notifications(browser):
    told = []

    def tell(message):
        told.append([getattr(message, name) for name in ("type", "id", "code", "message", "action", "extra_params")])

    results = [await resolve(browser.register_callback(tell))]
    note = agentbay.BrowserNotifyMessage("note", 1, 0, "hällo", "answer", {"x": [1]})
    results.append(await resolve(browser.send_notify_message(note)))
    deadline = time.monotonic() + 60
    while len(told) < 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    results.append(await resolve(browser.send_takeover_done(7)))
    await resolve(browser.unregister_callback())
    return {"told": told, "result": results}


async def main(flavour, url):
    kind = "Async" if flavour == "async" else ""
    client = getattr(agentbay, f"{kind}AgentBay")(api_key="akm-EXAMPLE", cfg=Config(endpoint="http://127.0.0.1:9"))
    session = getattr(agentbay, f"{kind}Session")(client, "session-x")
    session.ws_url, session.token = url, "token"
    found = {"notifications": await exchange_notifications(session.browser)}
    for name in ("mobile", "browser", "computer"):
        for step, how in STEPS.items():
            if flavour == "sync" and step in ASKING and not OURS:  # it hangs, or loses its connection
                continue
            session = getattr(agentbay, f"{kind}Session")(client, "session-x")
            session.ws_url, session.token = url, "token"
            told = []

            def ask(event, how=how, told=told):
                told.append(["asked", event.prompt, event.tool_call_id])
                if isinstance(how["answer"], Exception):
                    raise how["answer"]
                return how["answer"]

            def tell(event, told=told):
                facts = (event.type, event.seq, event.round, event.content, event.tool_call_id, event.tool_name)
                told.append([*facts, event.args, event.result, event.error])

            callbacks = {f"on_{kind}": tell for kind in KINDS}
            if "answer" in how:
                callbacks["on_call_for_user"] = ask
            done = await follow(getattr(session.agent, name), name, step, how.get("timeout", 20), callbacks)
            result = [done.success, done.task_status, done.task_result, done.error_message, done.task_id]
            found[f"{name}: {step}"] = {"told": told, "result": result}
    print(json.dumps(found, sort_keys=True), flush=True)
    os._exit(0)  # the official client's threads go on reconnecting for ever


asyncio.run(main(*sys.argv[1:]))
