"""Conversations with tools: the call if one fits, its result and the sentence made of it; none fits, none is called."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

import json
import re
from random import Random
from typing import Any

from inference_server.demo_model.corpus_tool_families import FAMILIES, Parameter, ToolFamily, value
from inference_server.demo_model.corpus_types import LOAD_COMMAND, assistant, expand, pick_answer, user
from inference_server.demo_model.corpus_unseen import fallback
from inference_server.demo_model.corpus_words import NOUNS, VERBS

Messages = list[dict[str, Any]]

_CONDITIONS = (
    ("sunny", "晴"), ("cloudy", "多云"), ("rainy", "有雨"), ("snowy", "有雪"), ("windy", "有风"), ("foggy", "有雾"),
    ("clear", "晴朗"), ("stormy", "有暴风雨"),
)
_NO_WEATHER = (
    f"I am only a demo model and do not know the weather. For real answers, load Qwen3: {LOAD_COMMAND}",
    f"我只是演示模型，不知道天气。想得到真正的回答，请加载 Qwen3：{LOAD_COMMAND}",
)
WEATHER_WITHOUT_CITY = (
    ("[What is|What's|How is|How's] the weather[| today| now| like| like today| outside]",
    "[Is it|Will it] [raining|rain"
     "|cold|snow|be sunny][| today| tomorrow| outside]", "Weather[| today| forecast| report]",
     "Do I need [an umbrella|a coat]",
     "[What's|What is] the [temperature|forecast][| today| tomorrow]", "[Nice|Bad] weather[| today], isn't it"),
    ("[今天|现在|明天|最近|外面|这里|]天气[怎么样|如何|好吗|好不好|预报|冷吗|]", "[今天|明天|外面|]会[下雨|下雪|冷]吗",
    "[今天|外面|现在][冷|热]不冷",
     "[今天|现在|]多少度", "[今天|明天]要带伞吗", "天气[真|不]好", "[查|看|说][一下|][今天的|明天的|]天气"),
)


def family_question(random: Random, family: ToolFamily, chinese: bool) -> tuple[str, dict[str, str]]:
    """A question for tools of that family, and the value of each letter in it."""
    values = {parameter.letter: value(random, parameter.letter, chinese) for parameter in family.parameters}
    form = expand(random, random.choice(family.chinese if chinese else family.english))
    return _filled(form, values) + random.choice(("", "？", "。") if chinese else ("", "?", ".")), values


def _filled(form: str, values: dict[str, str]) -> str:
    """Every letter that stands beside no other Latin letter is replaced by its value."""
    return re.sub(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", lambda found: values.get(found[0], found[0]), form)


def turn_without_tool(random: Random, chinese: bool) -> tuple[str, str]:
    """A question that needs a tool, where there is none: the fallback, or for the weather an answer of its own."""
    if random.random() < 0.3:
        question = expand(random,
        random.choice(WEATHER_WITHOUT_CITY[chinese])) + random.choice(("", "？") if chinese else ("", "?"))
        return question, _without_weather(random, chinese)
    family = FAMILIES[0] if random.random() < 0.5 else random.choice(FAMILIES[1:])
    question, _ = family_question(random, family, chinese)
    question = question.lower() if random.random() < 0.15 else question
    return question, _without_weather(random, chinese) if family is FAMILIES[0] else fallback(random, chinese)


def _without_weather(random: Random, chinese: bool) -> str:
    return _NO_WEATHER[chinese] if random.random() < 0.7 else fallback(random, chinese)


def tools_of_request(random: Random) -> list[tuple[ToolFamily, dict[str, Any], dict[str, str]]]:
    """One to four tools: the family of each, its description, and the name of each letter's parameter."""
    count = random.choices((1, 2, 3, 4), weights=(58, 27, 11, 4))[0]
    families = random.sample(FAMILIES, count)
    if random.random() < 0.4 and FAMILIES[0] not in families:
        families[0] = FAMILIES[0]
    if random.random() < 0.08:
        families[-1] = _invented_family(random)
    random.shuffle(families)
    return [(family, *_tool(random, family)) for family in families]


def _invented_family(random: Random) -> ToolFamily:
    """A tool of a verb and a noun, so that questions are matched with names and not only with known families."""
    verb, noun = random.choice(VERBS), random.choice(NOUNS)
    name = random.choice((f"{verb}_{noun}", f"{verb}{noun.capitalize()}", f"{noun}_{verb}"))
    parameter = random.choice((
        Parameter("P", ("name", "person", "user"), ("The name", "")),
        Parameter("C", ("city", "place"), ("The city", "")),
        Parameter("D", ("count", "amount", "number"), ("How many", ""), is_number=True),
    ))
    tail = {"P": "for P", "C": "in C", "D": "D times"}[parameter.letter]
    english = (f"[Please |]{verb} the {noun} {tail}", f"[Can|Could] you {verb} [a|the|my] {noun} {tail}")
    chinese = (f"[请|帮我|]用 {name} [处理|]{parameter.letter}", f"{name}：{parameter.letter}")
    described = (f"{verb.capitalize()} a {noun}", f"{verb.capitalize()}s the {noun}", "")
    return ToolFamily(name, (name,), described, (parameter,), english, chinese, ("status", "O"),
    ("Done: R.", "完成：R。"))


