"""One answer, from a validated request to text deltas: prompt, engine, reply. Knows no gRPC and no tensors."""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_server.admission import Place
from inference_server.chat.reply import Reply, Vocabulary
from inference_server.chat.types import ChatRequest
from inference_server.encode_queue import EncodeQueue
from inference_server.engine.types import FinishReason, SamplingParams, TokenEvent
from inference_server.errors import InvalidField, PromptTooLong, UnknownModel
from protos.chat.v1.ranges import Range

if TYPE_CHECKING:  # these two bring torch and transformers, which take seconds to import
    from inference_server.chat.prompt import PromptEncoder
    from inference_server.engine.engine import Engine

_INLINE_TOKENS = 2_000  # of a resumed answer: a few milliseconds; longer ones go to a worker thread


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request gets that leaves sampling to the server."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was; `top` has the likeliest ones in its place. `shown_bytes`: its text's, or its name's."""

    token_id: int
    shown_bytes: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in the answer. The last delta has the finish reason."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprob, ...] = ()


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
        on_gap: Callable[[float], None],
        client: str = "",
    ) -> None:
        """on_gap gets the seconds between each two tokens. client: who asks, for fair turns."""
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
        self._resumed_token_ids: tuple[int, ...] = ()
        self._arrived_s = arrived_s
        self._on_gap = on_gap
        self._client = client
        self._first_event: TokenEvent | None = None
        self._last_event: TokenEvent | None = None

    def resume(self, token_ids: tuple[int, ...], end_token_ids: frozenset[int]) -> None:
        """Takes up an answer that another server began: its tokens count, and what they release is not sent again."""
        self._resumed_token_ids, self.token_count = token_ids, len(token_ids)
        for place, token_id in enumerate(token_ids):
            is_end = token_id in end_token_ids and place >= self._params.min_tokens
            if self._reply.push(token_id).stopped or is_end:
                self.finish_reason = FinishReason.STOP
                return
        if len(token_ids) >= self._params.max_tokens:
            self.finish_reason = FinishReason.LENGTH

    @property
    def has_begun(self) -> bool:
        """Whether a token has come."""
        return self._first_event is not None

    @property
    def started_s(self) -> float | None:
        """time.perf_counter() at its first step; None before a token has come."""
        return self._first_event.started_s if self._first_event else None

    @property
    def cached_token_count(self) -> int:
        """Of the prompt's tokens, how many came from the cache."""
        return self._first_event.cached_count if self._first_event else 0

    async def deltas(self) -> AsyncGenerator[Delta]:
        """Yield the answer as it grows, several tokens at once where they have waited. Closing it stops the work.

        The first delta of an answer that has to be generated is empty: the engine has admitted the request.
        """
        if self.finish_reason:  # the resumed tokens are the whole answer
            yield Delta("", (), self.finish_reason)
            return
        # the engine knows no stop texts: what may end one is looked at as soon as it is there
        may_wait = not self._reply.has_stop_texts
        tokens = self._engine.generate(
            self._prompt_token_ids, self._params, self._resumed_token_ids, may_wait, self._client
        )
        async with aclosing(tokens) as arrivals:
            async for events in arrivals:
                delta = self._take(events)
                yield delta
                if delta.finish_reason:
                    return

    def timings(self) -> Timings:
        """To be called when the answer has ended. All are 0 where nothing had to be generated."""
        if self._first_event is None or self._last_event is None:
            return Timings(0.0, 0.0, 0.0, 0.0, 0.0)
        generated = self.token_count - len(self._resumed_token_ids)
        first_s, decode_s = self._first_event.sampled_s, self._last_event.sampled_s - self._first_event.sampled_s
        return Timings(
            queue_ms=(self._first_event.started_s - self._arrived_s) * 1e3,
            prefill_ms=(first_s - self._first_event.started_s) * 1e3,
            time_to_first_token_ms=(first_s - self._arrived_s) * 1e3,
            decode_ms=decode_s * 1e3,
            tokens_per_second=(generated - 1) / decode_s if decode_s > 0 else 0.0,
        )

    def _take(self, events: list[TokenEvent]) -> Delta:
        """A stop text ends the answer at its last token; what the engine made after it is not part of it."""
        text, token_ids, logprobs = "", [], []
        for event in events:
            pushed = self._reply.push(event.token_id)
            text += pushed.text
            token_ids.append(event.token_id)
            logprobs += self._logprobs(event)
            if self._last_event:
                self._on_gap(event.sampled_s - self._last_event.sampled_s)
            self._first_event = self._first_event or event
            self._last_event = event
            self.finish_reason = FinishReason.STOP if pushed.stopped else event.finish_reason
            if self.finish_reason:
                text += "" if pushed.stopped else self._reply.end()
                break
        self.token_count += len(token_ids)
        return Delta(text, tuple(token_ids), self.finish_reason, tuple(logprobs))

    def _logprobs(self, event: TokenEvent) -> list[TokenLogprob]:
        """One, or none where they were not asked for."""
        if event.logprobs is None:
            return []
        shown = self._reply.vocabulary.shown_bytes_of
        top = tuple(TokenLogprob(token_id, shown(token_id), logprob) for token_id, logprob in event.logprobs.top)
        return [TokenLogprob(event.token_id, shown(event.token_id), event.logprobs.logprob, top)]


