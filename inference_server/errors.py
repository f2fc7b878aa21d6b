"""What can go wrong, in the words of the domain. Raised anywhere; `status.py` gives each its gRPC status."""


class StartupError(Exception):
    """The server cannot start as it was told to. The message is one line that says what to change."""


class RequestError(Exception):
    """One request cannot be served. The message is meant for its sender."""


class InvalidField(RequestError):
    """A field of the request is outside what is allowed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class TemplateRefused(InvalidField):
    """The model's chat template does not take this conversation. words: the template's own, cut if they are long."""

    _MOST_CHARACTERS = 500

    def __init__(self, words: str) -> None:
        self.words = words
        most = self._MOST_CHARACTERS
        shown = words if len(words) <= most else f"{words[:most]}…"
        super().__init__("messages", f"the model's chat template refuses them: {shown}")


class MalformedMessage(RequestError):
    """The bytes of a request are not the protobuf message they should be."""

    def __init__(self) -> None:
        super().__init__("the request is not a valid protobuf message")


class TooManyFields(RequestError):
    """A message has more fields on the wire than any chat."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"the request has more than {most} fields on the wire; repeated numbers are one field if they are packed"
        )


class PromptTooLong(RequestError):
    """Prompt and answer do not fit into the served context. Counts are tokens. Clients match on OpenAI's words.

    is_counted: whether prompt_tokens are all; else no more were counted.
    """

    def __init__(self, prompt_tokens: int, max_tokens: int | None, limit: int, is_counted: bool = True) -> None:
        self.field = "messages" if prompt_tokens >= limit else "max_tokens"
        answer_tokens = max_tokens or 1
        least = "" if is_counted else "at least "
        parts = f"{least}{prompt_tokens} in the messages, {answer_tokens} in the completion"
        super().__init__(
            f"{self.field}: This model's maximum context length is {limit} tokens. "
            f"However, you requested {least}{prompt_tokens + answer_tokens} tokens ({parts})."
        )


class UnknownModel(RequestError):
    """The request asks for a model that is not served here."""

    def __init__(self, served: str) -> None:
        super().__init__(f'model: not served here; this server has "{served}"')


class Unavailable(RequestError):
    """No request can be served now. `retry_after_s` says when to ask again."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class QueueFull(RequestError):
    """Too much waits already; the request was not taken in.

    concerns_client: whether any other request of its client would be refused now too.
    """

    def __init__(self, reason: str, retry_after_s: int, concerns_client: bool = True) -> None:
        super().__init__(f"the queue is full: {reason}")
        self.retry_after_s = retry_after_s
        self.concerns_client = concerns_client


class TookTooLong(RequestError):
    """The answer was not ready in the longest time that the server gives one."""

    def __init__(self, limit_s: int) -> None:
        super().__init__(f"the answer was not ready within the server's limit of {limit_s} s")


class ClientStalled(RequestError):
    """The client has read nothing of its answer for a long time."""

    def __init__(self, limit_s: int) -> None:
        super().__init__(f"the client has read nothing for {limit_s} s")


class EngineFailed(Unavailable):
    """The engine's loop has ended; the process is about to exit."""

    def __init__(self) -> None:
        super().__init__("the engine has failed", retry_after_s=5)


class OutOfMemory(RequestError):
    """The request's step found no memory, although it ran alone."""

    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("there is too little memory for this request now")


class SequenceFailed(Exception):
    """One answer could not be continued; the others go on. For the log: its sender only hears of an internal error."""
