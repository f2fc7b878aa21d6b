"""A yardstick: the way of a token from a step to an HTTP client, without anything that a service has to do.

usage: python -m benchmarks.bare_loop server PORT [STEP_MS]
       python -m benchmarks.bare_loop bridge PORT TARGET

An engine's thread that hands one token to each stream per step, a plain grpc.aio handler, a plain FastAPI bridge.
"""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from benchmarks.fixed_step import Grid
from protos.chat.v1 import chat_pb2, chat_pb2_grpc


class _Bare:
    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._loop = asyncio.get_running_loop()
        self._streams: set[asyncio.Queue[str]] = set()
        threading.Thread(target=self._steps, daemon=True).start()

    CreateChatCompletion = GetModel = None  # the registration asks for them

    def _steps(self) -> None:
        while True:
            self._grid.wait()
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        for stream in self._streams:
            stream.put_nowait("x")

    async def StreamChatCompletion(
        self, request: chat_pb2.ChatCompletionRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[chat_pb2.ChatCompletionChunk]:
        stream: asyncio.Queue[str] = asyncio.Queue()
        self._streams.add(stream)
        try:
            while True:
                text = await stream.get()
                while not stream.empty():
                    text += stream.get_nowait()
                yield chat_pb2.ChatCompletionChunk(choices=[chat_pb2.ChoiceDelta(content=text)])
        finally:
            self._streams.remove(stream)


async def serve(port: int, step_s: float) -> None:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(cast(Any, _Bare(Grid(step_s))), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def bridge(target: str) -> FastAPI:
    app = FastAPI()
    stubs: list[chat_pb2_grpc.ChatServiceAsyncStub] = []  # made on the loop that they are used on

    async def events() -> AsyncIterator[str]:
        if not stubs:
            stubs.append(chat_pb2_grpc.ChatServiceStub(grpc.aio.insecure_channel(target)))
        async for chunk in stubs[0].StreamChatCompletion(chat_pb2.ChatCompletionRequest()):
            yield f"data: {json.dumps({'choices': [{'delta': {'content': chunk.choices[0].content}}]})}\n\n"

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        await request.json()
        return StreamingResponse(events(), media_type="text/event-stream")

    return app


if __name__ == "__main__":
    role, port, *more = sys.argv[1:]
    if role == "server":
        asyncio.run(serve(int(port), float(more[0] if more else 10) / 1e3))
    else:
        uvicorn.run(bridge(more[0]), host="127.0.0.1", port=int(port), log_level="warning")
