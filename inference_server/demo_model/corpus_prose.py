"""Texts as people paste them: sentences with their small words, lists, logs and code, in English and Chinese."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from collections.abc import Callable
from random import Random

from inference_server.demo_model.corpus_fill import fill, fill_code
from inference_server.demo_model.corpus_types import expand
from inference_server.demo_model.corpus_words import english_word, invented_word, random_characters

ENGLISH_FORMS_OF_PROSE = (
    "[The|A|This|Every] N [was|is|has been] [very |quite |]A[| and A], [and|but|so] [we|they|I|she] [could|would|had to"
    "] V it[| again| at once| before noon].",
    "In D, P and P [began|started|tried|wanted] to V the N [of|near|behind|with] the N.",
    "It is [often|sometimes|rarely|widely] [said|believed|known] that N [and N |]V N [because|although|while|when] the "
    "N is A.",
    "[However|Therefore|Moreover|Meanwhile|At first|In the end|For example], the N [that|which] P V was A, as [shown|"
    "described|mentioned] [above|below|in the N].",
    "There [is|was|are|were] [no|one|some|many|only a few|about D] N in C[| and in C].",
    "According to P, [more|less] than D percent of [all |the ]N V [their|its|our] N every [day|week|month|year].",
    "[We|They|I|You] [do not|did not|cannot|should|will|must] V [the|any|our|your] N [without|during|after|until] the N"
    ".",
    "[Dear|Hello] P, [thank you for|we are sorry about|I am writing to you because of] the N. [Best|Kind] regards, P.",
    "“[Why|How|Where] did the N V?” [asked|said|wondered] P. “[Because|Since|I think] it is [too |]A.”",
    "The [first|second|last|main] [step|reason|problem|part] is to V the N[, then V it|: it has D N|]; [see|compare] "
    "the A N.",
    "[If|When|As soon as] [the|an] N [is|gets|becomes] A, [please |]V it [carefully|slowly|by hand|with a N].",
    "W W W, W W.", "P [lives|works|was born] in C [with|as] a N [and|who] V [a |the ]N.", "N: D, N: D, N: D.",
    "[On|Since|Until] [Monday|Friday|Sunday] [the|our] N [had|took|made|left|found] D N, [none|all|most] of [them|which"
    "] A.",
)
CHINESE_FORMS_OF_PROSE = (
    "[这个|那个|一个|每个]N[非常|很|比较|已经]A，[所以|但是|而且|于是][我们|他们|我|她][必须|想要|可以|开始]V它。",
    "D年，P和P在C[开始|打算|努力]VN的N。",
    "[有人|大家|专家|很多人][认为|相信|知道|发现]，N[可以|不能|常常]VN，[因为|虽然|如果]N很A。",
    "[然而|因此|此外|同时|最后|例如]，P[所|曾经]V的N[是|不是]A的，[如上所述|详见下文|见N]。",
    "C[有|没有][大约|很多|一些|D个]N[，还有N|]。", "据P介绍，[超过|不到]百分之D的N[每天|每年|每月]都[要|会]VN。",
    "[我们|他们|我|你][不能|应该|将|一定要]在N[之前|之后|期间]VN。",
    "尊敬的P：[感谢您的|关于]N，[我们|我]会[尽快|马上]V。此致敬礼，P。",
    "“N[为什么|怎么]会V？”P[问|说]，“[因为|我想]它太A了。”", "[第一|第二|最后]步是VN，[然后|接着]VN；[参见|比较]N。",
    "[如果|当]N变得A，[就|请|应该][小心地|慢慢地|马上]V它。", "P[住|工作|出生]在C，[和|为]NVN。", "N：D，N：D，N：D。",
    "[从前|昨天|后来|去年]，[我|他|她|我们][去|到]C[看|买|找]N，[觉得|发现]N[又A又A|很A]。",
)
_CHINESE_ADJECTIVES = (
    "大", "小", "新", "旧", "好", "坏", "高", "低", "快", "慢", "冷", "热", "美", "复杂", "简单", "重要", "安全",
    "危险",
    "有名", "安静",
)
_LOG_LINES = (
    "D-D-D 1D:D:D [INFO|WARNING|ERROR|DEBUG] W: N V D ms", "N,D,P,C,A", "| N | D | A |", "- N: A", "D. V the N",
    "[INFO|WARN] [N|W].W - V N id=D status=D", "GET /N/D HTTP/1.1 200 D", '{"id": D, "name": "P", "N": "A"}', "* W W",
    "    at W.W(W.java:D)", "key_D = W  # N", "<p>The N is A.</p>", "D\tD\tD", "https://W.com/N/D?W=D",
)
_ENGLISH_TASKS = (
    "[Summarize|Summarise|Shorten|Proofread|Translate|Rewrite|Correct|Analyse|Check|Read] [this|the following|the "
    "following text|this text|the text below]", "What is this about", "[Please |]explain [this|the following]",
    "[Find|List|Count] the [mistakes|names|main points|numbers|errors] in this text", "TL;DR", "Is this correct",
    "What [does this mean|is wrong here|do you think of this]", "Here is my [N|text|code|log|email|question]",
)
_CHINESE_TASKS = (
    "[总结|概括|翻译|润色|修改|检查|分析|缩写|朗读][一下|][下面的|这段|以下|这篇][文字|内容|文章|话|日志|代码]",
    "这段话[是什么意思|讲了什么|对吗]",
    "[请|帮我|]看[看|一下][这个|下面的内容]", "[找出|列出][文中|下面]的[错误|重点|人名|数字]",
    "下面是我的[N|文章|邮件|代码]",
)


def english_sentence(random: Random) -> str:
    """One declarative sentence with a subject, small words and an end."""
    text = fill(random, expand(random, random.choice(ENGLISH_FORMS_OF_PROSE)), False)
    return text[:1].upper() + text[1:]


def chinese_sentence(random: Random) -> str:
    """One Chinese declarative sentence."""
    form = expand(random, random.choice(CHINESE_FORMS_OF_PROSE))
    form = "".join(random.choice(_CHINESE_ADJECTIVES) if letter == "A" else letter for letter in form)
    return fill(random, form, True)


def task(random: Random, chinese: bool) -> str:
    """What a person wants done with a pasted text."""
    return fill(random, expand(random, random.choice(_CHINESE_TASKS if chinese else _ENGLISH_TASKS)), chinese)


def pasted_text(random: Random, chinese: bool, characters: int) -> str:
    """A text of at least that length of one of many kinds; an English text may come from a Chinese asker, too."""
    kinds = (_prose, _prose, _prose, _lines, _code, _repetition, _words, _mixture)
    kind = random.choice(kinds)
    return kind(random, chinese, characters)


def _prose(random: Random, chinese: bool, characters: int) -> str:
    sentence, joints = (chinese_sentence, ("", "", "\n")) if chinese else (english_sentence, (" ", " ", " ", "\n\n"))
    return _joined(lambda: sentence(random) + random.choice(joints), characters)


def _lines(random: Random, chinese: bool, characters: int) -> str:
    form = random.choice(_LOG_LINES)
    changing, in_chinese = random.random() < 0.5, chinese and random.random() < 0.5

    def line() -> str:
        return fill(random, expand(random, random.choice(_LOG_LINES) if changing else form), in_chinese) + "\n"

    return _joined(line, characters)


def _code(random: Random, chinese: bool, characters: int) -> str:
    return _joined(lambda: fill_code(random) + random.choice(("\n", "\n\n", "\n    ")), characters)


def _repetition(random: Random, chinese: bool, characters: int) -> str:
    """One word, character, token or sentence again and again."""
    unit = random.choice((
        english_word(random), invented_word(random), random.choice("aAxz0!?.-_=#\n ha"), english_sentence(random),
        random_characters(random, random.randint(1, 4)), chinese_sentence(random), str(random.randint(0, 999)),
        chr(random.randint(0x1F300, 0x1F64F)), random.choice(("hello", "test", "no", "yes", "buffalo", "you", "the")),
    ))
    joint = random.choice(("", "", " ", " ", ", ", "\n"))
    return (unit + joint) * max(3, characters // (len(unit) + len(joint)))


def _words(random: Random, chinese: bool, characters: int) -> str:
    if chinese:
        return _joined(lambda: random_characters(random, 4) + random.choice(("，", "", "")), characters)
    return _joined(lambda: random.choice((invented_word, english_word))(random) + " ", characters)


def _mixture(random: Random, chinese: bool, characters: int) -> str:
    parts = (_prose, _lines, _code, _words)
    return _joined(lambda: random.choice(parts)(random, random.random() < 0.5, 60) + "\n", characters)


def _joined(piece: Callable[[], str], characters: int) -> str:
    """Pieces until there are so many characters."""
    text = ""
    while len(text) < characters:
        text += piece()
    return text.rstrip()
