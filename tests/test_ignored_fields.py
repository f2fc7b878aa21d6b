"""Which fields are unknown, and how often the log is told."""

import logging
from typing import Any

import pytest

from http_bridge.foreign_fields import NEUTRAL, WITHOUT_EFFECT
from http_bridge.ignored_fields import IgnoredFieldsLog, ignored_fields
from http_bridge.neutral_values import NOTHING, asks_for_nothing, is_one_of
from http_bridge.schemas import ChatCompletionRequest


def test_no_field_is_in_two_tables() -> None:
    own = set(ChatCompletionRequest.model_fields)
    assert not own & NEUTRAL.keys()
    assert not own & WITHOUT_EFFECT
    assert not NEUTRAL.keys() & WITHOUT_EFFECT
    assert all(is_one_of(None, values) for values in NEUTRAL.values())


def test_log_forgets_after_an_hour_and_holds_no_more_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "http_bridge.ignored_fields")
    now_s = [0.0]
    log = IgnoredFieldsLog(lambda: now_s[0])
    log.note(str(number) for number in range(10_000))
    assert len(told(caplog)) == 512
    now_s[0] = 3599.0
    log.note(["0"])
    assert len(told(caplog)) == 512
    now_s[0] = 3600.0
    log.note(["0", "0", "new"])
    assert len(told(caplog)) == 514


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


def test_names_without_room_are_counted_in_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "http_bridge.ignored_fields")
    now_s = [0.0]
    monkeypatch.setattr("observability.descriptors.time.monotonic", lambda: now_s[0])
    log = IgnoredFieldsLog(lambda: now_s[0])
    log.note(str(number) for number in range(512))
    assert not caplog.records
    log.note(["a", "b", "0"])
    now_s[0] = 61.0
    log.note(["c", "d"])
    lines = [record.getMessage() for record in caplog.records]
    assert [line[-9:] for line in lines] == ["(1 times)", "(2 times)"]
    assert all("512 other names" in line for line in lines)


@pytest.mark.parametrize("value", [*NOTHING, 0, 0.0, True, 1, "None", [0], {"": 0}, " "])
def test_the_quick_check_agrees_with_the_table(value: Any) -> None:
    assert asks_for_nothing(value) == is_one_of(value, NOTHING)


def test_names_that_repeat_are_found_in_one_walk() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}] * 3, "x": 1}] * 50_000
    assert list(ignored_fields({"messages": messages})) == ["messages[].x", "messages[].content[].x"]


@pytest.mark.parametrize(
    "value", [[], 5, "x", None, {"messages": 5}, {"messages": [5, None, [{}]]}, {"stream_options": [1], "resume": "x"}]
)
def test_other_shapes_have_no_fields(value: Any) -> None:
    assert ignored_fields(value) == {}
