"""How often the demo model calls a tool that fits, calls one that does not, and keeps to a schema.

It has a million parameters: the bounds are what it reaches, so that a new training is not worse unseen.
"""

import json
from random import Random

import pytest

from inference_server.demo_model.corpus import _turn_without_call
from inference_server.demo_model.corpus_json import schema_turn
from inference_server.demo_model.corpus_tools import call_turns, tools_of_request
from tests.test_demo_model import Asker, asker, model, tokenizer, user

__all__ = ["asker", "model", "tokenizer"]
COUNT = 60
SEED = 20250728  # of no training


def test_a_tool_that_fits_is_called(asker: Asker) -> None:
    random, asked, expected = Random(SEED), [], []
    for number in range(COUNT):
        offered = tools_of_request(random)
        turns = call_turns(random, bool(number % 2), *random.choice(offered))
        asked.append(([turns[0]], [tool for _, tool, _ in offered]))
        calls = [json.dumps(call["function"], ensure_ascii=False) for call in turns[1]["tool_calls"]]
        expected.append("\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls))
    answers = asker.ask_with_tools(asked)
    assert sum("<tool_call>" in answer for answer in answers) >= 0.85 * COUNT
    assert sum(map(str.__eq__, answers, expected)) >= 0.65 * COUNT


def test_no_tool_is_called_for_small_talk_and_seldom_one_that_does_not_fit(asker: Asker) -> None:
    random, asked = Random(SEED), []
    for number in range(COUNT):
        offered = tools_of_request(random)
        names = {family.name for family, _, _ in offered}
        question = _turn_without_call(random, bool(number % 2), names)[0]
        asked.append(([question], [tool for _, tool, _ in offered]))
    small_talk = [([user(text)], tools) for text, (_, tools) in zip(SMALL_TALK, asked, strict=False)]
    assert not [answer for answer in asker.ask_with_tools(small_talk) if "<tool_call>" in answer]
    assert sum("<tool_call>" in answer for answer in asker.ask_with_tools(asked)) <= 0.5 * COUNT


SMALL_TALK = ("Hello", "你好", "Thanks!", "谢谢", "Who are you?", "你是谁", "Tell me a joke", "再见")


@pytest.mark.parametrize("chinese", [False, True])
def test_an_answer_keeps_to_a_schema(asker: Asker, chinese: bool) -> None:
    random, asked, expected = Random(SEED), [], []
    for _ in range(COUNT // 2):
        system, question, answer = schema_turn(random, chinese)
        asked.append([*([{"role": "system", "content": system}] if system else []), user(question)])
        expected.append(answer)
    answers = asker.ask(asked)
    assert sum(map(str.__eq__, answers, expected)) >= 0.6 * len(asked)
    assert sum(map(is_json, answers)) >= 0.9 * len(asked)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
