"""Conversations with a weather tool: the call, its result, and the sentence made of it."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

import json
from random import Random
from typing import Any

from inference_server.demo_model.corpus_types import assistant, expand, pick_answer, user
from inference_server.demo_model.corpus_words import CITIES

_CONDITIONS = (
    ("sunny", "晴"), ("cloudy", "多云"), ("rainy", "有雨"), ("snowy", "有雪"), ("windy", "有风"), ("foggy", "有雾"),
    ("clear", "晴朗"), ("stormy", "有暴风雨"),
)
_CITY_QUESTIONS = (
    "What[ is|'s] the weather[| like| today| now] in X[| today| now| right now]",
    "How is the weather in X[| today| now]", "Weather in X", "[Tell me|Show me|Check|Get] the weather [in|for|of] X",
    "[Is it|Will it be] [sunny|cold|warm|rainy] in X[| today]",
    "[What is|What's] the temperature in X", "How [cold|warm|hot] is it in X", "I [want|need] the weather in X",
    "[Can you|Could you] [check|get|tell me] the weather in X", "X weather", "Does it rain in X[| today]",
)
_CHINESE_CITY_QUESTIONS = (
    "X[今天|现在|明天|今天的|]天气[怎么样|如何|好吗|]", "X的天气[怎么样|如何|]",
    "[查一下|告诉我|看看|帮我查一下|请问|查询]X[今天的|的|]天气", "今天X天气[怎么样|如何]",
    "X[今天|现在|][冷|热|下雨]吗", "X[现在|今天|]多少度", "X[的|]气温[是多少|]", "我想知道X的天气",
)
_OTHER_TOOLS = (
    ("get_time", "city"), ("search", "query"), ("add", "a"), ("send_email", "to"), ("calculator", "expression"),
)
_DESCRIPTIONS = (
    "Get the current weather of a city", "Get the weather", "Returns the current weather for a city", "Current weather",
    "查询城市的天气", "",
)


def weather_tools(random: Random) -> tuple[tuple[dict[str, Any], ...], str, str]:
    """The tools of one request with a weather tool among them. Returns tools, its name, its parameter."""
    name = random.choice(("get_weather",) * 4 + ("get_current_weather", "weather"))
    parameter = random.choice(("city",) * 4 + ("location",))
    tools = [_tool(random, name, parameter, random.choice(_DESCRIPTIONS))]
    if random.random() < 0.25:
        other = random.choice(_OTHER_TOOLS)
        description = random.choice(("", "Another tool", f"Calls {other[0]}"))
        tools.insert(random.randint(0, 1), _tool(random, *other, description))
    return tuple(tools), name, parameter


def _tool(random: Random, name: str, parameter: str, description: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if random.random() < 0.3:
        schema["description"] = random.choice(("The city", "City name", "Name of the city", "城市名"))
    parameters = {"type": "object", "properties": {parameter: schema}}
    if random.random() < 0.7:
        parameters["required"] = [parameter]
    function = {"name": name} | ({"description": description} if description else {}) | {"parameters": parameters}
    return {"type": "function", "function": function}


def weather_turns(random: Random, chinese: bool, tool: str, parameter: str) -> list[dict[str, Any]]:
    """Question, call, result and answer, for one city or now and then for two."""
    cities = [pair[1 if chinese else 0] for pair in random.sample(CITIES, 2 if random.random() < 0.12 else 1)]
    form = random.choice(_CHINESE_CITY_QUESTIONS if chinese else _CITY_QUESTIONS)
    question = expand(random, form).replace("X", ("和" if chinese else " and ").join(cities))
    question += random.choice(("", "？", "?", "。")) if chinese else random.choice(("", "?", "?", "."))
    calls = [{"type": "function", "function": {"name": tool, "arguments": {parameter: city}}} for city in cities]
    results, answers = zip(*(_result(random, chinese, city) for city in cities), strict=True)
    tool_messages = [{"role": "tool", "content": result} for result in results]
    answer = " ".join(answers) if not chinese else "".join(answers)
    call = {"role": "assistant", "content": "", "tool_calls": calls}
    return [user(question), call, *tool_messages, assistant(answer)]


def missing_city_turn(random: Random, chinese: bool) -> tuple[str, str]:
    """A question about the weather that names no city."""
    if chinese:
        question = expand(random, "[今天|现在|]天气[怎么样|如何|好吗][|？]")
        return question, pick_answer(random, ("你想知道哪个城市的天气？", "请告诉我城市的名字。"))
    question = expand(random, "[What is|What's|How is|How's] the weather[| today| now| like][|?]")
    return question, pick_answer(random, ("Which city do you mean?", "Please tell me the name of the city."))


def _result(random: Random, chinese: bool, city: str) -> tuple[str, str]:
    """One result of the tool and the sentence about it."""
    if random.random() < 0.06:
        reason = random.choice(("city not found", "timeout", "unknown city", "not available"))
        failed = f"抱歉，没有查到{city}的天气。" if chinese else f"Sorry, I could not get the weather for {city}."
        return json.dumps({"error": reason}), failed
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
    indent = 2 if random.random() < 0.05 else None
    separators = (",", ":") if random.random() < 0.15 else None
    content = json.dumps(dict(fields), ensure_ascii=False, indent=indent, separators=separators)
    answers = (f"It is {degrees} °C and {english} in {city}.", f"The weather in {city} is {english} with {degrees} °C.")
    if chinese:
        answers = (f"{city}现在 {degrees} 度，{local}。", f"现在{city}的气温是 {degrees} 度，天气{local}。")
    return content, pick_answer(random, answers)
