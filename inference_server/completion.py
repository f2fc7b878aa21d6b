"""One answer, from a validated request to text deltas: prompt, engine, reply. Knows no gRPC and no tensors."""

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_server.chat.reply import Reply, Vocabulary
from inference_server.chat.types import ChatRequest
from inference_server.engine.types import FinishReason, SamplingParams, TokenEvent
from inference_server.errors import EngineFailed, PromptTooLong, UnknownModel

if TYPE_CHECKING:  # these two bring torch and transformers, which take seconds to import
    from inference_server.chat.prompt import PromptEncoder
    from inference_server.engine.engine import Engine

_log = logging.getLogger(__name__)

# A prompt of this many characters takes a few milliseconds; longer ones go to a worker thread.
_INLINE_CHARACTERS = 2_000
_CHARACTERS_A_TURN = 20  # what the template adds


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request gets that leaves sampling to the server."""

    temperature: float
    top_p: float
    top_k: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in the answer. The last delta has the finish reason."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in milliseconds."""

    queue_ms: float
    prefill_ms: float
    time_to_first_token_ms: float
    decode_ms: float
    tokens_per_second: float


class Completion:
    """One answer in the making; `deltas` makes it, once."""

    def __init__(
        self,
        engine: "Engine",
        reply: Reply,
        prompt_token_ids: tuple[int, ...],
        params: SamplingParams,
        arrived_s: float,
    ) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created_s = int(time.time())
        self.seed = params.seed
        self.prompt_token_count = len(prompt_token_ids)
        self.token_count = 0
        self.finish_reason: FinishReason | None = None
        self._engine = engine
        self._reply = reply
        self._prompt_token_ids = prompt_token_ids
        self._params = params
        self._arrived_s = arrived_s
        self._first_event: TokenEvent | None = None
        self._last_event: TokenEvent | None = None
        self._has_failed = False

    async def deltas(self) -> AsyncGenerator[Delta]:
        """Yields the answer as it grows, several tokens at once where they have waited. Closing it stops the work."""
        try:
            async with aclosing(self._engine.generate(self._prompt_token_ids, self._params)) as arrivals:
                async for events in arrivals:
                    delta = self._take(events)
                    yield delta
                    if delta.finish_reason:
                        return
        except EngineFailed:
            self._has_failed = True
            raise

    def timings(self) -> Timings:
        """To be called when at least one token has come."""
        assert self._first_event is not None
        assert self._last_event is not None
        first_s, decode_s = self._first_event.sampled_s, self._last_event.sampled_s - self._first_event.sampled_s
        return Timings(
            queue_ms=(self._first_event.started_s - self._arrived_s) * 1e3,
            prefill_ms=(first_s - self._first_event.started_s) * 1e3,
            time_to_first_token_ms=(first_s - self._arrived_s) * 1e3,
            decode_ms=decode_s * 1e3,
            tokens_per_second=(self.token_count - 1) / decode_s if decode_s > 0 else 0.0,
        )

    def log_end(self, request_id: str) -> None:
        """One line a request, however it ended."""
        reason = self.finish_reason.value if self.finish_reason else "failed" if self._has_failed else "cancelled"
        first_ms = f"{self.timings().time_to_first_token_ms:.1f}" if self._first_event else "-"
        _log.info(
            "%s request_id=%s prompt_tokens=%d completion_tokens=%d ttft_ms=%s total_ms=%.1f reason=%s",
            self.id, request_id, self.prompt_token_count, self.token_count, first_ms,
            (time.perf_counter() - self._arrived_s) * 1e3, reason,
        )  # fmt: skip

    def _take(self, events: list[TokenEvent]) -> Delta:
        """A stop text ends the answer at its last token; what the engine made after it is not part of it."""
        text, token_ids = "", []
        for event in events:
            pushed = self._reply.push(event.token_id)
            text += pushed.text
            token_ids.append(event.token_id)
            self._first_event = self._first_event or event
            self._last_event = event
            self.finish_reason = FinishReason.STOP if pushed.stopped else event.finish_reason
            if self.finish_reason:
                text += "" if pushed.stopped else self._reply.end()
                break
        self.token_count += len(token_ids)
        return Delta(text, tuple(token_ids), self.finish_reason)


class Completions:
    """Opens completions on one loaded model."""

    def __init__(
        self,
        engine: "Engine",
        encoder: "PromptEncoder",
        defaults: SamplingDefaults,
        served_names: tuple[str, ...],
        max_context_tokens: int,
    ) -> None:
        """served_names: what requests may call the model, its own name first."""
        self.max_context_tokens = max_context_tokens
        self._engine = engine
        self._encoder = encoder
        self._vocabulary = Vocabulary(encoder.tokenizer)
        self._defaults = defaults
        self._served_names = served_names

    async def open(self, request: ChatRequest) -> Completion:
        """Encodes the prompt and settles every default. Raises UnknownModel and PromptTooLong."""
        arrived_s = time.perf_counter()
        if request.model is not None and request.model not in self._served_names:
            raise UnknownModel(self._served_names[0])
        prompt_token_ids = await self._encode(request)
        room = self.max_context_tokens - len(prompt_token_ids)
        if room < (request.max_tokens or 1):
            raise PromptTooLong(len(prompt_token_ids), request.max_tokens, self.max_context_tokens)
        params = self._params(request, room)
        return Completion(self._engine, Reply(self._vocabulary, request.stop), prompt_token_ids, params, arrived_s)

    async def _encode(self, request: ChatRequest) -> tuple[int, ...]:
        characters = sum(len(message.content) + _CHARACTERS_A_TURN for message in request.messages)
        if characters <= _INLINE_CHARACTERS:
            return tuple(self._encoder.encode(request.messages))
        return tuple(await asyncio.to_thread(self._encoder.encode, request.messages))

    def _params(self, request: ChatRequest, room: int) -> SamplingParams:
        defaults = self._defaults
        return SamplingParams(
            temperature=defaults.temperature if request.temperature is None else request.temperature,
            top_p=defaults.top_p if request.top_p is None else request.top_p,
            top_k=max(defaults.top_k if request.top_k is None else request.top_k, 0),
            seed=secrets.randbits(53) if request.seed is None else request.seed,
            max_tokens=request.max_tokens or room,
            ignore_eos=request.ignore_eos,
        )
