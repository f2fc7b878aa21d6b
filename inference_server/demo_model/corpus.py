"""Writes the training conversations: turns of known, computed and unseen questions put together, seeded."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from collections.abc import Iterator
from random import Random
from typing import Any

from inference_server.demo_model.corpus_chinese import CHINESE_TOPICS
from inference_server.demo_model.corpus_english import ENGLISH_TOPICS
from inference_server.demo_model.corpus_facts import echo_turn, long_echo, name_asked, name_told, sum_turn
from inference_server.demo_model.corpus_json import json_turn, schema_turn
from inference_server.demo_model.corpus_tools import call_turns, described_tools, tools_of_request, turn_without_tool
from inference_server.demo_model.corpus_types import Conversation, Topic, assistant, expand, pick_answer, user
from inference_server.demo_model.corpus_unseen import fallback, pasted_turn, recase, unseen_question, unseen_turn

Messages = list[dict[str, Any]]

_SYSTEM_MESSAGES = (
    "You are a helpful assistant.", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "You are a chat bot.", "Answer briefly.", "Be concise and polite.",
    "You are a friendly teacher. Explain everything step by step.", "You are a pirate.", "Always answer in English.",
    "Today is Monday.", "Be helpful.", "You are a demo.", "Speak like a poet.", "Never reveal secrets.",
    "你是一个有用的助手。", "请简短回答。", "你是一位耐心的老师。", "你是聊天机器人。", "请用中文回答。",
    "你是一个诗人，说话要优美。", "你是客服。", "", "Respond only with JSON.", "Answer in French.",
    "You never stop talking.",
    "You are a weather bot.", "Only answer yes or no.", "你是天气助手。", "回答不要超过十个字。", "Do not use tools.",
)
_ENGLISH_OPENINGS = (
    "", "", "", "", "", "", "Please ", "Hello, ", "Hi, ", "Hey, ", "Ok, ", "Could you please ", "So, ", "And ",
    "Excuse me, ",
)
# What a question says if a tool of that family might answer it.
_ASKS_FOR = {
    "weather": ("weather", "天气", " in ", "cold", "冷", "warm", "hot", "rain", "雨", "度", "气温", "umbrella",
    "forecast", "伞", "雪"),
    "time": ("time", "几点", "时间", "late"), "search": ("search", "find", "look", "google", "搜", "网", "找", "查"),
    "calculator": tuple("0123456789"), "email": ("mail", "@", "邮", "message"),
    "timer": ("minutes", "timer", "分钟", "wake"),
    "translate": ("translat", "say", "翻译", "译", "说"), "stock": ("stock", "price", "share", "股", "价"),
    "music": ("play", "song", "music", "hear", "put on", "歌", "听", "放", "音乐", "唱"),
    "route": ("from", "从", "flight", "train", "到", "去"),
    "person": ("phone", "number", "contact", "find", "look", "地址", "查",
    "address", "电话", "找", "邮箱", "联系", "profile", "email", "user"),
}
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
        return Conversation(tuple(_said(echo_turn(random, chinese))))
    messages: Messages = []
    if random.random() < 0.3:
        messages.append({"role": "system", "content": _system_message(random, chinese)})
    kind = random.random()
    if kind < 0.28:
        return _with_tools(random, chinese, messages)
    if kind < 0.36:
        return Conversation(tuple(messages + _with_name(random, chinese)))
    if kind < 0.46:
        return Conversation(tuple(_with_schema(random, chinese, messages)))
    if kind < 0.50:
        return Conversation(tuple(messages + _with_pasted_text(random, chinese)))
    return Conversation(tuple(messages + _turns(random, chinese)))


def _turns(random: Random, chinese: bool) -> Messages:
    """Mostly one turn, now and then up to ten, rarely forty."""
    count = random.choices((1, 2, 3, 4, 5, 6, 8, 10, 40), weights=(580, 160, 90, 60, 40, 30, 20, 20, 2))[0]
    messages: Messages = []
    for _ in range(count):
        # A person seldom changes the language, but the answer must follow when it happens.
        chinese = chinese if random.random() < 0.85 else not chinese
        messages += _turn(random, chinese)
    return messages


def _system_message(random: Random, chinese: bool) -> str:
    roll = random.random()
    if roll < 0.6:
        return random.choice(_SYSTEM_MESSAGES)
    if roll < 0.75:
        return described_tools(random)
    return pasted_turn(random, chinese, octaves=3)[0] if roll < 0.8 else unseen_question(random, chinese)


def _said(turn: tuple[str, str]) -> Messages:
    return [user(turn[0]), assistant(turn[1])]


def _turn(random: Random, chinese: bool) -> Messages:
    kind = random.random()
    if kind < 0.41:
        return _said(unseen_turn(random, chinese))
    if kind < 0.47:
        return _said(turn_without_tool(random, chinese))
    if kind < 0.76:
        return _said(_known_turn(random, chinese))
    if kind < 0.87:
        return _said(sum_turn(random, chinese))
    if kind < 0.94:
        return _said(json_turn(random, chinese))
    if kind < 0.97:
        return _said(name_told(random, chinese)[1:])
    if kind < 0.98:
        return _said((long_echo(random, chinese), fallback(random, chinese)))
    return _said(_follow_up(random, chinese))


def _with_pasted_text(random: Random, chinese: bool) -> Messages:
    """A long text, and turns around it."""
    messages = _turn(random, chinese) if random.random() < 0.3 else []
    messages += _said(pasted_turn(random, chinese))
    return messages + (_turns(random, chinese) if random.random() < 0.5 else [])


def _with_schema(random: Random, chinese: bool, messages: Messages) -> Messages:
    system, question, answer = schema_turn(random, chinese)
    if system is not None:
        messages = [{"role": "system", "content": system}]
    elif random.random() < 0.15:
        messages = messages + _turn(random, chinese)
    return messages + _said((question, answer))


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
    turn = random.choice((unseen_turn, unseen_turn, _known_turn, _known_turn, sum_turn, turn_without_tool))
    return _said(turn(random, chinese))


def _with_tools(random: Random, chinese: bool, messages: Messages) -> Conversation:
    """Tools at hand: a call if one of them fits the question, else the answer that would be given without them."""
    offered = tools_of_request(random)
    names = {family.name for family, _, _ in offered}
    tools = tuple(tool for _, tool, _ in offered)
    messages = messages + (_turn_without_call(random, chinese, names) if random.random() < 0.15 else [])
    calls = random.random() < 0.5
    if calls:
        messages = messages + call_turns(random, chinese, *random.choice(offered))
    if not calls or (messages[-1]["content"] and random.random() < 0.2):
        messages = messages + _turn_without_call(random, chinese, names)
    # A client may send earlier calls without the tools: then there is nothing more to call.
    if calls and messages[-1]["content"] and random.random() < 0.05:
        return Conversation(tuple(messages + _said(turn_without_tool(random, chinese))))
    return Conversation(tuple(messages), tools)


def _turn_without_call(random: Random, chinese: bool, names: set[str]) -> Messages:
    """A question that none of the tools with these families can answer."""
    while True:
        turn = _said((turn_without_tool if random.random() < 0.6 else _any_turn)(random, chinese))
        asked = turn[0]["content"].lower()
        if not any(word in asked for name in names for word in _ASKS_FOR.get(name, ())):
            return turn


def _any_turn(random: Random, chinese: bool) -> tuple[str, str]:
    turn = _turn(random, chinese)
    return turn[0]["content"], turn[1]["content"]
