# SPDX-License-Identifier: Apache-2.0
"""What the Python clients share: reading visits, making them one after another, telling what was seen.

It imports nothing but the standard library: the clients run in environments of their own.
"""

from __future__ import annotations

import asyncio
import json
import sys

SECONDS = 20
VISIT_SECONDS = 90


def plain(model):
    """A model of pydantic as it stands on the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def answer(field):
    """What everybody fills in: the default, or the first choice, or something of the type."""
    if "default" in field:
        return field["default"]
    if "enum" in field or "oneOf" in field:
        return (field.get("enum") or [each["const"] for each in field["oneOf"]])[0]
    return {"string": "said", "boolean": True, "array": [], "integer": 7, "number": 7}[field["type"]]


def form(schema):
    """A form filled in."""
    return {name: answer(each) for name, each in (schema or {}).get("properties", {}).items()}


async def steps(visitor, failure):
    """What each step of a visit told. `failure` is the error that carries a JSON-RPC error as `.error`."""
    told = []
    for step in visitor.visit["steps"]:
        visitor.logged.clear()
        try:
            async with asyncio.timeout(SECONDS):
                one = await getattr(visitor, step["do"])(step)
        except failure as error:
            one = {"error": [error.error.code, error.error.message]}
        except Exception as error:  # noqa: BLE001 -- whatever a client raises is what its user sees
            one = {"error": [type(error).__name__, causes(error)]}
        told.append({**one, "logged": list(visitor.logged)} if visitor.logged else one)
    return told


async def pages(ask, field, following):
    """Every page of a list. `ask` takes a cursor; `following` is the name of the next one."""
    found, cursor = [], None
    while True:
        page = await ask(cursor)
        found += [plain(each) for each in getattr(page, field)]
        if (cursor := getattr(page, following)) is None:
            return {"listed": found}


async def cancelled(call, begun):
    """Waits until the call is under way, and leaves it."""
    task = asyncio.ensure_future(call)
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return {"cancelled": True}


async def news(heard, what):
    """The next news of a kind; other news may come at any time."""
    while (told := await heard.get())[0] != what:
        pass
    return {"heard": told}


def main(visitor):
    """Visits what stands on stdin; `visitor` makes one visit of a visit's dict and has `run`."""

    async def all_of_them():
        told = {}
        for visit in json.load(sys.stdin):
            try:
                told[visit["key"]] = await asyncio.wait_for(visitor(visit).run(), VISIT_SECONDS)
            except Exception as error:  # noqa: BLE001 -- as above
                told[visit["key"]] = {"failed": causes(error)}
        json.dump(told, sys.stdout)

    asyncio.run(all_of_them())


def causes(error):
    inner = [causes(each) for each in getattr(error, "exceptions", ())]
    return " ".join(inner) if inner else f"{type(error).__name__}: {error}".strip()
