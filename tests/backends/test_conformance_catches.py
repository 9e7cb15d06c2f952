"""The conformance suite catches broken engines, and passes sound ones whatever little they declare."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from backends.conformance import BackendSuite, Sizes, Store
from tests.support import racing_engines as racing
from tests.support import sample_engines as engines

SMALL = Sizes(
    filter_trees=60, records=60, crowd=4_000, hard=4_000, wide=400, indexed=500, kills=3, searchers=4, write_batches=12
)


class TestDurable(BackendSuite):
    url = "durable:///{dir}"
    engine = engines.DurableBackend
    sizes = SMALL


class TestLimited(BackendSuite):
    url = "exact://"
    engine = engines.LimitedBackend
    sizes = SMALL


CAUGHT = [
    (engines.DropsFilters, "test_a_filter_is_applied_before_the_cut_to_k", ()),
    (engines.DropsFilters, "test_filtered_search_keeps_its_promise", ()),
    (engines.DropsFilters, "test_random_filters_agree_with_the_oracle", ()),
    (engines.DropsOneOperator, "test_each_operator_on_every_kind_of_value", ("nin",)),
    (engines.PostFilters, "test_a_filter_is_applied_before_the_cut_to_k", ()),
    (engines.PostFilters, "test_filtered_search_keeps_its_promise", ()),
    (engines.OneHitShort, "test_every_metric_agrees_with_the_oracle", ()),
    (engines.OneHitShort, "test_filtered_search_keeps_its_promise", ()),
    (engines.InvertsScores, "test_scores_are_the_known_ones", ()),
    (engines.InvertsScores, "test_every_metric_agrees_with_the_oracle", ()),
    (engines.WorstFirst, "test_every_metric_agrees_with_the_oracle", ()),
    (engines.ClaimsToBeExact, "test_every_metric_agrees_with_the_oracle", ()),
    (engines.ClaimsToBeExact, "test_filtered_search_keeps_its_promise", ()),
    (engines.BoastsOfItsPlan, "test_a_search_says_how_it_was_answered", ()),
    (engines.TellsOnePlanForAll, "test_a_search_says_how_it_was_answered", ()),
    (engines.LooksNarrowly, "test_hard_data_keep_the_promise", ()),
    (engines.LosesAWrite, "test_what_is_stored_comes_back", ()),
    (engines.LosesAWrite, "test_one_call_stores_more_than_an_engine_s_batch", ()),
    (engines.StoresTheGoodOnes, "test_bad_vectors_are_refused_and_nothing_is_stored", ("NaN",)),
    (engines.StoresTheGoodOnes, "test_wrong_dimensions_are_refused_and_nothing_is_stored", ((7,),)),
    (engines.StoresTheGoodOnes, "test_an_iterable_that_fails_stores_nothing", ()),
    (engines.TrueIsOne, "test_each_operator_on_every_kind_of_value", ("eq",)),
    (engines.IgnoresLists, "test_each_operator_on_every_kind_of_value", ("in",)),
    (engines.IgnoresLists, "test_random_filters_agree_with_the_oracle", ()),
    (engines.NotOfMissingIsFalse, "test_each_operator_on_every_kind_of_value", ("gt",)),
    (engines.EmptyMeansAll, "test_delete_by_ids", ()),
    (engines.CountsWhatWasAsked, "test_delete_by_ids", ()),
    (engines.StillFindsTheDeleted, "test_searching_while_one_writes", ()),
    (engines.TiesAsTheyCome, "test_identical_vectors_stand_in_order_of_their_ids", ()),
    (engines.NormalizesIds, "test_hostile_strings_come_back_unchanged", ()),
    (engines.ForgetsTheEncoder, "test_describe_gives_back_the_spec", ()),
    (engines.ForgetsTheNewEncoder, "test_set_encoder_is_seen_by_other_handles_and_later_ones", ()),
    (engines.MakesItAnew, "test_set_encoder_changes_the_fingerprint_and_nothing_else", ()),
    (engines.FoldsFieldNames, "test_field_names_of_any_script_are_kept_and_filtered", ()),
    (engines.MakesUpVectors, "test_records_without_vectors_are_stored_and_not_searched", ()),
    (engines.MakesUpVectors, "test_a_collection_may_have_no_vector_at_all", ()),
    (engines.KeepsTheOldVector, "test_replacing_takes_a_vector_away_and_gives_it_back", ()),
    (engines.CountsThoseWithVectors, "test_records_without_vectors_are_stored_and_not_searched", ()),
    (engines.FindsNoWordsWithoutVectors, "test_words_find_records_without_vectors", ()),
    (engines.IntegersBecomeFloats, "test_what_is_stored_comes_back", ()),
    (engines.MergesMetadata, "test_upsert_replaces_all_of_a_record", ()),
    (engines.SkipsAtPageEnds, "test_scan_gives_every_record_once", (7,)),
    (engines.IgnoresTheCursor, "test_scan_resumes_after_any_page", ()),
    (engines.NeedsAllWords, "test_documents_with_some_word_and_no_others", ()),
    (engines.EveryWordWeighsTheSame, "test_rarer_and_repeated_words_weigh_more", ()),
    (engines.SharesItsObjects, "test_what_the_caller_holds_is_not_what_is_stored", ()),
    (engines.WorksWhenClosed, "test_a_closed_backend_says_so", ()),
    (engines.HidesKeyword, "test_keyword_search_is_there_or_refused", ()),
    (engines.HidesAnOperator, "test_each_operator_on_every_kind_of_value", ("contains",)),
    (engines.HidesStringOrder, "test_string_order_is_by_code_point_or_refused", ()),
    (engines.HidesItsMetrics, "test_undeclared_metrics_are_refused", ()),
    (engines.BoastsOfAnIndex, "test_index_kinds", ("hnsw",)),
    (engines.AcceptsAnyIndex, "test_index_kinds", ("ivf",)),
    (engines.AcceptsAnyIndex, "test_quantizations", ("int8",)),
    (engines.TiresWithEffort, "test_effort_moves_recall_one_way", ()),
    (engines.NeedsNoEffort, "test_effort_moves_recall_one_way", ()),
    (racing.ForgetsThatOthersCreate, "test_of_many_who_create_one_name_one_succeeds", ()),
    (racing.OneAtATime, "test_of_many_who_create_one_name_one_succeeds", ()),
    (racing.OneAtATime, "test_many_names_at_once_all_come_to_be", ()),
    (racing.CallsLateUsersAnOutage, "test_a_name_that_many_create_drop_and_use", ()),
    (racing.LocksTwoWays, "test_a_name_that_many_create_drop_and_use", ()),
    (racing.RuinsTheName, "test_a_name_that_many_create_drop_and_use", ()),
    (racing.HangsInAChild, "test_a_forked_child_works_or_is_refused", ()),
    (racing.GivesUpItsParentsLock, "test_a_forked_child_works_or_is_refused", ()),
    (racing.RefusesOnlySearches, "test_a_forked_child_works_or_is_refused", ()),
    (engines.SavesLater, "test_acknowledged_writes_survive_kill_9", ()),
    (engines.LosesVectorsInACrash, "test_acknowledged_writes_survive_kill_9", ()),
    (engines.LosesFewVectorsInACrash, "test_acknowledged_writes_survive_kill_9", ()),
    (engines.ClaimsItLostNothing, "test_acknowledged_writes_survive_kill_9", ()),
    (engines.ForgetsToLock, "test_a_second_writer_works_or_is_told_why_not", ()),
    (engines.DeniesPersistence, "test_reopening_gives_everything_back", ()),
    (engines.DeniesPersistence, "test_a_second_process_reads", ()),
]


@pytest.mark.parametrize(("engine", "check", "arguments"), CAUGHT, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_broken_engine_is_caught(engine: type, check: str, arguments: tuple) -> None:
    class Broken(BackendSuite):
        url = "durable:///{dir}" if issubclass(engine, engines.DurableBackend) else "exact://"
        # These hang for as long as one waits.
        sizes = replace(SMALL, hangs_s=8.0) if engine in (racing.LocksTwoWays, racing.HangsInAChild) else SMALL

    Broken.engine = engine
    store = Store(Broken)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            getattr(Broken(), check)(store, *arguments)
    finally:
        store.close()


def test_an_approximate_engine_may_miss_a_record_that_it_has() -> None:
    class Approximate(BackendSuite):
        url = "durable:///{dir}"
        engine = engines.MissesNowAndThen
        sizes = SMALL

    store = Store(Approximate)
    Approximate().test_acknowledged_writes_survive_kill_9(store)
    store.close()


def test_an_engine_that_chokes_on_a_query_is_caught() -> None:
    class Broken(BackendSuite):
        url = "exact://"
        engine = engines.ChokesOnQuotes

    store = Store(Broken)
    with pytest.raises(RuntimeError, match="fts5"):
        Broken().test_no_query_breaks_keyword_search(store)
    store.close()


@pytest.mark.parametrize("package", ["pytest", "hypothesis"])
def test_a_missing_test_package_is_named_with_the_extra_to_install(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nimport backends.conformance"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert f"backends.conformance needs {package}: install it with pip install 'sightline[test]'" in ended.stderr
