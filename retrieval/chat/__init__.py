"""Chat: a language or vision-language model answers questions from what a search found, and cites it.

LangChain comes with the extra ``chat``; `retrieval` itself never imports this package.
"""

from retrieval.chat.check.grounding import Sentence, Verdict
from retrieval.chat.errors import ChatCancelled, ChatError, ChatTimeout, QuestionError
from retrieval.chat.events import Answer, ChatEvent, Counts, EvidenceFound, Final, Retrying, Token, ToolUsed, Usage
from retrieval.chat.evidence import Evidence, PictureReader
from retrieval.chat.llm_client import CancelToken
from retrieval.chat.options import ChatOptions, Check
from retrieval.chat.running import RunningTurn
from retrieval.chat.session import Conversation, GroundedChat
from retrieval.chat.wording import REFUSAL
from retrieval.turn import Turn

__all__ = [
    "REFUSAL",
    "Answer",
    "CancelToken",
    "ChatCancelled",
    "ChatError",
    "ChatEvent",
    "ChatOptions",
    "ChatTimeout",
    "Check",
    "Conversation",
    "Counts",
    "Evidence",
    "EvidenceFound",
    "Final",
    "GroundedChat",
    "PictureReader",
    "QuestionError",
    "Retrying",
    "RunningTurn",
    "Sentence",
    "Token",
    "ToolUsed",
    "Turn",
    "Usage",
    "Verdict",
]
