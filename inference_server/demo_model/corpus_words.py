"""Words and names from which the corpus builds sentences: lists of our own, and generators of invented words."""

from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    """apple river engine mountain piano bridge cheese planet castle window tiger ocean bicycle market doctor
    teacher garden computer network protein electron molecule history economy election war peace tax law medicine
    vaccine virus music painting novel philosophy religion football tennis chess olympics marathon train airplane
    rocket satellite star galaxy gravity light energy electricity battery oil gas coal climate weather rain snow
    desert forest tree flower seed bread soup rice noodle pizza coffee tea sugar salt recipe kitchen restaurant
    hotel airport passport visa ticket island city village capital country continent president king queen emperor
    empire dynasty revolution treaty parliament court bank money stock bond inflation interest loan insurance
    company startup manager salary interview job resume email letter essay article newspaper magazine book
    library school university student exam homework mathematics algebra geometry calculus statistics probability
    matrix vector equation theorem proof number prime fraction algorithm function variable loop array string
    database query index server compiler kernel thread process memory disk browser website password encryption
    blockchain robot sensor camera telescope microscope clock calendar holiday birthday wedding funeral family
    mother father brother sister child baby dog cat horse cow sheep bird eagle whale shark spider ant bee
    butterfly dinosaur fossil rock diamond gold silver iron copper plastic paper glass wood brick house roof door
    floor wall bed chair table lamp mirror shirt shoe hat coat heart brain lung liver kidney bone muscle skin
    blood sleep dream memory emotion love anger fear happiness friendship freedom justice truth beauty language
    grammar verb alphabet accent song guitar violin drum dance theatre film actor director museum sculpture
    photograph"""
)
VERBS = _words(
    """make build fix write read draw paint cook bake clean wash buy sell rent repair grow plant catch hunt swim
    climb fly drive ride park learn teach study solve compute measure compare improve install configure deploy
    debug test compile sort search parse translate summarize describe explain invent discover explore visit leave
    join win lose play sing dance sleep forget remember choose avoid prevent cure treat protect save spend invest
    earn pay cut open close break melt freeze boil mix stop start load run stream use call check count tell"""
)
ADJECTIVES = _words(
    """old new big small red green fast slow hot cold ancient modern famous rare common cheap expensive strong weak
    deep shallow bright dark sweet bitter dangerous safe simple complex quiet loud happy sad wild tame soft hard
    medieval digital electric national local northern southern chemical nuclear organic"""
)
CHINESE_NOUNS = _words(
    """苹果 河流 发动机 高山 钢琴 桥梁 奶酪 行星 城堡 窗户 老虎 海洋 自行车 市场 医生 老师 花园 计算机 网络 蛋白质
    电子 分子 历史 经济 选举 战争 和平 税收 法律 医学 疫苗 病毒 音乐 绘画 小说 哲学 宗教 足球 网球 围棋 奥运会
    马拉松 火车 飞机 火箭 卫星 恒星 银河 重力 光线 能源 电力 电池 石油 煤炭 气候 雨水 沙漠 森林 树木 种子 面包 汤
    米饭 面条 披萨 咖啡 茶叶 白糖 食盐 菜谱 厨房 饭店 酒店 机场 护照 签证 车票 岛屿 城市 乡村 首都 国家 大洲 总统
    国王 皇帝 帝国 朝代 革命 条约 法院 银行 货币 股票 债券 通货膨胀 利率 贷款 保险 公司 创业 经理 工资 面试 工作
    简历 邮件 书信 作文 报纸 杂志 书籍 图书馆 学校 大学 学生 考试 作业 数学 代数 几何 微积分 统计 概率 矩阵 向量
    方程 定理 证明 质数 分数 算法 函数 变量 循环 数组 字符串 数据库 索引 编译器 内核 线程 进程 内存 硬盘 浏览器
    网站 密码 加密 区块链 机器人 传感器 相机 望远镜 显微镜 时钟 日历 节日 生日 婚礼 家庭 母亲 父亲 哥哥 妹妹 孩子
    狗 猫 马 牛 羊 鸟 鹰 鲸鱼 鲨鱼 蜘蛛 蚂蚁 蜜蜂 蝴蝶 恐龙 化石 岩石 钻石 黄金 白银 钢铁 塑料 纸张 玻璃 木头
    房子 屋顶 门 墙壁 床 椅子 桌子 镜子 衬衫 鞋子 帽子 心脏 大脑 肺 肝脏 骨头 肌肉 皮肤 血液 睡眠 梦 记忆 情绪
    爱情 愤怒 恐惧 幸福 友谊 自由 正义 真理 美 语言 语法 动词 歌曲 吉他 小提琴 舞蹈 戏剧 电影 演员 导演 博物馆
    雕塑 照片 唐诗 宋词 毛笔 书法 京剧 春节 中秋节 饺子 火锅 豆腐 长江 黄河 长城 故宫"""
)
CHINESE_VERBS = _words(
    """制作 建造 修理 写 读 画 煮 烤 打扫 清洗 买 卖 租 种植 捕捉 游泳 攀登 飞行 驾驶 学习 教 研究 解决 计算 测量
    比较 改进 安装 配置 调试 测试 编译 排序 搜索 解析 翻译 总结 描述 解释 发明 发现 探索 参观 离开 加入 赢得 失去
    唱 跳 忘记 记住 选择 避免 预防 治疗 保护 节省 花费 投资 打开 关闭 打破 融化 冷冻 混合 停止 加载 运行 使用
    调用 检查 数 讲 介绍"""
)
ENGLISH_NAMES = _words(
    """Anna Tom Mary John Peter Paul Lisa Emma Olivia Liam Noah James William Henry Lucas Jack Oliver Mia Sophia
    Amelia Alice Bob Carol David Eve Frank Grace Heidi Ivan Judy Kevin Laura Mike Nina Oscar Rachel Sam Sarah
    Steve Susan Tina Victor Wendy Alex Ben Charlie Daniel Ella Fiona George Hannah Isabella Jacob Kate Leo Lily
    Max Michael Nathan Owen Patrick Rose Ruby Simon Thomas Tim Zoe Adam Andrew Betty Chris Diana Edward Helen
    Jane Jim Joe Julia Karen Linda Mark Martin Nancy Nick Rob Robert Ryan Sophie Ted Tony Vera Walter Maria Jose
    Ahmed Fatima Yuki Raj Priya Olga"""
)
CITIES = tuple(
    (pair.split(":")[0], pair.split(":")[1])
    for pair in _words(
        """Beijing:北京 Shanghai:上海 Guangzhou:广州 Shenzhen:深圳 Hangzhou:杭州 Nanjing:南京 Chengdu:成都
        Chongqing:重庆 Wuhan:武汉 Tianjin:天津 Suzhou:苏州 Qingdao:青岛 Dalian:大连 Xiamen:厦门 Kunming:昆明
        Harbin:哈尔滨 Lhasa:拉萨 Guilin:桂林 Changsha:长沙 Taipei:台北 Tokyo:东京 Osaka:大阪 Seoul:首尔
        Singapore:新加坡 Bangkok:曼谷 Delhi:德里 Mumbai:孟买 Dubai:迪拜 Paris:巴黎 London:伦敦 Berlin:柏林
        Munich:慕尼黑 Madrid:马德里 Rome:罗马 Vienna:维也纳 Zurich:苏黎世 Amsterdam:阿姆斯特丹 Moscow:莫斯科
        Istanbul:伊斯坦布尔 Cairo:开罗 Sydney:悉尼 Melbourne:墨尔本 Toronto:多伦多 Boston:波士顿
        Chicago:芝加哥 Seattle:西雅图 Houston:休斯敦 Oslo:奥斯陆 Dublin:都柏林 Lisbon:里斯本 Prague:布拉格
        Athens:雅典"""
    )
)
_SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹"
_GIVEN = (
    "明红华强芳伟丽军敏静磊娜杰涛超霞平刚英梅雷洋勇艳秀娟鹏飞玲桂丹"
    "萍辉鑫宇浩然欣怡子轩雨涵梓晨佳琪思远文博志国建春海燕小龙天乐安宁"
)
NAME_CHARACTERS = _SURNAMES + _GIVEN
_ONSETS = _words("b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl qu sh sl st th tr")
_VOWELS = _words("a e i o u ai ea ee io oo ou")
_CODAS = ("", "", "", "n", "r", "s", "t", "l", "m", "ck", "nd", "st", "x")


