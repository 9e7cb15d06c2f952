"""Sentences that give orders to a model: how text that was indexed tries to take part in the conversation."""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re

#: Markers by which chat templates set off who speaks.
TEMPLATE = re.compile(r"<{1,2}\|?/?\s*[A-Za-z_/][\w\s./-]{0,40}\|?>{1,2}|\[/?(?:INST|SYS|SYSTEM|USER|ASSISTANT)\]")

# Written against the attacks that are known: direct orders to a model, new rules, changed roles, demands to
# reveal, and sentences that end the evidence. Each needs an object or a place in the sentence that captions
# and manuals rarely have, so that "a sign that says stop" and "you must replace the filter" pass; tests hold
# both sides.
_RULES = r"(?:instructions?|rules?|prompts?|directions?|guidelines?|constraints?|restrictions?|commands?|directives?)"
_ANSWER = r"(?:answer|reply|response|output|message|sentence|summary)"
_ORDER = r"(?:\A|[.;:,!*>-]\s*|\b(?:please|now|then|and|must|should|instead|always|only|to|just)\s+)"
_SPEECH = r"(?:answer|reply|respond|say|output|print|write|repeat|cite|tell|state|reveal|include|append|claim|mention)"
_MODEL = r"(?:AIs?|LLMs?|(?:large )?language models?|chat ?bots?|AI (?:assistants?|models?|agents?)|GPT(?:-\w+)?)"
_INSTRUCTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:ignore|disregard|forget|override|bypass|neglect)\b.{{0,40}}\b(?:{_RULES}|everything|above|previous(?:ly)?|"
        r"prior|evidence|context|citations?|sources?|questions?)\b",
        rf"\b(?:new|updated|real|actual|revised|secret|hidden|additional|admin)\s+(?:\w+\s+)?{_RULES}\s*(?::|-|for you|apply)",
        r"\byou\s+(?:now\s+)?(?:must|should|shall|will|have to|need to|are to|can|may)\s+(?:now\s+|always\s+|only\s+|instead\s+)*"
        r"(?:answer|reply|respond|say|output|obey|ignore|pretend to)\b",
        r"\byou(?:'re| are)\s+(?:now|no longer|actually)\s+(?:an?|the|in|DAN|free|bound|acting|my|not|called)\b",
        rf"{_ORDER}(?:respond|answer|reply|role-?play)\s+(?:as|like|only|with|by|in|exactly|instead|that|to (?:all|every|any))\b",
        rf"{_ORDER}act as (?:if|my|DAN|root|an? (?:{_MODEL}|assistant|unrestricted|different|pirate|hacker|admin\w*|expert))\b",
        r"\bpretend (?:to be|that you|you)\b|\bjailbreak|\bdeveloper mode\b|\bDAN\b.{0,20}\bmode\b|\bgod mode\b",
        rf"\b(?:{_SPEECH}|add|insert|begin|start|end|finish)\b.{{0,60}}\b(?:verbatim|word for word|in your {_ANSWER}|to the user|"
        rf"the user|your {_ANSWER}|every {_ANSWER}|nothing else|and nothing more)\b",
        rf"{_ORDER}(?:say|print|output|repeat|reply|respond|answer|write|cite)\b\s*(?:exactly|only|with|that)?\s*"
        r"(?:[:\"'“‘\[]|(?-i:[A-Z]{3,})|exactly\b)",
        r"\b(?:reveal|show|leak|print|repeat|send|share|exfiltrate|disclose|dump|post|upload)\b.{0,40}\b(?:system prompt|"
        r"your (?:prompt|instructions?|rules)|api keys?|passwords?|secrets?|credentials?|(?:conversation|chat) (?:history|log))\b",
        r"\b(?:system|developer|admin(?:istrator)?)[\s_-]+(?:prompt|message|note|instructions?|command|notice)\s*[:=>\])-]|"
        r"\b(?:system|admin|safety)[\s_-]+override\b",
        rf"\b{_MODEL}\b.{{0,30}}\b(?:must|should|reading|processing|follow|obey|ignore|are (?:required|instructed)|ha(?:s|ve) to|"
        r"shall|needs? to)\b",
        rf"\b(?:note|attention|important|message|instructions?|notice|hint|reminder)\b\s*(?:to|for)\s+(?:the\s+|any\s+|all\s+)?"
        rf"(?:{_MODEL}|models?|assistants?|agents?)\b",
        r"\b(?:do not|don't|never|stop|refuse to)\s+(?:answer|cit|follow|mention|tell|obey|trust|rely on|us)(?:e|ing)?\b.{0,40}\b(?:"
        r"user|questions?|evidence|citations?|sources?|other (?:captions?|passages?|items?))\b",
        r"(?:\A|[^\w\s]\s*|\bthis is the )end of (?:the )?(?:evidence|sources?|context|data|prompt|instructions?|input|results?)\b",
        rf"\b(?:correct|right|true|only|final)\s+{_ANSWER}\s+(?:to (?:all|every|any)|must|should)\b",
        rf"\bfrom now on\b.{{0,20}}\b(?:you|always|{_SPEECH}|(?:all|every) {_ANSWER})\b",
        r"\b(?:ignoriere?|vergiss|missachte)\b.{0,40}\b(?:anweisung|regeln?|bisherige)|\bignore[zr]?\b.{0,40}\b(?:r[eè]gles|"
        r"consignes)|\bignora\w*\b.{0,40}\b(?:instrucciones|reglas|istruzioni|regole)|忽略.{0,12}(?:指令|指示|规则|提示)|"
        r"игнорируй.{0,40}(?:инструкци|правил)",
    )
)


def reads_like_an_instruction(sentence: str) -> bool:
    """Whether a sentence is of a form in which texts give orders to a model; see the patterns' comment."""
    # Letters spaced out or joined by marks, "i g n o r e", read on.
    joined = re.sub(r"\b(\w)[ ._*-](?=\w\b)", r"\1", sentence)
    bare = re.sub(r"[*_~`]", "", TEMPLATE.sub(" ", sentence))
    return any(pattern.search(form) for form in {sentence, joined, bare} for pattern in _INSTRUCTIONS)