class Completions:
    """Opens completions on one loaded model."""

    def __init__(
        self,
        engine: "Engine",
        encoder: "PromptEncoder",
        vocabulary: Vocabulary,
        defaults: SamplingDefaults,
        served_names: tuple[str, ...],
        max_context_tokens: int,
        stop_token_ids: frozenset[int],
        on_gap: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """served_names: what requests may call the model, its own name first. stop_token_ids: the model's own.

        on_gap gets the seconds between each two tokens of every answer.
        """
        self.max_context_tokens = max_context_tokens
        self._engine = engine
        self._prompts = EncodeQueue(encoder, max_context_tokens)
        self._vocabulary = vocabulary
        self._defaults = defaults
        self._served_names = served_names
        self._stop_token_ids = stop_token_ids
        self._on_gap = on_gap

    async def open(self, request: ChatRequest, place: Place | None = None) -> Completion:
        """Encodes the prompt and settles every default. place: the request's; the server's own have none.

        Raises UnknownModel, InvalidField, QueueFull and PromptTooLong.
        """
        arrived_s = time.perf_counter()
        if request.model is not None and request.model not in self._served_names:
            raise UnknownModel(self._served_names[0])
        self._require_known_tokens(request)
        prompt_token_ids = await self._prompts.encode(request.messages, request.max_tokens)
        room = self.max_context_tokens - len(prompt_token_ids)
        if room < (request.max_tokens or 1):
            raise PromptTooLong(len(prompt_token_ids), request.max_tokens, self.max_context_tokens)
        params = self._params(request, room)
        _require_agreement(request, params)
        if place:
            place.require_token_room(len(prompt_token_ids) + len(request.resumed_token_ids))
        reply = Reply(self._vocabulary, request.stop, params.min_tokens)
        client = place.caller.name if place else ""
        completion = Completion(self._engine, reply, prompt_token_ids, params, arrived_s, self._on_gap, client)
        if resumed := request.resumed_token_ids:
            ends = params.stop_token_ids | (frozenset() if params.ignore_eos else self._stop_token_ids)
            if len(resumed) > _INLINE_TOKENS:
                await asyncio.to_thread(completion.resume, resumed, ends)
            else:
                completion.resume(resumed, ends)
        return completion

    def _require_known_tokens(self, request: ChatRequest) -> None:
        has_all = self._vocabulary.has_all
        expected = f"expected {Range(0, self._vocabulary.last_token_id)} that is a token's id"
        for token_id, _ in request.logit_bias:
            if not has_all([token_id]):
                raise InvalidField(f"logit_bias[{token_id}]", f"{expected}, got {token_id}")
        for field, token_ids in (
            ("stop_token_ids", request.stop_token_ids),
            ("resume.token_ids", request.resumed_token_ids),
        ):
            if not has_all(token_ids):
                place, token_id = next(item for item in enumerate(token_ids) if not has_all([item[1]]))
                raise InvalidField(f"{field}[{place}]", f"{expected}, got {token_id}")

    def _params(self, request: ChatRequest, room: int) -> SamplingParams:
        defaults = self._defaults
        return SamplingParams(
            temperature=defaults.temperature if request.temperature is None else request.temperature,
            top_p=defaults.top_p if request.top_p is None else request.top_p,
            top_k=max(defaults.top_k if request.top_k is None else request.top_k, 0),
            seed=secrets.randbits(53) if request.seed is None else request.seed,
            max_tokens=request.max_tokens or room,
            min_p=defaults.min_p if request.min_p is None else request.min_p,
            repetition_penalty=(
                defaults.repetition_penalty if request.repetition_penalty is None else request.repetition_penalty
            ),
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=request.logit_bias,
            min_tokens=request.min_tokens,
            stop_token_ids=frozenset(request.stop_token_ids),
            ignore_eos=request.ignore_eos,
            top_logprobs=request.top_logprobs,
        )


def _require_agreement(request: ChatRequest, params: SamplingParams) -> None:
    """Checks what depends on the defaults and on the room in the context."""
    if params.min_tokens > params.max_tokens:
        problem = f"expected {Range(0, params.max_tokens)}, the most tokens of this answer, got {params.min_tokens}"
        raise InvalidField("min_tokens", problem)
    if not request.resumed_token_ids:
        return
    if (count := len(request.resumed_token_ids)) > params.max_tokens:
        problem = f"expected at most {params.max_tokens} ids, the most tokens of this answer, got {count}"
        raise InvalidField("resume.token_ids", problem)
    if request.seed is None and params.temperature > 0:
        raise InvalidField("resume.seed", "needed where temperature is not 0")
