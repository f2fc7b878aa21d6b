"""Prompts that are no question: other scripts and languages, code, typed control tokens, symbols, random characters."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

import string
from random import Random

from inference_server.demo_model.corpus_fill import fill, fill_code
from inference_server.demo_model.corpus_types import expand
from inference_server.demo_model.corpus_words import invented_word, random_characters

_OTHER_LANGUAGES = (
    "Bonjour, comment allez-vous ?", "Quelle est la capitale de la France ?", "¿Dónde está la biblioteca?",
    "¿Cómo te llamas?", "Guten Tag, wie heißt du?", "Was ist die Hauptstadt von Österreich?", "Привет, как дела?",
    "Сколько стоит хлеб?", "こんにちは", "ありがとうございます", "おはよう、げんきですか", "안녕하세요",
    "오늘 날씨 어때요?", "مرحبا كيف حالك", "Ciao, come stai?", "Onde fica a estação?", "Jak se máš?",
    "Merhaba, nasılsın?", "שלום מה שלומך", "नमस्ते, आप कैसे हैं", "Καλημέρα", "Xin chào", "สวัสดี", "Hur mår du idag?",
    "Je voudrais un café, s'il vous plaît", "Ich möchte ein Brot kaufen", "Il fait froid et je suis fatigué",
    "No sé qué hacer con mi coche, ¿puedes ayudarme por favor?", "Wir haben gestern einen Film über den Krieg gesehen",
    "Я не понимаю, почему это не работает", "Расскажи мне о погоде в Москве", "東京の天気を教えてください",
    "これは何ですか、先生", "日本語で話してもいいですか", "이것은 무엇입니까", "서울에서 부산까지 얼마나 걸려요",
    "ما هو اسمك",
    "أين تقع المدينة القديمة", "Eu gostaria de aprender a cozinhar com você", "Dove posso trovare una buona pizza",
    "Ik heb een vraag over mijn rekening", "Dziękuję bardzo za pomoc", "Bugün hava nasıl olacak",
)
_SCRIPTS = (
    (0x0430, 0x044F), (0x0430, 0x044F), (0x03B1, 0x03C9), (0x0627, 0x064A), (0x0627, 0x064A), (0x05D0, 0x05EA),
    (0x0905, 0x0939), (0x0E01, 0x0E2E), (0xAC00, 0xD7A3), (0xAC00, 0xD7A3), (0x3041, 0x3096), (0x3041, 0x3096),
    (0x30A1, 0x30FA), (0x00E0, 0x00FF), (0x0561, 0x0586), (0x10D0, 0x10F0), (0x1F300, 0x1F64F), (0x2190, 0x27BF),
    (0x0985, 0x09B9), (0x1200, 0x1248), (0x0021, 0x2FFF), (0x1F900, 0x1F9FF),
)
_CONTROL_LOOK_ALIKES = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<think>", "</think>",
    "<|im_start|>system\nV the N<|im_end|>", "What does <|im_end|> mean", "<tool_response>N</tool_response>",
    "<|im_start|>assistant\nN", "什么是<|im_end|>", "<|im_start|>user\nN是什么", "<tool_call>\nW",
    '<tool_call>\n{"name": "W_N", "arguments": {"N": "W"}}\n</tool_call>', "<tools>W</tools>", "Explain <tool_call>",
    'Say <tool_call>{"name": "N"', "用 <tool_call> 调用N", "Print </tool_call> D times", "<think>\nN V N\n</think>\nW",
    '{"name": "W_N", "arguments": {"W": "N"}}', "Please emit a <tool_call> for N",
    "<tool_response>\nD\n</tool_response>",
)
_SYMBOLS = (
    "", " ", "?", "??", "!", "...", "-", "a", "x", "ok?", ":)", "🙂", "🤔🤔", "@", "#", "\n", "1", "0", "\\", "''", ".",
    "/help", "…", "？", "。", "\t", "\n\n\n", "   ", '"', "{}", "[]", "null", "None", "undefined", "true", "%s", "$1",
    "&nbsp;", "\u200b", "/quit", "exit", "help()", "*", "**", "_", "~", "|", "<>", "()", "...?", "+1", "-1", "¿?", "xD",
)
_KANA = (0x3041, 0x3096)


def noise(random: Random, chinese: bool) -> tuple[str, bool]:
    """One prompt, and whether its answer is in Chinese: only when its words are."""
    kinds = (_code_prompt, _look_alike, _foreign, _characters, _symbols, _keys, _mixed)
    return random.choices(kinds, weights=(18, 15, 20, 10, 9, 12, 28))[0](random, chinese)


def _code_prompt(random: Random, chinese: bool) -> tuple[str, bool]:
    asked = chinese and random.random() < 0.5
    code = "\n".join(fill_code(random) for _ in range(random.choice((1, 1, 1, 2, 4))))
    return code + (random.choice(("\n这段代码是什么意思？", "\n解释一下", "\n哪里错了")) if asked else ""), asked


def _look_alike(random: Random, chinese: bool) -> tuple[str, bool]:
    form = random.choice(_CONTROL_LOOK_ALIKES)
    in_chinese = chinese and random.random() < 0.5
    if in_chinese:
        form = random.choice(("", "请解释", "为什么")) + form + random.choice(("N是什么", "怎么用", "是什么意思"))
    return fill(random, form, in_chinese), in_chinese or any("\u4e00" <= letter <= "\u9fff" for letter in form)


def _foreign(random: Random, chinese: bool) -> tuple[str, bool]:
    if random.random() < 0.45:
        words = " ".join(random.choices(_OTHER_LANGUAGES, k=random.choice((1, 1, 1, 2)))).split(" ")
        return " ".join(words if random.random() < 0.4 else random.sample(words, random.randint(1, len(words)))), False
    first, last = random.choice(_SCRIPTS)
    space = random.choice((" ", " ", "", ", "))
    text = space.join(
        "".join(chr(random.randint(first, last)) for _ in range(random.randint(1, 8)))
        for _ in range(random.choice((1, 2, 3, 5, 9)))
    )
    if (first, last) == _KANA and random.random() < 0.6:
        # Japanese mixes Chinese characters with its own; the answer is then English, as to any third language.
        text = "".join(letter + random.choice(("", "", random_characters(random, 1))) for letter in text)
    return text + random.choice(("", "", "?", "!", ".", " " + invented_word(random))), False


def _characters(random: Random, chinese: bool) -> tuple[str, bool]:
    if not chinese:
        return "".join(invented_word(random) for _ in range(random.randint(1, 5))), False
    return random_characters(random, random.randint(1, 12)), True


def _symbols(random: Random, chinese: bool) -> tuple[str, bool]:
    symbols = "".join(random.choices(string.punctuation + "🙂🎉👍🔥😀😂❤🚀", k=random.randint(1, 6)))
    return random.choice((random.choice(_SYMBOLS), symbols, symbols[0] * random.randint(2, 40))), False


def _keys(random: Random, chinese: bool) -> tuple[str, bool]:
    letters = random.choice((string.ascii_lowercase, string.ascii_letters + string.digits + string.punctuation + "   ",
                             string.digits, string.hexdigits, "asdfghjkl", string.ascii_uppercase))
    text = "".join(random.choice(letters) for _ in range(random.randint(2, 40)))
    return (text + random_characters(random, 3), True) if chinese and random.random() < 0.5 else (text, False)


def _mixed(random: Random, chinese: bool) -> tuple[str, bool]:
    """A sentence of one language about words of another; the sentence gives the language of the answer."""
    if chinese:
        form = random.choice((
            "W是什么意思", "“W W”怎么翻译", "把 W W 翻译成中文", "解释一下 W", "我想V W", "W 怎么V", "为什么 W W 这么V",
            "请问W N在哪里",
            "[English|法语|日语]的W怎么[说|读|写]", "OK，那N呢", "这个 bug 怎么V", "my N 坏了，怎么办",
            "帮我 check 一下 W", "用 W 写 N", "S 报 W 错了", "S W 被N了，显示 W-W-W", "S 里的 W 总是 W", "W W D 啦",
            "S D 了，N", "W 的 W 还没 W",
            "W W，W 吗", "S 跟 S 选 W 吗", "W N W N W", "N W 的", "好的 W", "S 里 W W 一直N",
        ))
        words = "".join(invented_word(random) if letter == "W" else letter for letter in expand(random, form))
        text = fill(random, words, True)
        return text + random.choice("？ 。"), True
    quoted = random.choice((random_characters(random, 2), fill(random, "N", True), fill(random, "V N", True)))
    form = random.choice((
        "What does X mean", "How do [you|I] [pronounce|say|write|read] X", "Translate X [to|into] English",
        "What is the meaning of X", "Is X a N", "Explain the word X", "I saw X on a N, what is it", "Who is X",
    ))
    quotes = random.choice(("{}", '"{}"', "'{}'", "“{}”"))
    text = fill(random, expand(random, form), False)
    return text.replace("X", quotes.format(quoted)) + random.choice(("?", "", ".")), False
