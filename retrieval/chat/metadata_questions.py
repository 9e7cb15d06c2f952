"""Questions of count and metadata, known by rules in English and Chinese, for models that call no tools.

"how many photos show dogs?", "which were taken in 2013?", "how large is it?", 有多少张照片有狗？, 2013年拍的有哪些？
"""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

#: count, list: of items. values: of a field. The others ask for one fact of one item.
Kind: TypeAlias = Literal["count", "list", "values", "size", "taken", "camera", "folder"]
ITEM_KINDS = frozenset({"size", "taken", "camera", "folder"})
_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` to before `end`, as ISO dates cut to year or month; "" for an open side."""

    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks for.

    topic: what the items are about, "" for any; also: what they are about as well. period, camera: when and with what they were taken. field: of `values`.
    of: which item: "it" for that of the talk, "#2" for the second of it, else words.
    """

    kind: Kind
    topic: str = ""
    period: Period | None = None
    camera: str = ""
    field: str = ""
    of: str = ""
    also: tuple[str, ...] = ()


_PHOTOS = r"(?:photos?|pictures?|images?|photographs?|pics?|shots?)"
_ITEMS = rf"(?:{_PHOTOS}|items?|files?)"
_TAKEN = r"(?:taken|shot|made|photographed|captured)"
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = rf"(?:{'|'.join(_MONTHS)})"
_YEAR = r"(?:1[89]|20)\d\d"
_CAMERA = re.compile(
    rf"\b{_TAKEN}(?:\s+(?P<when>(?:in|before|after|since)\s+(?:{_MONTH}\s+)?{_YEAR}))?\s+(?:with|by|using|on)\s+(?:an?\s+|the\s+|my\s+)?"
    rf"(?P<camera>[\w .-]{{2,40}}?)(?=\s+(?:in|from|before|after|since|show|are|is)\b|\s*[?.!]*\Z)",
    re.IGNORECASE,
)
_ZH_CAMERA = re.compile(r"用\s*(?P<camera>[\w .-]{2,40}?)\s*(?:相机)?(?:拍|照)的?")
_PERIODS = (
    ("between", re.compile(rf"\b(?:from|between)\s+(?P<a>{_YEAR})\s+(?:to|and|until|-)\s+(?P<b>{_YEAR})\b", re.I)),
    ("before", re.compile(rf"\b(?:before|until)\s+(?P<a>{_YEAR})\b", re.I)),
    ("after", re.compile(rf"\bafter\s+(?P<a>{_YEAR})\b", re.I)),
    ("since", re.compile(rf"\bsince\s+(?P<a>{_YEAR})\b", re.I)),
    (
        "in",
        re.compile(rf"\b(?:in|from|of|during|dated)\s+(?:the year\s+)?(?:(?P<m>{_MONTH})\s+)?(?P<a>{_YEAR})\b", re.I),
    ),
    ("between", re.compile(rf"(?:从)?(?P<a>{_YEAR})\s*年?\s*(?:到|至|-|~)\s*(?P<b>{_YEAR})\s*年(?:之间|间)?")),
    ("before", re.compile(rf"(?P<a>{_YEAR})\s*年(?:以前|之前|前)")),
    ("after", re.compile(rf"(?P<a>{_YEAR})\s*年(?:之后|后)")),
    ("since", re.compile(rf"(?P<a>{_YEAR})\s*年(?:以来|以后|起)")),
    ("in", re.compile(rf"(?:在)?(?P<a>{_YEAR})\s*年(?:\s*(?P<m>1[0-2]|0?[1-9])\s*月)?(?:份)?")),
)
_COUNT = (
    re.compile(
        rf"(?:and |so )?(?:how many|(?:what is|what's|tell me) the number of|count(?: all)?(?: the)?) {_ITEMS}\b(?P<topic>.*)",
        re.I,
    ),
    re.compile(
        r"(?:一共|总共|这里|共)?有?(?:多少|几)张(?:照片|图片|相片|图)(?:里|中|上)?面?(?:都)?(?:有|是|拍了|拍的是|包含|显示|出现)?(?P<topic>.*)"
    ),
    re.compile(r"(?:一共|总共|这里)?有(?:多少|几)张(?P<topic>.+?)的?(?:照片|图片|相片|图)"),
    re.compile(
        r"(?P<topic>.*?)(?:的|拍的|拍了|拍摄了|拍过)?(?:照片|图片|相片|图)?(?:一共|总共)?(?:拍了)?有?(?:多少|几)张(?:照片|图片)?"
    ),
)
_LIST = (
    re.compile(rf"(?:and )?(?:which|what)(?: ones)? (?:was|were|is|are) {_TAKEN}\b(?P<topic>.*)", re.I),
    re.compile(
        rf"(?:and )?(?:which|what|show me|list|find|give me)(?: all)?(?: the| of the)? (?:ones|{_ITEMS})\b(?P<topic>.*)",
        re.I,
    ),
    re.compile(rf"(?:all )?(?:the )?{_PHOTOS}\b(?P<topic>.*)", re.I),
    re.compile(r"(?:有)?(?:哪些|什么)(?:照片|图片|相片)?是?(?P<topic>.*?)(?:拍|照|拍摄)的?"),
    re.compile(r"(?:拍|拍摄|照)的(?P<topic>.*?)的?(?:照片|图片|相片)?(?:都)?(?:有|是)?(?:哪些|什么)"),
    re.compile(r"的?(?P<topic>.*?)的?(?:照片|图片|相片)(?:都)?有(?:哪些|什么)"),
)
_NTH = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": -1, "一": 1, "二": 2, "三": 3, "四": 4, "两": 2}
_OF = rf"(?P<of>it|this|that|this one|that one|(?:the|this|that) (?:(?:first|second|third|fourth|last) )?(?:{_ITEMS}|one)(?: (?:of|with|showing|that shows) .{{2,80}})?)"
_OF2, _OF3 = (_OF.replace("<of>", name) for name in ("<of2>", "<of3>"))
_ZH_OF = r"(?P<of>它|这张?|那张?|(?:这|那)(?:张|个|幅)(?:照片|图片|图)?|第[一二两三四](?:张|个|幅)(?:照片|图片)?|.{1,30}?的?(?:照片|图片|图))?的?"
_FILLER = re.compile(
    rf"\b(?:are|is|were|was|there|do|does|did|have|has|had|you|we|i|it|they|in total|altogether|in here|in (?:the|this|my|your) (?:collection|library|album)|"
    rf"{_TAKEN}|show(?:s|ing|n)?|contain(?:s|ing)?|depict(?:s|ing)?|with|of|from|that|which|in (?:them|it)|include|please|about)\b|[?？.!。！,，]",
    re.IGNORECASE,
)
_ZH_FILLER = re.compile(r"[?？。！，,\s]|拍摄?的?|照的|的照片|照片|图片|吗$|呢$|^的|^在|的$|^有|^是")
_ITEM_FACTS: tuple[tuple[Kind, str], ...] = (
    (
        "size",
        rf"(?:and )?(?:how (?:large|big) (?:is|are|was) {_OF}|what(?:'s| is| are) (?:the )?(?:size|resolution|dimensions?|file size) of {_OF2}|what(?:'s| is| are) its (?:size|resolution|dimensions?|file size))",
    ),
    (
        "taken",
        rf"(?:and )?(?:when (?:was|were) {_OF} {_TAKEN}|what(?:'s| is) the date of {_OF2}|what(?:'s| is) its date|(?:in )?(?:which|what) year was {_OF3} {_TAKEN}(?: in)?)",
    ),
    (
        "camera",
        rf"(?:and )?(?:(?:with )?(?:which|what) camera (?:was|is) {_OF} {_TAKEN}(?: with| on| by)?|what was {_OF2} {_TAKEN} with|(?:which|what) camera (?:was used|took it))",
    ),
    ("folder", rf"(?:and )?(?:(?:in )?(?:which|what) folder is {_OF}(?: in)?|where is {_OF2} (?:stored|saved))"),
    ("size", rf"{_ZH_OF}(?:有多大|多大|(?:尺寸|分辨率|大小|像素)(?:是|有)?(?:多少|多大)?)"),
    ("taken", rf"{_ZH_OF}(?:是)?(?:在)?(?:什么时候|何时|哪一?年|哪天|几时)(?:拍|照|拍摄)的?"),
    ("camera", rf"{_ZH_OF}(?:是)?用(?:的)?(?:什么|哪[个款台种])相机(?:拍|照)?的?"),
    ("folder", rf"{_ZH_OF}(?:存|放)?在(?:哪个|什么)(?:文件夹|目录)里?"),
)
_ITEM_PATTERNS = [(kind, re.compile(rf"\W*{pattern}\s*[呢啊吗呀]?\W*", re.IGNORECASE)) for kind, pattern in _ITEM_FACTS]
_ZH_LISTED = (
    re.compile(
        r"\W*(?:这里|这儿|里面|(?:这个|这些)?(?:相册|集合|照片|图片|图库)(?:里|中)?面?)?(?:有没有|是否有|有(?=.+(?:吗|嘛|(?<!什)么)))(?P<topic>.{1,24}?)[吗么嘛呢]?\W*"
    ),
    re.compile(
        r"\W*有?哪(?:些|一?张|几张)(?:(?:照片|图片|相片|图)(?:里|中|上)?|里|中|上)面?(?:都|能)?(?:有|是|拍了|拍的是|拍到了?|显示了?|出现了?|包含了?|看到)(?P<topic>.{1,24}?)\W*"
    ),
    re.compile(r"\W*(?P<topic>.{1,24}?)的(?:照片|图片)(?:都)?有哪些\W*"),
    re.compile(r"\W*(?:请|帮我|给我)?(?:找|看看?|找出|列出|显示)(?:一下|所有)?(?P<topic>.{1,24}?)的(?:照片|图片)\W*"),
)
_ZH_ASKS = re.compile(r"[谁哪几它她他这那]|什么|多少|怎|为何|吗|和我|你")
_FIELDS = {
    "camera": "camera",
    "lens": "lens",
    "lense": "lens",
    "folder": "folder",
    "year": "year",
    "相机": "camera",
    "镜头": "lens",
    "文件夹": "folder",
    "年份": "year",
}
_VALUES = (
    re.compile(
        r"\W*(?:which|what) (?P<field>camera|lense?|folder|year)s?(?: (?:are|were|is|was|do|did|have|has))?(?: (?:there|used|you|we|i|been))*(?: have| use| used)?(?: (?:in )?(?:here|(?:this|the) (?:collection|library|album)))?\W*",
        re.I,
    ),
    re.compile(
        r"\W*(?:都|一共)?(?:有|用了|用过|用的是)(?:哪些|什么|几[个款种])(?P<field>相机|镜头|文件夹|年份)(?:拍的)?\W*"
    ),
)


def metadata_question(question: str, *, follows: bool = False, lists: bool = False) -> Asked | None:
    """What a question asks for if it is one of count or metadata; None for all others.

    follows: whether something was said before, which "it" may be. lists: whether a Chinese question that asks which
    photos show something, or whether there is something, is one too.
    """
    text = " ".join(question.split())
    if len(text) > _MAX_CHARS:
        return None
    for pattern in _VALUES:
        if match := pattern.fullmatch(text):
            return Asked("values", field=_FIELDS[match["field"].lower()])
    for kind, pattern in _ITEM_PATTERNS:
        if match := pattern.fullmatch(text):
            return _of_item(kind, match, follows=follows)
    period, rest = _period(text)
    camera, rest = _camera(rest)
    found = _of_items(rest, Asked("count", period=period, camera=camera))
    return found or (_listed(text) if lists else None)


def narrowed(said: str) -> Asked:
    """What items are said to be about, from when and by which camera they are: "show dogs in 2013"."""
    period, rest = _period(said)
    camera, rest = _camera(rest)
    return Asked("count", topic=_topic(rest), period=period, camera=camera)


def _listed(text: str) -> Asked | None:
    for pattern in _ZH_LISTED:
        if (match := pattern.fullmatch(text)) and not _ZH_ASKS.search(match["topic"]):
            topic = _topic(match["topic"])
            return Asked("list", topic=topic) if topic else None
    return None


def _of_item(kind: Kind, match: re.Match[str], *, follows: bool) -> Asked | None:
    groups = match.groupdict()
    said = (groups.get("of") or groups.get("of2") or groups.get("of3") or "it").strip().lower()
    words = re.search(r"(?:of|with|showing|that shows) (.+)", said) or re.fullmatch(r"(.+?)的?(?:照片|图片|图)", said)
    if words is not None and not re.match(r"[这那第它]", said):
        return Asked(kind, of=words[1].strip(" ?？.!。"))
    if not follows:
        return None
    nth = next((number for word, number in _NTH.items() if re.search(rf"\b{word}\b|第{word}", said)), 0)
    return Asked(kind, of=f"#{nth}" if nth else "it")


def _of_items(rest: str, asked: Asked) -> Asked | None:
    """A count, or a list, which needs a time or a camera: else it is a question like any other."""
    plain = rest.strip(" ?？.!。！")
    for pattern in _COUNT:
        if (match := pattern.fullmatch(plain)) and (found := _about(match["topic"], asked)):
            return found
    if asked.period is None and not asked.camera:
        return None
    for pattern in _LIST:
        if match := pattern.fullmatch(plain):
            topic = _topic(match["topic"])
            return replace(asked, kind="list", topic=topic)
    return None


def _about(said: str, asked: Asked) -> Asked | None:
    topic = _topic(said)
    return replace(asked, topic=topic) if topic or asked.period is not None or asked.camera else None


def _topic(said: str) -> str:
    plain = " ".join(_FILLER.sub(" ", said).split())
    return _ZH_FILLER.sub("", plain) if re.search(r"[\u4e00-\u9fff]", plain) else plain


def _period(text: str) -> tuple[Period | None, str]:
    """The time that a question names, and the question without it."""
    for how, pattern in _PERIODS:
        match = pattern.search(text)
        if match is None:
            continue
        rest = " ".join((text[: match.start()] + " " + text[match.end() :]).split())
        year, month = int(match["a"]), match.groupdict().get("m")
        if how == "between":
            return Period(str(year), str(int(match["b"]) + 1)), rest
        if how == "before":
            return Period("", str(year)), rest
        if how in ("after", "since"):
            return Period(str(year + (how == "after")), ""), rest
        if month:
            number = int(month) if month.isdigit() else _MONTHS.index(month.lower()) + 1
            after = f"{year}-{number + 1:02}" if number < 12 else str(year + 1)
            return Period(f"{year}-{number:02}", after), rest
        return Period(str(year), str(year + 1)), rest
    return None, text


def _camera(text: str) -> tuple[str, str]:
    """The camera that a question names, and the question without it."""
    match = _CAMERA.search(text) or _ZH_CAMERA.search(text)
    if match is None or match["camera"] in ("什么", "哪个"):
        return "", text
    return match["camera"].strip(), " ".join((text[: match.start()] + " taken " + text[match.end() :]).split())
