"""Which checks of the conformance suite are slow, whatever the engine."""

from __future__ import annotations

import pytest

from backends.conformance import BackendSuite

#: Checks at real size, with processes that are killed or with many threads. The suite cannot mark them itself: it is
#: run in other projects too, which have not our marks.
SLOW = {
    "test_a_forked_child_works_or_is_refused",
    "test_a_name_that_many_create_drop_and_use",
    "test_acknowledged_writes_survive_kill_9",
    "test_comparisons_of_thousands_of_fields_are_answered",
    "test_filtered_search_keeps_its_promise",
    "test_full_effort_finds_nearly_everything_in_hard_data",
    "test_hard_data_keep_the_promise",
    "test_index_kinds",
    "test_long_lists_of_values_are_answered",
    "test_many_records_with_wide_metadata",
    "test_one_call_stores_more_than_an_engine_s_batch",
    "test_quantizations",
    "test_random_filters_agree_with_the_oracle",
    "test_random_ids_and_texts",
    "test_searching_while_one_writes",
    "test_the_promise_survives_deletes_and_upserts",
}


def checks_of(item: pytest.Item) -> set[object]:
    """The suite's checks that a test is about: the one it is, or those it has as parameters."""
    suite = getattr(item, "cls", None)
    if isinstance(suite, type) and issubclass(suite, BackendSuite):
        return {getattr(item, "originalname", item.name)}
    callspec = getattr(item, "callspec", None)
    return {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if checks_of(item) & SLOW:
            item.add_marker(pytest.mark.slow)
