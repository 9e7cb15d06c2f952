"""An encoder that cannot read every text, and has a text side that changes while its images stay the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.support.toy import ColourEncoder

SPACE = "toy:1"


class LatinReader(ColourEncoder):
    """A `ColourEncoder` that reads Latin letters only: of any other text it gives a row of zeros.

    side: the name of its text side, which is a part of its fingerprint; "" is the first one. The sides differ in the
    words that are no colours, so that a text tells which side encoded it.
    """

    def __init__(self, name: str = "latin", *, side: str = "") -> None:
        super().__init__(name, fingerprint=f"{SPACE}+{side}" if side else SPACE)
        self.image_space = SPACE
        self.side = side

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Rows of unit length, of zeros for what has no Latin letter."""
        mark = f" {self.side}side" if self.side else ""
        rows = super().encode_texts([text + mark for text in texts])
        for row, text in enumerate(texts):
            if not re.search("[A-Za-z]", text):
                rows[row] = 0
        return rows
