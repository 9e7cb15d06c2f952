"""Numbers and what they count in Chinese and Japanese: 两只狗, 3 个人, 二匹の犬, 犬が2匹, 有几只狗？"""

from __future__ import annotations

import re
import unicodedata

_HAN = r"\u3400-\u9fff\u3040-\u30ff々"
_SIGNS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_NUMBER = r"(?:\d+|[零〇一二两兩三四五六七八九十百]+)"
_MEASURE = (
    r"(?:只|隻|个|個|頭|头|条|條|匹|辆|輛|台|位|名|张|張|朵|棵|把|艘|架|座|间|間|件|幅|本|册|冊|杯|碗|盘|瓶|块|片|根|支|枝|顶|双|雙|对|對|"
    r"人|羽|枚|軒|つ|株|份|群|口|所|部)"
)
# "The first", "each" and the like count nothing; nor does "one" of "one of them", "the other one", "this one".
_NO_COUNT = re.compile(r"[第每某]\Z")
_NO_ONE = re.compile(r"(?:其中的?|[另这這那同唯])\Z")
_UNIT = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<measure>{_MEASURE})(?=(?P<rest>の?[{_HAN}]{{0,12}}))")
#: A number that counts no things: dates, times, measures.
_OTHER = re.compile(
    r"(?P<number>\d+|[一二三四五六七八九十百]+)\s*(?:年|月|日|号|號|点|點|时|時|分|秒|岁|歲|歳|米|公里|厘米|度|%|元|円)"
)
_BARE = re.compile(
    rf"(?:答案(?:是|为|為)?|共有?|一共有?|总共有?|總共有?|有|是|只有|全部で|答えは)?[:：]?\s*(?P<number>{_NUMBER})\s*(?P<measure>{_MEASURE})?"
    r"(?:です|います|あります|だ)?\Z"
)
_ASKED = re.compile(rf"(?:几|幾|多少|何)\s*(?:{_MEASURE})?(?P<rest>[{_HAN}]*)")
_BEFORE = re.compile(rf"(?P<thing>[{_HAN}]+?)(?:が|は|を|も|のは|一共有?|总共有?|共有?|有)?\Z")
#: What ends a thing: a verb, a place, another thing; one with 着 begins a letter before it.
_END = re.compile(
    r".着|[在和与與跟及或被把从從向对對给給坐站躺趴睡走跑拿穿戴看吃喝骑騎停玩抱追飞飛正有是吗嗎呢啊吧都也がはをにでとも]"
)
#: Hiragana alone are endings of verbs.
_NAMING = re.compile("[\u3400-\u9fff\u30a0-\u30ff]")
_MOST = 10


def han_quantities(text: str) -> list[tuple[float, str, bool]]:
    """Numbers, the thing that each counts, "" where none is said, and whether it counts none: a date, a measure."""
    plain = unicodedata.normalize("NFKC", text)
    bare = _BARE.match(plain.strip(" .。!！,，、"))
    if bare is not None and re.search(f"[{_HAN}]", plain):
        return [(_value(bare["number"]), "", False)]
    found = [(_value(match["number"]), "", True) for match in _OTHER.finditer(plain)]
    for match in _UNIT.finditer(plain):
        before, value = plain[max(0, match.start() - _MOST) : match.start()], _value(match["number"])
        pointed = value == 1 and (_NO_ONE.search(before) or match["rest"].startswith("之一"))
        if not pointed and not _NO_COUNT.search(before):
            found.append((value, thing_of(match["rest"]) or _thing_before(before), False))
    return found


def han_asked(question: str) -> str | None:
    """What a question asks the number of, "" where it does not say; None where it asks for none, or in other words."""
    match = _ASKED.search(unicodedata.normalize("NFKC", question))
    return (
        None
        if match is None
        else thing_of(match["rest"]) or _thing_before(question[max(0, match.start() - _MOST) : match.start()])
    )


def thing_of(rest: str) -> str:
    """The thing at the beginning of what follows a measure word: 狗 of 棕色的狗躺在床上, 马 of 吃草的马."""
    plain = rest.removeprefix("の")[:_MOST]
    head = _END.split(plain)[0]
    if not head and "的" in plain:
        head = _END.split(plain.rpartition("的")[2])[0]
    thing = head.rstrip("的").rpartition("的")[2]
    return thing if _NAMING.search(thing) else ""


def _thing_before(text: str) -> str:
    """The thing right before a number, as in 犬が2匹 and 狗有几只."""
    match = _BEFORE.search(re.split(r"[,，。、;；]", text)[-1])
    parts = [part for part in _END.split(match["thing"]) if _NAMING.search(part)] if match else []
    return parts[-1][-4:] if parts else ""


def _value(number: str) -> float:
    if number.isdigit():
        return float(number[:15])
    total, last = 0, 0
    for sign in number:
        if sign in "十百":
            total += (last or 1) * (10 if sign == "十" else 100)
            last = 0
        else:
            last = _SIGNS[sign]
    return float(total + last)
