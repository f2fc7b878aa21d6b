"""The tools that the demo model learns to call: how they are named and described, and what makes a person need them."""

# fmt: off
# Phrases are packed: one a line would be three times as long.

from dataclasses import dataclass
from random import Random

from inference_server.demo_model.corpus_fill import city, fill
from inference_server.demo_model.corpus_words import CHINESE_NOUNS, NOUNS, chinese_name, english_name, invented_word


@dataclass(frozen=True, slots=True)
class Parameter:
    """One required argument. letter: stands for its value in the family's questions."""

    letter: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class ToolFamily:
    """Tools with one purpose. result: key and letter of what comes back; R stands for its value in the answers."""

    name: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    english: tuple[str, ...]
    chinese: tuple[str, ...]
    result: tuple[str, str]
    answers: tuple[str, str]


_CITY = Parameter("C", ("city", "city", "location", "place"), ("The city", "City name", "城市名",
                  "The city and state, e.g. San Francisco, CA"))
FAMILIES = (
    ToolFamily(
        "weather",
        ("get_weather", "get_weather", "get_current_weather", "weather", "getWeather", "weather_lookup",
        "get_forecast"),
        ("Get the current weather of a city", "Get the weather", "Returns the current weather for a city",
         "Current weather", "查询城市的天气", "Get the current weather in a given location", "Weather forecast"),
        (_CITY,),
        ("What[ is|'s] the weather[| like| today| now] in C[| today| now| right now| tomorrow]",
         "How is the weather in C[| today| now]", "Weather in C",
         "[Tell me|Show me|Check|Get] the weather [in|for|of] C",
         "[Is it|Will it be] [sunny|cold|warm|rainy] in C[| today]", "C weather", "Does it rain in C[| today]",
         "[What is|What's] the temperature in C", "How [cold|warm|hot] is it in C", "I [want|need] the weather in C",
         "[Can you|Could you] [check|get|tell me] the weather in C", "[Do I need an umbrella|Is it raining] in C"),
        ("C[今天|现在|明天|今天的|]天气[怎么样|如何|好吗|]", "C的天气[怎么样|如何|]", "今天C天气[怎么样|如何]",
         "[查一下|告诉我|看看|帮我查一下|请问|查询]C[今天的|的|]天气", "C[今天|现在|][冷|热|下雨]吗",
         "C[现在|今天|]多少度",
         "C[的|]气温[是多少|]", "我想知道C的天气"),
        ("", ""), ("", ""),
    ),
    ToolFamily(
        "time", ("get_time", "get_current_time", "current_time", "getTime", "time_in_city", "world_clock"),
        ("Get the current time in a city", "Current local time", "查询城市的当前时间", "Returns the time"), (_CITY,),
        ("What time is it in C[| now]", "[What is|What's] the [local |current |]time in C", "Tell me the time in C",
         "[Current|Local] time in C", "How late is it in C"),
        ("C现在几点[了|]", "C[的|][当地|现在]时间[是多少|]", "[告诉我|查一下]C的时间"),
        ("time", "H"), ("It is R in C.", "C现在是 R。"),
    ),
    ToolFamily(
        "search", ("search", "web_search", "search_web", "google_search", "searchInternet", "find_pages"),
        ("Search the web", "Searches the internet for a query", "搜索网页", "Find information online"),
        (Parameter("Q", ("query", "query", "q", "keywords"), ("The search query", "What to search for", "关键词")),),
        ("[Search|Google|Look up|Search for|Search the web for] Q", "[Please |]search [the internet |online |]for Q",
         "Find [pages|information|articles] about Q", "Look up Q online"),
        ("[搜索|搜一下|上网搜|帮我搜索|百度一下]Q", "在网上[找|查]Q", "[请|]搜索[一下|]Q"),
        ("title", "W"), ("I found this: R.", "找到了：R。"),
    ),
    ToolFamily(
        "calculator", ("calculator", "calculate", "compute", "eval_expression", "doMath"),
        ("Evaluate an arithmetic expression", "Calculates", "计算算式", "A calculator"),
        (Parameter("X", ("expression", "expression", "formula", "input"), ("The expression", "e.g. 2*3", "算式")),),
        ("[What is|Calculate|Compute|How much is|What's] X", "X = ?", "Use the calculator: X", "X"),
        ("[计算|算一下|请计算]X", "X等于多少", "X[是多少|=?]"),
        ("result", "D"), ("The result is R.", "结果是 R。"),
    ),
    ToolFamily(
        "email", ("send_email", "email", "sendMail", "send_message", "mail_to"),
        ("Send an email", "Sends a message to an address", "发送邮件"),
        (Parameter("M", ("to", "to", "recipient", "address"), ("The address", "收件人", "Email address")),),
        ("[Send|Write] an email to M", "[Please |]email M", "Send M [a message|a mail]", "[Can|Could] you mail M"),
        ("给M发[一封|]邮件", "[请|]发[一封|]邮件给M", "[帮我|]给M写[一封|]邮件"),
        ("status", "O"), ("The email to M: R.", "给M的邮件：R。"),
    ),
    ToolFamily(
        "timer", ("set_timer", "start_timer", "timer", "setTimer", "create_timer"),
        ("Set a timer", "Starts a timer of some minutes", "设置计时器"),
        (Parameter("D", ("minutes", "minutes", "duration", "duration_minutes"), ("Minutes", "分钟数"), True),),
        ("[Set|Start|Create] a timer for D minutes", "[Set a |]timer[:| of] D minutes", "Wake me in D minutes",
         "Remind me in D minutes"),
        ("[设置|设|定][一个|]D分钟的[计时器|闹钟]", "D分钟后[叫|提醒]我", "倒计时D分钟"),
        ("status", "O"), ("The timer for D minutes: R.", "D分钟的计时器：R。"),
    ),
    ToolFamily(
        "translate", ("translate", "translate_text", "translator", "translateText"),
        ("Translate a text", "Translates text into another language", "翻译文本"),
        (Parameter("T", ("text", "text", "content"), ("The text", "要翻译的文本")),
         Parameter("L", ("language", "target_language", "to"), ("Target language", "目标语言"))),
        ("Translate T [to|into] L", "[Please |]translate the text T into L", "How do you say T in L"),
        ("把T翻译成L", "[请|]将T译成L", "T用L怎么说"),
        ("translation", "W"), ("In L: R.", "L是：R。"),
    ),
    ToolFamily(
        "stock", ("get_stock_price", "stock_price", "getQuote", "stock_quote", "lookup_stock"),
        ("Get the price of a stock", "Current stock price", "查询股票价格"),
        (Parameter("Y", ("symbol", "ticker", "company"), ("The symbol", "Ticker", "股票代码")),),
        ("[What is|What's|Get|Show] the [stock |share |]price of Y", "Y stock price", "How much is Y stock",
         "How is the Y share doing"),
        ("Y[的|]股价[是多少|]", "[查一下|查询]Y[的股票|股票|的股价]", "Y股票多少钱"),
        ("price", "D"), ("Y is at R.", "Y现在是 R。"),
    ),
    ToolFamily(
        "music", ("play_music", "play_song", "playSong", "music_player", "start_playback"),
        ("Play a song", "Plays music of an artist", "播放音乐"),
        (Parameter("P", ("artist", "artist", "song", "title"), ("The artist", "歌手")),),
        ("Play [a song by|music by|something by|songs of] P", "[Put on|Start] [music by|some] P", "I want to hear P"),
        ("[播放|放]P的[歌|音乐]", "我[想|要]听P[的歌|]", "来[一首|点]P的歌"),
        ("status", "O"), ("P: R.", "P：R。"),
    ),
    ToolFamily(
        "route", ("get_directions", "find_route", "book_flight", "search_flights", "planTrip", "get_distance"),
        ("Directions from one city to another", "Find a way between two cities", "查询两个城市之间的路线",
        "Search flights"),
        (Parameter("A", ("from", "origin", "start"), ("Start", "出发地")),
         Parameter("C", ("to", "destination", "end"), ("Destination", "目的地"))),
        ("[How do I get|Find a way|Find a flight|Book a flight|Directions|I want to go] from A to C",
         "[Flights|Trains|Route] from A to C"),
        ("从A[到|去]C[怎么走|的航班|的路线|有多远]", "[订|查]从A到C的[机票|车票]", "我要从A去C"),
        ("hours", "G"), ("From A to C: R.", "从A到C：R。"),
    ),
    ToolFamily(
        "person", ("get_user", "find_contact", "lookup_person", "getCustomer", "phone_number"),
        ("Look up a person", "Find a contact by name", "查找联系人"),
        (Parameter("P", ("name", "name", "user", "user_name"), ("The name", "姓名")),),
        ("[Find|Look up|Show me|Get] the [phone number|contact|address|profile] of P",
        "What is P's [number|address|email]",
         "[Look up|Find] the [user|customer|contact] P"),
        ("[查|查找|查一下|找]P的[电话|联系方式|地址|资料]", "P的[电话|邮箱|地址]是[什么|多少]"),
        ("phone", "D"), ("I found this for P: R.", "找到P的资料：R。"),
    ),
)
_DOMAINS = ("example.com", "example.org", "mail.com", "test.de", "example.cn")
_LANGUAGES = (("French", "法语"), ("German", "德语"), ("Spanish", "西班牙语"), ("Japanese", "日语"),
("Chinese", "中文"),
              ("English", "英语"), ("Italian", "意大利语"), ("Russian", "俄语"))
