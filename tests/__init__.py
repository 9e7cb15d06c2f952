"""The tests, in folders like those of the code; `tests.support` is what they share."""

import pytest

# What a helper asserts is explained as what a test asserts.
pytest.register_assert_rewrite("tests.support")
