"""A past turn of a conversation: what chat goes by, and what those who ask it hand over. Needs no LangChain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One past question with the answer it got and the stand-alone query it became, where that is known."""

    question: str
    answer: str
    query: str = ""

    @property
    def topic(self) -> str:
        """What the turn was about: its stand-alone query, or the question where that is not known."""
        return self.query or self.question