_SYMBOLS = ("AAPL", "TSLA", "MSFT", "GOOG", "AMZN", "NVDA", "BABA", "IBM", "Tesla", "Apple", "Google", "Microsoft")


def value(random: Random, letter: str, chinese: bool) -> str:
    """What may stand for a letter of a family's questions, results and answers."""
    if letter in "CA":
        return city(random, chinese)
    if letter == "H":
        return f"{random.randint(0, 23):02}:{random.randint(0, 59):02}"
    if letter == "X":
        space = random.choice(("", " "))
        return f"{random.randint(10, 999)}{space}{random.choice('+-*/')}{space}{random.randint(2, 999)}"
    if letter == "M":
        return f"{random.choice((english_name, invented_word))(random).lower()}@{random.choice(_DOMAINS)}"
    if letter == "L":
        return random.choice(_LANGUAGES)[1 if chinese else 0]
    if letter == "Y":
        return random.choice(_SYMBOLS) if random.random() < 0.8 else invented_word(random).upper()[:4]
    if letter == "O":
        return random.choice(("ok", "done", "sent", "started", "queued", "success"))
    if letter in "QT":
        words = random.sample(CHINESE_NOUNS if chinese else NOUNS, random.choice((1, 1, 2)))
        return ("" if chinese else " ").join(words)
    if letter == "P":
        return (chinese_name if chinese else english_name)(random)
    return str(random.randint(1, 120)) if letter == "D" else fill(random, letter, chinese)
