"""What the demo model learns from: nothing it is tested with, no promise that is not kept, and the way back."""

from random import Random

import pytest

from inference_server.demo_model.corpus import conversations
from inference_server.demo_model.corpus_chinese import CHINESE_TOPICS
from inference_server.demo_model.corpus_english import ENGLISH_TOPICS
from inference_server.demo_model.corpus_types import Conversation
from inference_server.demo_model.disturbances import NOT_LEARNED, disturbed, with_targets
from tests.demo_templates import templates
from tests.demo_unseen_questions import LAST_QUESTIONS

END = 2502


@pytest.fixture(scope="module")
def written() -> list[Conversation]:
    """Twenty thousand conversations of a seed of their own."""
    return list(conversations(20250726, 20_000))


def test_unseen_questions_are_no_text_of_the_corpus(written: list[Conversation]) -> None:
    asked = {normalised(text["content"]) for one in written for text in one.messages if text["role"] == "user"}
    assert not asked & set(map(normalised, LAST_QUESTIONS))


def normalised(text: str) -> str:
    """Without capitals, and without marks and spaces at the ends."""
    return text.lower().strip(" \n?!.,。？！，")


def test_unseen_questions_are_of_no_template_of_the_corpus() -> None:
    matched = [
        (question[:80], template.pattern)
        for question in LAST_QUESTIONS
        for template in templates()
        if template.fullmatch(question.strip())
    ]
    assert not matched


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?", "Explain quantum gravity", "北京的天气怎么样", "What is 2+3?", "重复：你好",
        "Answer in JSON: Tom, 25", "谁发明了电话", "Please search for red shoes", "My name is Anna.", "我叫小明",
    ],
)  # fmt: skip
def test_question_of_the_corpus_is_found_to_be_of_its_templates(question: str) -> None:
    assert any(template.fullmatch(question) for template in templates())


def test_demo_promises_neither_tools_nor_json() -> None:
    """The service refuses both in a request."""
    answers = [answer for topic in ENGLISH_TOPICS + CHINESE_TOPICS for answer in topic.answers]
    assert not [answer for answer in answers if any(word in answer for word in ("JSON", "json", "tool", "工具"))]


def test_no_tool_is_called_that_the_request_does_not_bring(written: list[Conversation]) -> None:
    for conversation in written:
        offered = {tool["function"]["name"] for tool in conversation.tools}
        for message in conversation.messages:
            called = {call["function"]["name"] for call in message.get("tool_calls", ())}
            assert called <= offered or not conversation.tools  # a client may replay calls without the tools
        if not conversation.tools:
            assert not conversation.messages[-1].get("tool_calls")


def test_answer_led_astray_is_to_be_ended_and_nothing_else_is_learned_there() -> None:
    token_ids = [*range(100, 140), *range(200, 230), END]
    spoken = [False] * 40 + [True] * 31
    ids, targets = with_targets(token_ids, spoken)
    assert ids == token_ids
    assert targets == [NOT_LEARNED] * 39 + token_ids[40:] + [NOT_LEARNED]
    random = Random(0)
    kinds = {"same": 0, "wrong tokens": 0, "astray": 0}
    for _ in range(2000):
        ids, targets = disturbed(random, token_ids, spoken)
        assert len(ids) == len(targets)
        assert ids[:40] == token_ids[:40]
        if ids == token_ids:
            kinds["same"] += 1
        elif targets[:-1] == with_targets(token_ids, spoken)[1][:-1]:
            kinds["wrong tokens"] += 1
        else:
            kinds["astray"] += 1
            learned = [target for target in targets if target != NOT_LEARNED]
            kept = sum(target == said for target, said in zip(learned, token_ids[40:], strict=False))
            assert set(learned[kept:]) <= {END}
    assert all(count > 50 for count in kinds.values()), kinds
