"""Words that do not distinguish products: function words, a host's chat, sales talk, units.

Chat is part of the list, because live rooms are full of it and a transcript of chat must yield no keywords.
Norms as `cope.keywords.text` makes them: lower case, singular, simplified characters.
"""

_ENGLISH = """
a about above actually after again all almost along already also always am an and another any anybody anyone
anything are aren as at away back be because been before behind being below best better between big bit both but
buy by bye came can cannot check click come comment coming could couldn did didn do does doesn doing don done
down each either else even ever every everybody everyone everything ex far few first follow for from front full
fun gave get getting give go goe going gone gonna good got gotta great guy had has hasn have haven having he
hello help her here hey hi him himself hmm hope how however i if in inside into is isn it its itself join joined
joining just keep kind know last left less let like link live ll look looking lot love lovely m made make making
many may maybe me mean might mine minute moment more most much must my myself need never new next nice no nobody
none nor not nothing now of off oh ok okay on once one only onto oop or order other our ourselves out outside
over own people perfect perhap please put quite rather re ready real really right s said same say second see
seen self send shall she should shouldn show showing side since so some somebody someone something soon sorry
still such sure t take taking talk tell than thank that the their them themselves then there these they thing
think this those though three through thu time to today together tomorrow tonight too took top toward try turn
two uh um under until up upon us use used using ve very wa wait want was wasn watch watching way we welcome well
went were weren what when where whether which while who whom whose why will wish with within without won
wonderful would wouldn wow ye yeah year yes yesterday yet you your yourself enough move four five six seven
eight nine ten third amazing awesome beautiful available bring brand call card cart chance cheap deal different
discount easy episode everywhere excited favorite favourite feel finally fine free friend happy hand high hour
item large life little long low number offer part pick place possible price product quality question remember
room sale seller set shop short simple size small special start stay stock stop store stream stuff super totally
video viewer week work world chat channel subscribe hit heart share evening morning afternoon night day month
guest host audience
"""

_CHINESE = """
的 了 在 是 我 有 和 就 不 人 都 一 一个 上 也 很 到 说 要 去 你 会 着 没有 看 好 自己 这 那 这个 那个 这些 那些
这里 那里 这边 那边 这样 那样 这么 那么 什么 怎么 怎样 为什么 哪里 哪个 哪些 多少 几个 我们 你们 他们 她们 它们
咱们 大家 他 她 它 谁 您 咱 因为 所以 但是 可是 不过 如果 虽然 而且 或者 还是 还有 以及 然后 于是 因此 只要 只有
除了 关于 对于 由于 为了 通过 根据 按照 可以 可能 能够 应该 需要 必须 一定 已经 正在 刚刚 马上 立刻 现在 今天
明天 昨天 晚上 早上 下午 上午 中午 时候 时间 一下 一点 一些 一起 一样 一直 一般 一种 一款 一件 一个个 每个 每天
非常 特别 十分 比较 更加 最 真的 真是 其实 确实 当然 肯定 绝对 完全 甚至 几乎 欢迎 来到 直播 直播间 主播 朋友
朋友们 宝宝 宝宝们 宝贝 宝贝们 家人 家人们 亲 亲们 姐妹 姐妹们 兄弟 兄弟们 老铁 粉丝 观众 各位 小伙伴 谢谢 感谢
关注 点赞 点击 下单 链接 号链接 购物车 小黄车 优惠 优惠券 活动 价格 价钱 便宜 折扣 打折 包邮 现货 库存 上架 秒杀
福利 抢购 抢到 拍下 购买 购物 商品 产品 东西 款式 款 件 个 只 条 双 套 盒 瓶 袋 包 块 元 块钱 左右 以上 以下
里面 外面 上面 下面 旁边 前面 后面 看看 看到 看一下 来看 来看看 介绍 给大家 一下子 喜欢 觉得 知道 认为 希望 想要
想 开始 结束 继续 接下来 下来 首先 其次 最后 第一 第二 第三 喜爱 好看 好用 好吃 好喝 不错 漂亮 完美 超级 超 太
真 好的 好吧 是的 对 对吧 吧 呢 啊 哦 哈 嗯 呀 嘛 啦 哇 喂 哎 哈哈 你好 您好 再见 拜拜 晚安 没 没事 没问题 问题
不要 不用 不会 不能 不是 就是 也是 都是 还 再 又 才 把 被 让 给 向 从 跟 与 及 等 等等 之 其 而 则 或 若 所 为
于 以 来 起来 出来 进来 过来 过去 回来 上来 下去 起 出 进 过 得 地 每 各 某 另 另外 别的 其他 其它 有点 有些
有人 有的 所有 全部 新款 热卖 爆款 正品 特价 视频 屏幕 评论 评论区 留言 扣 一波 机会 今晚 稍等 等一下 展示 看见
收到 拿到 买到 买 卖 拿 用 做 吃 喝 穿 送 发
"""

_OTHERS = """
de la el los las un una y que en por con para es se del al lo como su der die das und ist ein eine mit von zu
den im nicht auf für le les des et est une du dans pour sur pas au il elle je nous vous ils qui ne ce cette o os
as um uma e do da em no na com não che di per non sono è
"""

_UNITS = """
ml cl dl l liter litre milliliter millilitre g kg mg gram kilogram kilo oz ounce lb pound mm cm m km inch foot
feet meter metre centimeter centimetre millimeter millimetre cc w kw v volt watt mah pc pcs piece pack xs xl xxl
xxxl 毫升 升 克 千克 公斤 斤 毫克 厘米 毫米 米 寸 英寸 瓦 伏 个 件 片 只 支 粒 包装 hundred thousand percent
dollar euro yuan 美元 欧元 百分 百分之
"""

UNITS = frozenset(_UNITS.split())
STOP_WORDS = frozenset(f"{_ENGLISH} {_CHINESE} {_OTHERS}".split())
