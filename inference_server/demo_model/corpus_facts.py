"""Turns whose answer depends on what the user says: small sums, names, and texts to be repeated."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from random import Random

from inference_server.demo_model.corpus_types import expand, pick_answer
from inference_server.demo_model.corpus_words import chinese_name, chinese_word, english_name, english_word

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


def long_echo(random: Random, chinese: bool) -> str:
    """A wish to hear again what is too long for it, which is not granted."""
    words = [(chinese_word if chinese else english_word)(random) for _ in range(random.randint(25, 200))]
    if chinese:
        return expand(random, "[重复|请重复|跟我念]：") + random.choice(("", "，")).join(words)
    return expand(random, "[Repeat|Repeat after me|Please repeat|Say|Echo]: ") + " ".join(words)


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
