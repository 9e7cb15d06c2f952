"""The language model of a chat, loaded when it is first asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from retrieval.chat import ChatOptions

#: Loads the model that answers, and says what a chat with it may spend; raises an error of one line.
LoadModel: TypeAlias = "Callable[[], tuple[BaseChatModel, ChatOptions]]"