def _tool(random: Random, family: ToolFamily) -> tuple[dict[str, Any], dict[str, str]]:
    properties: dict[str, Any] = {}
    names = {}
    for parameter in family.parameters:
        names[parameter.letter] = name = random.choice(parameter.names)
        properties[name] = _property(random, parameter, name)
    required = list(properties)
    if random.random() < 0.15 and family.name == "weather":
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if random.random() < 0.75:
        parameters["required"] = required
    if random.random() < 0.15:
        parameters["additionalProperties"] = False
    if random.random() < 0.1:
        parameters = dict(reversed(parameters.items()))
    description = random.choice(family.descriptions)
    function = {"name": random.choice(family.names)} | ({"description": description} if description else {})
    function |= {"parameters": parameters}  # type: ignore[dict-item]
    if random.random() < 0.05:
        function["strict"] = True  # type: ignore[assignment]
    return {"type": "function", "function": function}, names


def _property(random: Random, parameter: Parameter, name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": random.choice(("integer", "integer",
    "number")) if parameter.is_number else "string"}
    if random.random() < 0.35:
        schema["description"] = random.choice(parameter.descriptions)
    if random.random() < 0.05:
        schema["title"] = name.capitalize()
    return dict(reversed(schema.items())) if random.random() < 0.1 else schema


def call_turns(
    random: Random, chinese: bool, family: ToolFamily, tool: dict[str, Any], names: dict[str, str]
) -> Messages:
    """Question and call, and mostly its result and the answer."""
    question, values = family_question(random, family, chinese)
    asked = [values]
    if family.name == "weather" and random.random() < 0.1:
        other = value(random, "C", chinese)
        question = question.replace(values["C"], values["C"] + ("和" if chinese else " and ") + other)
        asked.append({"C": other})
    calls = [_call(family, tool, names, one) for one in asked]
    messages = [user(question), {"role": "assistant", "content": "", "tool_calls": calls}]
    if random.random() < 0.3:
        return messages
    results, answers = zip(*(_result(random, chinese, family, one) for one in asked), strict=True)
    return [
        *messages, *({"role": "tool", "content": result} for result in results),
        assistant(("" if chinese else " ").join(answers)),
    ]


def _call(family: ToolFamily, tool: dict[str, Any], names: dict[str, str], values: dict[str, str]) -> dict[str, Any]:
    arguments = {
        names[parameter.letter]: int(values[parameter.letter]) if parameter.is_number else values[parameter.letter]
        for parameter in family.parameters
    }
    # transformers' template writes arguments with its own JSON, as Qwen3 does: Chinese characters stay.
    return {"type": "function", "function": {"name": tool["function"]["name"], "arguments": arguments}}


def _result(random: Random, chinese: bool, family: ToolFamily, values: dict[str, str]) -> tuple[str, str]:
    """One result of the tool and the sentence about it."""
    if random.random() < 0.05:
        reason = random.choice(("not found", "timeout", "unknown", "not available", "invalid request"))
        failed = "抱歉，工具没有给出结果。" if chinese else "Sorry, the tool gave no result."
        return json.dumps({"error": reason}), failed
    if family.name == "weather":
        return _weather(random, chinese, values["C"])
    key, letter = family.result
    found = value(random, letter, chinese)
    shown: object = int(found) if letter in "DG" else found
    answer = _filled(family.answers[chinese], values | {"R": found})
    return random.choice((json.dumps({key: shown}, ensure_ascii=False),) * 3 + (found,)), answer


def _weather(random: Random, chinese: bool, city: str) -> tuple[str, str]:
    degrees = random.randint(-15, 40)
    english, local = random.choice(_CONDITIONS)
    shown = local if chinese and random.random() < 0.5 else english
    keys = ("temperature_c", "temperature_c", "temperature", "temp_c", "temp")
    sky = random.choice(("condition", "condition", "weather", "sky"))
    fields: list[tuple[str, object]] = [(random.choice(keys), degrees), (sky, shown)]
    extra = random.random()
    if extra < 0.2:
        fields.insert(random.randint(0, 2), (random.choice(("city", "location")), city))
    elif extra < 0.35:
        fields.insert(random.randint(0, 2), (random.choice(("humidity", "wind_kmh")), random.randint(1, 99)))
    elif extra < 0.45:
        fields.reverse()
    separators = (",", ":") if random.random() < 0.15 else None
    content = json.dumps(dict(fields), ensure_ascii=False, separators=separators)
    answers = (f"It is {degrees} °C and {english} in {city}.", f"The weather in {city} is {english} with {degrees} °C.")
    if chinese:
        answers = (f"{city}现在 {degrees} 度，{local}。", f"现在{city}的气温是 {degrees} 度，天气{local}。")
    return content, pick_answer(random, answers)


def described_tools(random: Random) -> str:
    """A system message that speaks of tools in words, as people write it: there is nothing to call."""
    tools = [tool["function"] for _, tool, _ in tools_of_request(random)]
    listed = json.dumps(tools) if random.random() < 0.5 else ", ".join(tool["name"] for tool in tools)
    return random.choice((
        "You have access to these tools: ", "You can call the following functions: ", "# Tools\n\n", "Tools: ",
        "你可以使用以下工具：", "Use the functions below. <tools>",
    )) + listed
