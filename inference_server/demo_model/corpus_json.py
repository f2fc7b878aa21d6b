"""Turns whose answer is JSON because the prompt asks for it: of facts in the text, and by a schema if one is given."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

import json
from random import Random
from typing import Any

from inference_server.demo_model.corpus_fill import city
from inference_server.demo_model.corpus_tools import turn_without_tool
from inference_server.demo_model.corpus_types import expand
from inference_server.demo_model.corpus_unseen import unseen_turn
from inference_server.demo_model.corpus_words import NOUNS, chinese_name, english_name, invented_word

Turn = tuple[str, str]
_UNKNOWN = ("I am only a demo model and do not know that.", "我只是演示模型，不知道答案。")
_FACT_KEYS = {
    "N": ("name", "name", "first_name", "person"), "A": ("age", "age", "years"),
    "C": ("city", "city", "town", "place"),
}
_TYPES = {"N": "string", "A": "integer", "C": "string"}
_OTHER_KEYS = (
    ("answer", "string"), ("country", "string"), ("price", "number"), ("count", "integer"), ("is_valid", "boolean"),
    ("tags", "array"), ("title", "string"), ("score", "number"), ("active", "boolean"), ("email", "string"),
)
_DEFAULTS: dict[str, object] = {"string": "unknown", "integer": 0, "number": 0, "boolean": False, "array": []}


def json_turn(random: Random, chinese: bool) -> Turn:
    """The user asks for a small JSON object, in words."""
    roll = random.random()
    if roll < 0.2:
        return _fixed(random, chinese)
    if roll < 0.45:
        return _unknown(random, chinese)
    facts = _facts(random, chinese)
    told = _told(random, chinese, facts)
    names = {"N": "name", "A": "age", "C": "city"}
    answer = {names[letter]: value for letter, value in facts.items()}
    return opening(random, chinese) + told, json.dumps(answer, ensure_ascii=False)


def opening(random: Random, chinese: bool) -> str:
    """Asks for JSON, before what it is about."""
    if chinese:
        return expand(random, "[用|请用|请以|以|用一个] [JSON|json] [回答|格式回答|输出|格式输出|表示|返回][：|:|，]")
    verbs = "Answer in|Reply in|Respond in|Give me|Return|Write|Answer with|Use|Output|Answer as"
    return expand(random, f"[{verbs}] [JSON|json|a JSON object|valid JSON][:| :| with| -] ")


def _facts(random: Random, chinese: bool) -> dict[str, object]:
    name = (chinese_name if chinese else english_name)(random)
    facts: dict[str, object] = {"N": name, "A": random.randint(1, 99)}
    return facts | ({"C": city(random, chinese)} if random.random() < 0.45 else {})


def _told(random: Random, chinese: bool, facts: dict[str, object]) -> str:
    if chinese:
        person = "[N，A 岁|N，A岁|N今年 A 岁|姓名N，年龄 A|N的名字和年龄，A 岁|名字是N，年龄是 A]"
        place, end = "[，住在C|，在C|，来自C]", "[|。]"
    else:
        persons = "name and age of N, A|N, A|N is A years old|name N, age A|name N and age A|N, A years old|N is A"
        person, place, end = f"[{persons}]", "[, from C|, lives in C|, in C|, city C| and lives in C]", "[|.]"
    form = expand(random, person + (place if "C" in facts else "") + end)
    return form.translate({ord(letter): str(value) for letter, value in facts.items()})


def _unknown(random: Random, chinese: bool) -> Turn:
    """JSON is asked for about something unseen, or about the weather."""
    question, _ = random.choice((unseen_turn, turn_without_tool))(random, chinese)
    answer = json.dumps({"answer": _UNKNOWN[chinese]}, ensure_ascii=False)
    if random.random() < 0.7:
        return opening(random, chinese) + question, answer
    tail = ("[，|。|][用|请用|以] JSON [回答|返回|输出][。|]",
    "[.| -|,|?] [Answer|Reply|Respond|Output] [in|as|with] JSON[.|]")
    return question + expand(random, tail[0 if chinese else 1]), answer


def _fixed(random: Random, chinese: bool) -> Turn:
    left, right = random.randint(1, 9), random.randint(1, 9)
    total = {"result": left + right}
    choices: tuple[tuple[str, dict[str, Any]], ...]
    if chinese:
        choices = (
            ("[你是谁|介绍一下你自己]", {"name": "Qwen3 演示模型", "parameters": 1000000}),
            ("[三种颜色|颜色]", {"colours": ["红", "绿", "蓝"]}),
            (f"{left}+{right}[|等于几|是多少]", total),
            ("[你好|打个招呼]", {"greeting": "你好"}),
        )
    else:
        choices = (
            ("[who are you|introduce yourself]", {"name": "Qwen3 demo", "parameters": 1000000}),
            ("[three colours|three colors|some colours]", {"colours": ["red", "green", "blue"]}),
            (f"[|what is ]{left}+{right}", total),
            ("[hello|say hello|a greeting]", {"greeting": "hello"}),
        )
    asked, answer = random.choice(choices)
    return opening(random, chinese) + expand(random, asked + "[|?]"), json.dumps(answer, ensure_ascii=False)


def schema_turn(random: Random, chinese: bool) -> tuple[str | None, str, str]:
    """Facts to be told by a JSON schema. Returns the system message if the schema stands there, question, answer."""
    facts = _facts(random, chinese) if random.random() < 0.8 else {}
    told = _told(random, chinese, facts) if facts else unseen_turn(random, chinese)[0]
    fields = [(random.choice(_FACT_KEYS[letter]), _TYPES[letter], value) for letter, value in facts.items()]
    if fields and random.random() < 0.3:
        fields = random.sample(fields, random.randint(1, len(fields)))
    for key, kind in random.sample(_OTHER_KEYS, random.choice((0, 0, 0, 1) if fields else (1, 1, 2))):
        fields.append((invented_word(random) if random.random() < 0.05 else key, kind, _DEFAULTS[kind]))
    random.shuffle(fields)
    answer = json.dumps({key: value for key, _, value in fields}, ensure_ascii=False)
    wish = _wish(random, chinese, _described(random, [(key, kind) for key, kind, _ in fields]))
    if random.random() < 0.5:
        return wish, told, answer
    return None, told + "\n\n" + wish if random.random() < 0.5 else wish + "\n\n" + told, answer


def _described(random: Random, fields: list[tuple[str, str]]) -> str:
    """A JSON schema of the fields, or a shorter way to say the same."""
    roll = random.random()
    if roll < 0.1:
        return json.dumps(dict(fields))
    if roll < 0.13:
        return ", ".join(key for key, _ in fields)
    items = {"array": {"type": "array", "items": {"type": "string"}}}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {key: items.get(kind, {"type": kind}) for key, kind in fields},
        "required": [key for key, _ in fields],
    }
    if random.random() < 0.3:
        schema["additionalProperties"] = False
    elif random.random() < 0.2:
        del schema["required"]
    if random.random() < 0.1:
        schema = {"title": random.choice(NOUNS).capitalize()} | schema
    return json.dumps(schema, indent=2 if random.random() < 0.1 else None)


def _wish(random: Random, chinese: bool, schema: str) -> str:
    if chinese and random.random() < 0.6:
        form = "[请|][用|以|返回|输出][符合这个模式的 |以下格式的 |] JSON[ 回答|][：|，模式：|，字段：]"
    else:
        form = ("[Answer|Reply|Respond|Output|Return][ only|] [in|with|as|] JSON[ object|] [that fits this schema|wit"
        "h this "
                "schema|matching the schema|with the keys|of this form][:|:\n| ]")
    return expand(random, form) + schema
