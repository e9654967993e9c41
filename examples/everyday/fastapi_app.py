"""A FastAPI endpoint that submits a task: `uvicorn fastapi_app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Form
from jobs import greeting

import galley


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with galley.AsyncClient() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/greet")
async def greet(name: Annotated[str, Form()]) -> dict[str, str]:
    handle = await app.state.client.submit(greeting.call(name=name))
    return {"task": handle.id, "greeting": await handle.result(within=30)}
