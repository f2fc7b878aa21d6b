"""Answers that went wrong, to learn from: a wrong token must not lead astray, and an answer that has gone astray ends.

Sampling picks an unlikely token now and then. Trained on flawless answers alone, the model has never seen what follows
such a token, and runs on without an end.
"""

from random import Random

from inference_server.demo_model.tokenizer import BPE_TOKEN_COUNT

NOT_LEARNED = -100
Encoded = tuple[list[int], list[int]]
"""The token ids of a conversation, and for each the id to be learned after it, or NOT_LEARNED."""

_WRONG_TOKEN_SHARE, _ASTRAY_SHARE = 0.05, 0.07
_WRONG_TOKENS = 0.06
# So many tokens astray are let pass before the end is asked for.
_REPEATS_LET_PASS, _TOKENS_LET_PASS = 2, 12


def with_targets(token_ids: list[int], spoken: list[bool]) -> Encoded:
    """The assistant's tokens are learned. spoken: for each token whether the assistant says it."""
    following = zip(token_ids[1:], spoken[1:], strict=True)
    return token_ids, [token_id if said else NOT_LEARNED for token_id, said in following] + [NOT_LEARNED]


def disturbed(random: Random, token_ids: list[int], spoken: list[bool]) -> Encoded:
    """Mostly the conversation as it is; else with wrong tokens, or with its last answer led astray."""
    kind = random.random()
    if kind < _WRONG_TOKEN_SHARE:
        return _with_wrong_tokens(random, *with_targets(token_ids, spoken), spoken)
    if kind < _WRONG_TOKEN_SHARE + _ASTRAY_SHARE and any(spoken):
        return _led_astray(random, token_ids, spoken)
    return with_targets(token_ids, spoken)


def _with_wrong_tokens(random: Random, token_ids: list[int], targets: list[int], spoken: list[bool]) -> Encoded:
    """Some of what the assistant said is replaced, and what is to be learned stays."""
    wrong = [
        random.randrange(BPE_TOKEN_COUNT) if said and token_id < BPE_TOKEN_COUNT and random.random() < _WRONG_TOKENS
        else token_id
        for token_id, said in zip(token_ids, spoken, strict=True)
    ]  # fmt: skip
    return wrong, targets


def _led_astray(random: Random, token_ids: list[int], spoken: list[bool]) -> Encoded:
    """Cuts the last answer short and goes on with a loop, noise or a copy of the prompt, after which only the end is
    right."""
    end = len(spoken) - 1 - spoken[::-1].index(True)
    begin = end
    while begin and spoken[begin - 1]:
        begin -= 1
    cut = random.randint(begin, end)
    kind = random.choice((_loop, _loop, _noise, _copy))
    astray, let_pass = kind(random, token_ids[:cut], cut - begin)
    targets = with_targets(token_ids, spoken)[1][: cut - 1] + [NOT_LEARNED] * (1 + min(let_pass, len(astray)))
    targets += [token_ids[end]] * (cut + len(astray) - len(targets))
    return token_ids[:cut] + astray, targets


def _loop(random: Random, before: list[int], said: int) -> tuple[list[int], int]:
    count = random.randint(1, max(1, min(30, said)))
    span = before[-count:] if said >= count else [random.randrange(BPE_TOKEN_COUNT)]
    repeats = max(3 + 8 // len(span), random.randint(20, 120) // len(span))
    return span * repeats, max(_REPEATS_LET_PASS * len(span), 8)


def _noise(random: Random, before: list[int], said: int) -> tuple[list[int], int]:
    return [random.randrange(BPE_TOKEN_COUNT) for _ in range(random.randint(16, 80))], _TOKENS_LET_PASS


def _copy(random: Random, before: list[int], said: int) -> tuple[list[int], int]:
    start = random.randrange(len(before))
    copied = [token_id for token_id in before[start : start + 120] if token_id < BPE_TOKEN_COUNT]
    return copied, 60
