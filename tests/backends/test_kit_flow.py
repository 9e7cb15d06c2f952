"""What engines share: ties at the cut, collections that others replace, folders that are whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import pytest

from backends.errors import BackendError, CollectionNotFound, Unavailable
from backends.kit import again
from backends.kit.current import ATTEMPTS, on_current
from backends.kit.folders import put_aside, remove, remove_leftovers, sync, whole_folder, write_through
from backends.kit.ties import search_with_ties
from tests.support.stopped_clock import StoppedClock


class Ranked:
    """Lists of (score, id), best first, as an engine ranks them, and every limit that it was asked for."""

    def __init__(self, *lists):
        self.lists = lists
        self.asked = []

    def ask(self, rows, limit):
        self.asked.append((list(rows), limit))
        return [self.lists[row][:limit] for row in rows]

    def search(self, k, most=None):
        return search_with_ties(self.ask, len(self.lists), k, lambda one, other: one[0] == other[0], most=most)


def ranked(*scores):
    return [(score, f"{i:03}") for i, score in enumerate(scores)]


class TestAgain:
    @pytest.fixture
    def clock(self, monkeypatch):
        clock = StoppedClock()
        monkeypatch.setattr(again, "time", clock)
        return clock

    @staticmethod
    def failing(times, kind=Unavailable):
        left = [kind("no")] * times

        def call():
            if left:
                raise left.pop()
            return "done"

        return call

    def test_what_fails_in_passing_is_done_again_after_growing_pauses(self, clock):
        def is_passing(error):
            seen.append(clock.now)
            return isinstance(error, Unavailable)

        seen = []
        assert again.until_it_passes(self.failing(7), is_passing) == "done"
        pauses = [after - before for before, after in pairwise(seen)]
        assert pauses == sorted(pauses)
        assert pauses[0] < pauses[-1] <= again.LONGEST_PAUSE_S

    def test_another_error_is_raised_at_once(self, clock):
        with pytest.raises(BackendError):
            again.until_it_passes(self.failing(1, BackendError), lambda error: isinstance(error, Unavailable))
        assert clock.now == 0

    def test_what_does_not_pass_is_raised_in_time(self, clock):
        with pytest.raises(Unavailable):
            again.until_it_passes(self.failing(10_000), lambda error: True)
        assert again.WITHIN_S - again.LONGEST_PAUSE_S <= clock.now <= again.WITHIN_S


class TestTies:
    def test_one_more_than_k_is_enough_where_it_does_not_tie(self):
        engine = Ranked(ranked(9, 8, 7, 6))
        assert engine.search(2) == [ranked(9, 8, 7)]
        assert engine.asked == [([0], 3)]

    def test_all_that_tie_with_the_kth_are_seen(self):
        engine = Ranked(ranked(9, *[5] * 40, 1))
        (found,) = engine.search(3)
        assert {hit for hit in found if hit[0] == 5} == set(ranked(9, *[5] * 40)[1:])

    def test_only_queries_that_tie_are_asked_again(self):
        lists = ranked(9, 8, 7), ranked(*[4] * 6, 3), ranked(2, 1)
        engine = Ranked(*lists)
        assert engine.search(2) == [lists[0][:3], lists[1], lists[2]]
        assert [rows for rows, _ in engine.asked] == [[0, 1, 2], [1]]

    def test_an_answer_of_fewer_than_asked_for_is_whole(self):
        engine = Ranked(ranked(5, 5, 5))
        assert engine.search(3) == [ranked(5, 5, 5)]
        assert len(engine.asked) == 1

    def test_no_more_is_asked_for_than_the_engine_takes(self):
        engine = Ranked(ranked(*[5] * 100))
        assert engine.search(2, most=20) == [ranked(*[5] * 20)]
        assert [limit for _, limit in engine.asked] == [3, 12, 20]

    def test_k_may_be_all_that_the_engine_takes(self):
        engine = Ranked(ranked(*[5] * 100))
        assert engine.search(20, most=20) == [ranked(*[5] * 20)]
        assert engine.asked == [([0], 20)]

    def test_no_queries_no_question(self):
        engine = Ranked()
        assert engine.search(5) == []
        assert engine.asked == []


class Handles:
    """A name whose collection others make anew: what is remembered of it, and what is there."""

    def __init__(self, remembered, there):
        self.remembered, self.there = remembered, there

    def find(self):
        if self.there is None:
            raise CollectionNotFound("no collection 'c'")
        self.remembered = self.remembered or self.there
        return self.remembered

    def is_stale(self, handle, error):
        stale = isinstance(error, KeyError) and handle != self.there
        if stale:
            self.remembered = None
        return stale

    def use(self, task):
        return on_current("c", "here://", self.find, task, self.is_stale)


class TestCurrent:
    def test_what_is_remembered_is_used(self):
        assert Handles("old", "old").use(lambda handle: handle) == "old"

    def test_a_collection_made_anew_is_used_instead_of_the_one_remembered(self):
        handles, used = Handles("old", "new"), []

        def task(handle):
            used.append(handle)
            if handle == "old":
                raise KeyError(handle)
            return f"done on {handle}"

        assert handles.use(task) == "done on new"
        assert used == ["old", "new"]

    def test_a_refusal_of_the_one_that_is_there_is_not_repeated(self):
        used = []

        def task(handle):
            used.append(handle)
            raise KeyError("a wrong argument")

        with pytest.raises(KeyError, match="a wrong argument"):
            Handles(None, "there").use(task)
        assert used == ["there"]

    def test_other_errors_pass(self):
        def task(handle):
            raise BackendError("the disk is full")

        with pytest.raises(BackendError, match="the disk is full"):
            Handles("old", "new").use(task)

    def test_a_dropped_one_is_not_found(self):
        def task(handle):
            raise KeyError(handle)

        with pytest.raises(CollectionNotFound, match="no collection 'c'"):
            Handles("old", None).use(task)

    def test_one_that_is_replaced_faster_than_it_can_be_used_was_dropped_meanwhile(self):
        handles, used = Handles("0", "0"), []

        def task(handle):
            used.append(handle)
            handles.there = f"{len(used)}"
            raise KeyError(handle)

        with pytest.raises(CollectionNotFound, match="'c' in here:// was dropped meanwhile"):
            handles.use(task)
        assert used == [str(i) for i in range(ATTEMPTS)]


def fill(folder):
    folder.mkdir()
    write_through(folder / "spec", "{}")


class TestFolders:
    def test_a_folder_is_there_when_it_is_whole(self, tmp_path):
        with whole_folder(tmp_path / "c") as unfinished:
            fill(unfinished)
            assert not (tmp_path / "c").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["c"]
        assert (tmp_path / "c" / "spec").read_text() == "{}"

    def test_one_that_fails_leaves_nothing(self, tmp_path):
        def stop(unfinished):
            fill(unfinished)
            raise RuntimeError("halfway")

        with pytest.raises(RuntimeError, match="halfway"), whole_folder(tmp_path / "c") as unfinished:
            stop(unfinished)
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_refuses_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with (
            pytest.raises(Unavailable, match=r"cannot create .*file/c: Not a directory"),
            whole_folder(tmp_path / "file" / "c") as unfinished,
        ):
            unfinished.mkdir()

    def test_what_an_interrupted_run_left_is_not_taken_over(self, tmp_path):
        (tmp_path / "data.new").mkdir()
        (tmp_path / "data.new" / "half").write_text("")
        with whole_folder(tmp_path / "data", tmp_path / "data.new") as unfinished:
            fill(unfinished)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "spec"]

    @pytest.mark.parametrize("step", ["made", "dropped"])
    def test_what_a_killed_process_left_is_cleared(self, tmp_path, step):
        code = """if True:
            import os, sys
            from pathlib import Path
            from backends.kit.folders import put_aside, whole_folder
            target = Path(sys.argv[1]) / "c"
            if sys.argv[2] == "made":
                with whole_folder(target) as unfinished:
                    unfinished.mkdir()
                    os.kill(os.getpid(), 9)
            target.mkdir()
            put_aside(target)
            os.kill(os.getpid(), 9)
        """
        (tmp_path / "other").mkdir()
        ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), step], check=False)
        assert ended.returncode == -9
        assert len(list(tmp_path.iterdir())) == 2
        assert not (tmp_path / "c").exists()
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["other"]

    def test_a_folder_put_aside_makes_room_for_another_of_its_name(self, tmp_path):
        for _ in range(2):
            with whole_folder(tmp_path / "c") as unfinished:
                fill(unfinished)
            aside = put_aside(tmp_path / "c")
            assert aside is not None
            assert (aside / "spec").exists()
        for path in list(tmp_path.iterdir()):
            remove(path)
        assert list(tmp_path.iterdir()) == []

    def test_there_is_nothing_to_put_aside(self, tmp_path):
        assert put_aside(tmp_path / "nowhere") is None

    def test_a_folder_that_cannot_be_renamed_is_named(self, tmp_path):
        folder = tmp_path / ("c" * 250)
        folder.mkdir()
        with pytest.raises(Unavailable, match=r"cannot remove .*c: File name too long"):
            put_aside(folder)
        assert folder.exists()

    def test_files_and_folders_are_synced(self, tmp_path, monkeypatch):
        synced = []
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), fsync(handle)))
        with whole_folder(tmp_path / "c") as unfinished:
            fill(unfinished)
        # The file, the names in the folder, and the folder's own name, in this order.
        wanted = [(tmp_path / "c" / "spec").stat().st_ino, (tmp_path / "c").stat().st_ino, tmp_path.stat().st_ino]
        assert synced == wanted
        sync(tmp_path / "c" / "spec")
        assert synced[3:] == wanted[:1]

    def test_a_file_that_is_there_is_not_replaced(self, tmp_path):
        write_through(tmp_path / "spec", "first")
        with pytest.raises(FileExistsError):
            write_through(tmp_path / "spec", "second")
        assert (tmp_path / "spec").read_text() == "first"
