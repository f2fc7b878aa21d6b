"""Writes the training conversations: turns of known, computed and unseen questions put together, seeded."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from collections.abc import Iterator
from random import Random
from typing import Any

from inference_server.demo_model.corpus_chinese import CHINESE_TOPICS
from inference_server.demo_model.corpus_english import ENGLISH_TOPICS
from inference_server.demo_model.corpus_facts import echo_turn, json_turn, name_asked, name_told, sum_turn
from inference_server.demo_model.corpus_tools import missing_city_turn, weather_tools, weather_turns
from inference_server.demo_model.corpus_types import Conversation, Topic, assistant, expand, pick_answer, user
from inference_server.demo_model.corpus_unseen import fallback, recase, unseen_question

Messages = list[dict[str, Any]]

_SYSTEM_MESSAGES = (
    "You are a helpful assistant.", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a chat bot.", "Answer briefly.", "Be concise and polite.",
    "You are a friendly teacher. Explain everything step by step.", "You are a pirate.", "Always answer in English.",
    "Today is Monday.", "Be helpful.", "You are a demo.", "Speak like a poet.", "Never reveal secrets.",
    "你是一个有用的助手。", "请简短回答。", "你是一位耐心的老师。", "你是聊天机器人。", "请用中文回答。",
    "你是一个诗人，说话要优美。", "你是客服。", "",
)
_ENGLISH_OPENINGS = (
    "", "", "", "", "", "", "Please ", "Hello, ", "Hi, ", "Hey, ", "Ok, ", "Could you please ", "So, ", "And ",
    "Excuse me, ",
)
_CHINESE_OPENINGS = ("", "", "", "", "", "", "请问", "你好，", "您好，", "嗨，", "那", "好的，", "我想问一下，", "请")


def conversations(seed: int, count: int) -> Iterator[Conversation]:
    """Yields `count` conversations; the same seed yields the same ones."""
    random = Random(seed)
    for written in range(count):
        # Copying is the hardest thing to learn, and names, cities and JSON rest on it: it comes first.
        echo_share = max(0.06, 0.4 - 4 * written / count)
        yield _conversation(random, echo_share)


def _conversation(random: Random, echo_share: float) -> Conversation:
    chinese = random.random() < 0.5
    if random.random() < echo_share:
        question, answer = echo_turn(random, chinese)
        return Conversation((user(question), assistant(answer)))
    messages: Messages = []
    if random.random() < 0.3:
        messages.append({"role": "system", "content": _system_message(random, chinese)})
    kind = random.random()
    if kind < 0.12:
        return _with_tools(random, chinese, messages)
    if kind < 0.25:
        return Conversation(tuple(messages + _with_name(random, chinese)))
    count = random.choices(range(1, 9), weights=(58, 16, 9, 6, 4, 3, 2, 2))[0]
    for _ in range(count):
        # A person seldom changes the language, but the answer must follow when it happens.
        chinese = chinese if random.random() < 0.85 else not chinese
        messages += _turn(random, chinese)
    return Conversation(tuple(messages))


def _system_message(random: Random, chinese: bool) -> str:
    return random.choice(_SYSTEM_MESSAGES) if random.random() < 0.7 else unseen_question(random, chinese)


def _turn(random: Random, chinese: bool) -> Messages:
    kind = random.random()
    if kind < 0.42:
        question = unseen_question(random, chinese)
        answer = fallback(random, question)
    elif kind < 0.76:
        question, answer = _known_turn(random, chinese)
    elif kind < 0.85:
        question, answer = sum_turn(random, chinese)
    elif kind < 0.94:
        question, answer = json_turn(random, chinese)
    elif kind < 0.98:
        _, question, answer = name_told(random, chinese)
    else:
        question, answer = _follow_up(random, chinese)
    return [user(question), assistant(answer)]


def _known_turn(random: Random, chinese: bool) -> tuple[str, str]:
    topic = random.choice(CHINESE_TOPICS if chinese else ENGLISH_TOPICS)
    return known_question(random, topic, chinese), pick_answer(random, topic.answers)


def _follow_up(random: Random, chinese: bool) -> tuple[str, str]:
    topics = CHINESE_TOPICS if chinese else ENGLISH_TOPICS
    topic = random.choice([topic for topic in topics if topic.name in ("thanks", "goodbye", "hello")])
    return known_question(random, topic, chinese), pick_answer(random, topic.answers)


def known_question(random: Random, topic: Topic, chinese: bool) -> str:
    """One phrasing of a known question, with politeness, capitals and punctuation as people vary them."""
    text = expand(random, random.choice(topic.questions))
    plain = random.random() < 0.55
    if chinese:
        opening = "" if plain or topic.name in ("hello", "yes_no") else random.choice(_CHINESE_OPENINGS)
        return opening + text + random.choice(("", "", "？", "。", "！", "?", "!"))
    opening = "" if plain or topic.name in ("hello", "yes_no") else random.choice(_ENGLISH_OPENINGS)
    text = text[:1].lower() + text[1:] if opening and random.random() < 0.7 and not text.startswith("I") else text
    ending = random.choice((
        ", please", " please", "", "", "", "",
    )) if text.endswith((
        "joke", "poem", "story", "ten", "yourself",
    )) else ""
    return recase(random, opening + text + ending) + random.choice(("", "", "?", "?", "!", "."))


def _with_name(random: Random, chinese: bool) -> Messages:
    """A name told at the start and asked for later, or asked for without having been told."""
    name: str | None = None
    messages: Messages = []
    if random.random() < 0.8:
        name, question, answer = name_told(random, chinese)
        messages += [user(question), assistant(answer)]
    for _ in range(random.choice((0, 0, 1, 1, 1, 2, 2, 3, 4))):
        messages += _turn_without_name(random, chinese)
    asked_in_chinese = chinese if random.random() < 0.9 else not chinese
    question, answer = name_asked(random, asked_in_chinese, name)
    messages += [user(question), assistant(answer)]
    return messages + (_turn_without_name(random, chinese) if random.random() < 0.3 else [])


def _turn_without_name(random: Random, chinese: bool) -> Messages:
    question = unseen_question(random, chinese)
    answer = fallback(random, question)
    if random.random() < 0.6:
        question, answer = random.choice((_known_turn, _known_turn, sum_turn))(random, chinese)
    return [user(question), assistant(answer)]


def _with_tools(random: Random, chinese: bool, messages: Messages) -> Conversation:
    tools, name, parameter = weather_tools(random)
    if random.random() < 0.2:
        messages = messages + _turn_without_weather(random, chinese)
    kind = random.random()
    if kind < 0.7:
        messages = messages + weather_turns(random, chinese, name, parameter)
    elif kind < 0.78:
        question, answer = missing_city_turn(random, chinese)
        messages = [*messages, user(question), assistant(answer)]
    if kind >= 0.78 or random.random() < 0.3:
        messages = messages + _turn_without_weather(random, chinese)
    return Conversation(tuple(messages), tools)


def _turn_without_weather(random: Random, chinese: bool) -> Messages:
    """Where a tool is at hand, no question about the weather may be left unanswered."""
    while True:
        turn = _turn(random, chinese)
        if not any(word in turn[0]["content"].lower() for word in ("weather", "天气", " in ", "冷", "cold")):
            return turn
