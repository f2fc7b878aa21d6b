"""The picture of a session: every run of text lies where a terminal has it. wcwidth says how wide characters are."""

import re
import xml.etree.ElementTree
from collections.abc import Iterator

import pytest
from rich.text import Text
from wcwidth import wcswidth

from clients.markdown import AnswerMarkdown
from clients.picture import CELL_PX, Picture
from tests.programs import ROOT

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    "plain text alone",
    "你好，介绍一下你自己",
    "mixed 中文 and English，混合 to the end",
    "emoji 👍🏽 and 👨‍👩‍👧 and ❤️ and 🇨🇳 and 1️⃣ in a line",
    "marks: e\u0301 o\u0308\u0304 and 한국어, ｱ, Ａ, ①, 𠀀",
    "नमस्ते สวัสดี שלום",
    "< & > \" ' 引号",
]


def runs(svg: str) -> Iterator[tuple[float, float, str]]:
    """Left edge, length and text of each run but the title."""
    for element in xml.etree.ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if element.get("class") != "title":
            text = str(element.text).replace("\xa0", " ")
            yield float(element.attrib["x"]), float(element.attrib["textLength"]), text


def picture_of(*shown: Text | AnswerMarkdown) -> str:
    picture = Picture()
    picture.add(*shown)
    return picture.svg("a title & <more>")


@pytest.mark.parametrize("line", LINES)
def test_every_run_is_as_long_as_its_cells_and_begins_where_the_one_before_ends(line: str) -> None:
    drawn = list(runs(picture_of(Text(line))))
    left_px, start = drawn[0][0], 0
    for x_px, length_px, text in drawn:
        start = line.index(text, start)
        assert length_px == CELL_PX * wcswidth(text)
        assert x_px == left_px + CELL_PX * wcswidth(line[:start])
        start += len(text)
    assert "".join(text for _, _, text in drawn).replace(" ", "") == line.replace(" ", "")


def test_columns_of_a_table_stand_below_each_other_in_two_alphabets() -> None:
    drawn = list(runs(picture_of(AnswerMarkdown("| 名称 | value |\n|---|---|\n| 表格 | one |\n| ab | two |"))))
    words = ("value", "one", "two")
    places_px = {x + CELL_PX * text.index(word) for word in words for x, _, text in drawn if word in text}
    assert len(places_px) == 1


@pytest.mark.parametrize("svg", [picture_of(*map(Text, LINES)), (ROOT / "docs/chat.svg").read_text()])
def test_a_picture_names_no_address_and_no_font_to_be_fetched(svg: str) -> None:
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\(|@import|@font-face|<image|href", svg)


def test_the_picture_of_the_readme_is_drawn_to_the_same_measure() -> None:
    drawn = list(runs((ROOT / "docs/chat.svg").read_text()))
    assert any(re.search("[\u4e00-\u9fff]", text) for _, _, text in drawn)
    assert all(length_px == CELL_PX * wcswidth(text) for _, length_px, text in drawn)
