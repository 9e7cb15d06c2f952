"""The language model of a chat, loaded when it is first asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from retrieval.chat import ChatOptions


class LoadedModel(NamedTuple):
    """The model that answers, what a chat with it may spend, and the model that verifies, if that is another one."""

    model: BaseChatModel
    options: ChatOptions
    judge: BaseChatModel | None = None


#: Loads the model that answers, when it is first asked; raises an error of one line.
LoadModel: TypeAlias = Callable[[], LoadedModel]
