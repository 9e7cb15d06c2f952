"""What a chat says itself, in English and Chinese; other languages are the model's to translate into."""

from __future__ import annotations

#: What is answered in English when nothing that was found supports an answer; always these words.
REFUSAL = "nothing in the collection answers this"
ENGLISH = "en"

_TABLE: dict[str, dict[str, str]] = {
    "en": {
        "refusal": REFUSAL,
        "welcome": "You are welcome. Ask on whenever you like.",
        "hello": "Hello. Ask me about the photos and texts of this collection.",
        "bye": "Goodbye.",
        "assistant": "I answer questions about this collection of photos and texts: I search it, and answer from what "
        "was found, with the number of each source. Ask what a photo shows, where something is to be seen, or what is "
        "in here.",
        "empty": "This collection is empty: nothing has been indexed yet.",
        "holds": "This collection holds {what}.",
        "photo": "1 photo",
        "photos": "{n:,} photos",
        "text": "1 text",
        "texts": "{n:,} texts",
        "and": " and ",
        "most": "Most frequent under “{field}”: {values}.",
        "value": "{value} ({n:,})",
        "sample": "Counted over a sample of {n:,}.",
        "examples": "For example: {examples}.",
        "example": "“{text}” [{number}]",
        "tally": "{criteria}: {what}.",
        "at_least": "at least {what}",
        "estimate": "That is an estimate by relevance; there may be more.",
        "estimate_up_to": "That is an estimate by relevance; {n:,} may be about it.",
        "unsure": "{criteria}: nothing that is sure; {n:,} may be, by relevance.",
        "no_items": "none",
        "from": "from {a}",
        "from_before": "from before {b}",
        "from_since": "from {a} on",
        "from_to": "from {a} to before {b}",
        "with_camera": "taken with {camera}",
        "about": "about “{topic}”",
        "undated": "Nothing in this collection says when it was taken.",
        "values": "Under “{field}”: {values}.",
        "no_values": "Nothing in this collection has “{field}”.",
        "more_values": "{n:,} more",
        "size": "{width:,} x {height:,} pixels{file} [{number}].",
        "file": " ({size})",
        "taken": "Taken on {when} [{number}].",
        "camera": "Taken with {camera} [{number}].",
        "folder": "In the folder {folder} [{number}].",
        "not_stored": "That is not stored of [{number}].",
        "comma": ", ",
        "space": " ",
    },
    "zh": {
        "refusal": "这个集合里没有能回答这个问题的内容",
        "welcome": "不客气。有问题随时可以继续问。",
        "hello": "你好。可以问我这个集合里的照片和文字。",
        "bye": "再见。",
        "assistant": "我回答关于这个照片和文字集合的问题：先在集合里搜索，再根据找到的内容回答，并标出每条来源的编号。"
        "可以问某张照片里有什么、在哪里能看到某样东西，或者这里有什么。",
        "empty": "这个集合是空的：还没有索引任何内容。",
        "holds": "这个集合里有{what}。",
        "photo": "1 张照片",
        "photos": "{n:,} 张照片",
        "text": "1 条文字",
        "texts": "{n:,} 条文字",
        "and": "和",
        "most": "“{field}”中最常见的：{values}。",
        "value": "{value}（{n:,}）",
        "sample": "以上按 {n:,} 条样本统计。",
        "examples": "例如：{examples}。",
        "example": "“{text}”[{number}]",
        "tally": "{criteria}：{what}。",
        "at_least": "至少 {what}",
        "estimate": "这是按相关度的估计，可能还有更多。",
        "estimate_up_to": "这是按相关度的估计，可能有关的共 {n:,} 条。",
        "unsure": "{criteria}：没有可以确定的；按相关度，可能有关的有 {n:,} 条。",
        "no_items": "没有",
        "from": "{a} 拍摄",
        "from_before": "{b} 以前拍摄",
        "from_since": "{a} 以来拍摄",
        "from_to": "{a} 起至 {b} 以前拍摄",
        "with_camera": "用 {camera} 拍摄",
        "about": "关于“{topic}”",
        "undated": "这个集合里没有任何内容记录了拍摄时间。",
        "values": "“{field}”有：{values}。",
        "no_values": "这个集合里没有任何内容记录了“{field}”。",
        "more_values": "另有 {n:,} 个",
        "size": "{width:,} x {height:,} 像素{file}[{number}]。",
        "file": "（{size}）",
        "taken": "拍摄于 {when}[{number}]。",
        "camera": "用 {camera} 拍摄[{number}]。",
        "folder": "在文件夹 {folder} 里[{number}]。",
        "not_stored": "[{number}] 没有记录这项信息。",
        "comma": "、",
        "space": "",
    },
}
WRITTEN = frozenset(_TABLE)
#: All refusals that are written here, in small letters, to know one in a model's reply.
REFUSALS = tuple(table["refusal"].lower() for table in _TABLE.values())


def words(key: str, language: str) -> str:
    """A sentence of ours, or a form of one, in a language that is written here, else in English."""
    return _TABLE.get(language, _TABLE[ENGLISH])[key]


def refusal(language: str) -> str:
    """What is said when nothing that was found supports an answer."""
    return words("refusal", language)


def counted(one: str, many: str, n: int, language: str) -> str:
    """A number of things: "1 photo", "20 photos"."""
    return words(one if n == 1 else many, language).format(n=n)
