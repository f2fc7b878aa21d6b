"""Fills the capital letters of a form: N is a noun, V a verb, A an adjective, P a person, C a city, D a number,
G a digit, W an invented word, K code, S a word of the service."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

import string
from collections.abc import Mapping
from random import Random

from inference_server.demo_model.corpus_words import (
    ADJECTIVES,
    CHINESE_VERBS,
    CITIES,
    VERBS,
    chinese_name,
    chinese_word,
    english_name,
    english_word,
    invented_word,
    random_characters,
)

SERVICE_WORDS = (
    "GPU", "CPU", "gRPC", "HTTP", "Python", "OpenAI", "JSON", "API", "Docker", "Kubernetes", "Linux", "port", "token",
    "OpenAI API", "SDK", "streaming", "AI", "SQL", "docker", "git", "nginx", "linux", "python", "json", "React", "LLM",
    "Java", "C++", "Go", "Rust", "Redis", "MySQL", "Ubuntu", "Windows", "CUDA", "PyTorch", "Excel", "curl", "XML",
)
CHINESE_SERVICE_WORDS = ("显卡", "端口", "流式输出", "接口", "人工智能", "机器学习", "语言模型", "文档", "服务器")
CODE = (
    "def W(x):\n    return x + D", "for (int i = 0; i < D; i++) { W(i); }", "SELECT W FROM N WHERE id = D;",
    "print('W')", "import W\nW.V(D)", 'fn main() { println!("W"); }', '{"W": D, "N": "W"}', '<div class="W">N</div>',
    "W = lambda N: N * D", 'Traceback (most recent call last):\n  File "W.py", line D\nValueError: W', "git V W",
    "curl http://W.com/N?id=D", "rm -rf W", "What does this do: x = [W for W in N]",
    "```python\nclass W:\n    pass\n```\nExplain this code.", "#include <W.h>", "$ W --V D",
    "if W == D:\n    W()\nelse:\n    return None", "while (W) { N++; }", "public static void main(String[] W) {",
    "const W = (N) => N.map(x => x * D);", "function W(N) { return N.V(); }", "docker run -p D:D W", "let W: i32 = D;",
    "async def W():\n    await N(D)", "W: N\n  - V: D", "try:\n    W(N)\nexcept Exception as e:\n    print(e)",
    "std::vector<int> W(D);", "| W | N |\n|---|---|\n| D | D |", "W[i] = N[D - i] if W else None", "\\frac{D}{W}",
)
_LETTERS = "NVAPCDWGKS"


def fill(random: Random, form: str, chinese: bool, given: Mapping[str, str] | None = None) -> str:
    """Replaces the letters that stand alone in a form; those that are `given` by their values."""
    known = given or {}
    words = [
        (known[letter] if letter in known else _filling(random, letter, chinese)) if _stands_alone(form, at) else letter
        for at, letter in enumerate(form)
    ]
    return "".join(words)


def fill_code(random: Random) -> str:
    """A line or a few of some programming language."""
    return fill(random, random.choice(CODE), False)


def _stands_alone(form: str, at: int) -> bool:
    if form[at] not in _LETTERS:
        return False
    neighbours = form[max(at - 1, 0) : at] + form[at + 1 : at + 2]
    outside = string.ascii_lowercase + string.digits + "+'" + "".join(set(string.ascii_uppercase) - set("NVW"))
    return not any(letter in outside for letter in neighbours)


def _filling(random: Random, letter: str, chinese: bool) -> str:
    if letter == "D":
        return str(random.randint(10, 10 ** random.randint(2, 5)))
    if letter == "G":
        return str(random.randint(0, 9))
    if letter == "S":
        return random.choice(SERVICE_WORDS + (CHINESE_SERVICE_WORDS if chinese else ()))
    if letter == "K":
        return fill_code(random)
    if letter == "C":
        return city(random, chinese)
    if letter == "W":
        in_chinese = chinese and random.random() < 0.7
        return random_characters(random, random.randint(1, 3)) if in_chinese else invented_word(random)
    if letter == "P":
        return (chinese_name if chinese else english_name)(random)
    if letter == "V":
        return random.choice(CHINESE_VERBS if chinese else VERBS)
    if letter == "A":
        return random.choice(ADJECTIVES)
    return chinese_word(random) if chinese else english_word(random)


def city(random: Random, chinese: bool) -> str:
    """A city of the list, or now and then an invented one, so that copying is learned rather than the list."""
    if random.random() < 0.15:
        return random_characters(random, random.randint(2, 3)) if chinese else invented_word(random).capitalize()
    return random.choice(CITIES)[1 if chinese else 0]
