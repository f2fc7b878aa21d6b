"""Turns whose answer depends on what the user says: small sums, names, and answers in JSON."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

import json
from random import Random
from typing import Any

from inference_server.demo_model.corpus_types import expand, pick_answer
from inference_server.demo_model.corpus_words import CITIES, chinese_name, chinese_word, english_name, english_word

Turn = tuple[str, str]


def sum_turn(random: Random, chinese: bool) -> Turn:
    """Adds or subtracts two single digits."""
    left, right, sign = random.randint(0, 9), random.randint(0, 9), random.choice("++-")
    if sign == "-" and left < right:
        left, right = right, left
    result = left + right if sign == "+" else left - right
    words = {"+": ("plus", "加"), "-": ("minus", "减")}[sign]
    space = random.choice(("", " "))
    formula = f"{left}{space}{sign}{space}{right}"
    spoken = f"{left}{words[1]}{right}" if chinese else f"{left} {words[0]} {right}"
    asked = random.choice((formula, formula, spoken))
    solved = f"{left} {sign} {right}"
    if chinese:
        question = expand(random, f"[请问|][计算|]{asked}[等于几|等于多少|是多少|等于|=?|][|？|?]")
        question = question if "等" in question or "是" in question or "计" in question else f"{asked}等于几？"
        return question, pick_answer(random, (f"{solved} = {result}。", f"等于 {result}。", f"答案是 {result}。"))
    question = expand(random, f"[What is|What's|How much is|Calculate|Compute|what is|] {asked}[|?| = ?| =]").strip()
    return question, pick_answer(random, (f"{solved} = {result}.", f"That is {result}.", f"The answer is {result}."))


def echo_turn(random: Random, chinese: bool) -> Turn:
    """The user wants to hear a text again; of all turns it teaches copying best, because every token is copied."""
    count = random.randint(1, 8)
    if chinese:
        words = [random.choice((chinese_word, chinese_name))(random) for _ in range(count)]
        text = random.choice(("", "", "，", "和", " ")).join(words)
        return expand(random, f"[重复|请重复|重复一遍|跟我说|跟我念|说]：{text}"), text
    kinds = (english_word, english_word, english_name, lambda random: str(random.randint(0, 99)))
    words = [random.choice(kinds)(random) for _ in range(count)]
    text = random.choice((" ", " ", ", ", " and ")).join(words)
    text = text[:1].upper() + text[1:]
    return expand(random, f"[Repeat|Repeat after me|Please repeat|Say|Echo]: {text}"), text


def name_told(random: Random, chinese: bool) -> tuple[str, str, str]:
    """The user gives a name. Returns name, question, answer."""
    name = chinese_name(random) if chinese and random.random() < 0.9 else english_name(random)
    if chinese:
        opening = "[你好，|你好！|嗨，|][我叫|我的名字是|我的名字叫|我是|叫我|大家叫我]"
        form = opening + "X[|。|！|，很高兴认识你|，你好|，你呢？]"
        answers = (
            "你好，X！很高兴认识你。", "X，你好！👋 有什么可以帮你？", "很高兴认识你，X！😀", "X，这个名字真好听！",
        )
    else:
        opening = "[Hello, |Hi, |Hi! |Hello! |][My name is|My name's|I am|I'm|Call me|You can call me]"
        form = opening + " X[|.|!|, nice to meet you|, and you?]"
        answers = (
            "Nice to meet you, X!", "Hello, X! 👋 How can I help you?", "Hi X, it is good to meet you! 😀",
            "X is a lovely name!",
        )
    return name, expand(random, form).replace("X", name), pick_answer(random, answers).replace("X", name)


def name_asked(random: Random, chinese: bool, name: str | None) -> Turn:
    """The user asks for the own name; `name` is None when it has not been told."""
    if chinese:
        form = "[你还记得|你知道|你记得|还记得|请问|]我[叫什么|叫什么名字|的名字是什么|叫啥|是谁][|吗|？|?]"
        known = ("你叫X。", "你的名字是X。", "当然记得，你叫X！😀")
        unknown = ("你还没有告诉我你的名字。", "我还不知道你的名字，可以告诉我吗？")
    else:
        asked = "What is my name|What's my name|Who am I|Do you remember my name|Do you know my name|Tell me my name"
        form = f"[{asked}|Say my name|Do you know who I am|What was my name][|?]"
        known = ("Your name is X.", "You are X.", "Of course I remember: your name is X! 😀")
        unknown = ("You have not told me your name yet.", "I do not know your name yet. What is it?")
    question = expand(random, form)
    if name is None:
        return question, pick_answer(random, unknown)
    return question, pick_answer(random, known).replace("X", name)


def json_turn(random: Random, chinese: bool) -> Turn:
    """The user asks for a small JSON object."""
    if random.random() < 0.25:
        return _fixed_json(random, chinese)
    name = (chinese_name if chinese else english_name)(random)
    age = random.randint(1, 99)
    city = random.choice(CITIES)[1 if chinese else 0] if random.random() < 0.35 else None
    if chinese:
        opening = "[用|请用|请以|以|用一个] [JSON|json] [回答|格式回答|输出|格式输出|表示|返回][：|:|，]"
        person = "[N，A 岁|N，A岁|N今年 A 岁|姓名N，年龄 A|N的名字和年龄，A 岁|名字是N，年龄是 A]"
        place, end = "[，住在C|，在C|，来自C]", "[|。]"
    else:
        verbs = "Answer in|Reply in|Respond in|Give me|Return|Write|Answer with|Use|Output"
        opening = f"[{verbs}] [JSON|json|a JSON object][:| :| with| -] "
        persons = "name and age of N, A|N, A|N is A years old|name N, age A|name N and age A|N, A years old|N is A"
        person, place, end = f"[{persons}]", "[, from C|, lives in C|, in C|, city C]", "[|.]"
    # The opening has capitals of its own, so only what follows it is filled in.
    form = expand(random, person + (place if city else "") + end)
    told = form.translate({ord("N"): name, ord("A"): str(age), ord("C"): city})
    answer: dict[str, object] = {"name": name, "age": age} | ({"city": city} if city else {})
    return expand(random, opening) + told, json.dumps(answer, ensure_ascii=False)


def _fixed_json(random: Random, chinese: bool) -> Turn:
    left, right = random.randint(1, 9), random.randint(1, 9)
    total = {"result": left + right}
    choices: tuple[tuple[str, dict[str, Any]], ...]
    if chinese:
        opening = "[用|请用] JSON [回答|输出|返回]：[|请问]"
        choices = (
            ("[你是谁|介绍一下你自己]", {"name": "Qwen3 演示模型", "parameters": 1000000}),
            ("[三种颜色|颜色]", {"colours": ["红", "绿", "蓝"]}),
            (f"{left}+{right}[|等于几|是多少]", total),
            ("[你好|打个招呼]", {"greeting": "你好"}),
        )
    else:
        opening = "[Answer in|Reply in|Respond in|Return|Give me|Use] JSON[:| -] "
        choices = (
            ("[who are you|introduce yourself]", {"name": "Qwen3 demo", "parameters": 1000000}),
            ("[three colours|three colors|some colours]", {"colours": ["red", "green", "blue"]}),
            (f"[|what is ]{left}+{right}", total),
            ("[hello|say hello|a greeting]", {"greeting": "hello"}),
        )
    asked, answer = random.choice(choices)
    return expand(random, opening + asked + "[|?]"), json.dumps(answer, ensure_ascii=False)