def invented_word(random: Random) -> str:
    """A pronounceable word that most likely does not exist."""
    syllables = (
        random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS) for _ in range(random.randint(1, 3))
    )
    return "".join(syllables)


def random_characters(random: Random, count: int) -> str:
    """Chinese characters drawn from the whole basic block, most of them rare."""
    return "".join(chr(random.randint(0x4E00, 0x9FA5)) for _ in range(count))


def english_name(random: Random) -> str:
    """A common first name, or now and then an invented one, so that copying is learned rather than a list."""
    return invented_word(random).capitalize() if random.random() < 0.1 else random.choice(ENGLISH_NAMES)


def chinese_name(random: Random) -> str:
    """A nickname such as 小明, or a surname with a given name."""
    first = random.choice("小小小阿老大") if random.random() < 0.4 else random.choice(_SURNAMES)
    given = random.choice(_GIVEN) if len(first) == 1 and first in "小阿老大" else None
    return first + (given or "".join(random.sample(_GIVEN, random.randint(1, 2))))


def english_word(random: Random) -> str:
    """A noun, often with an adjective or in the plural, sometimes invented."""
    roll = random.random()
    if roll < 0.2:
        return invented_word(random)
    noun = random.choice(NOUNS)
    if roll < 0.45:
        return f"{random.choice(ADJECTIVES)} {noun}"
    return noun + "s" if roll < 0.6 else noun


def chinese_word(random: Random) -> str:
    """A noun, sometimes two joined by 的, sometimes characters at random."""
    roll = random.random()
    if roll < 0.2:
        return random_characters(random, random.randint(1, 4))
    if roll < 0.4:
        # Two words with a character of each exchanged read like words that are not in the list.
        return random.choice(CHINESE_NOUNS)[:1] + random.choice(CHINESE_NOUNS + CHINESE_VERBS)[-2:]
    noun = random.choice(CHINESE_NOUNS)
    return f"{random.choice(CHINESE_NOUNS)}的{noun}" if roll < 0.5 else noun
