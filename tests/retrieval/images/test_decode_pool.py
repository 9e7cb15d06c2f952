"""Decoding in processes that can be ended, and the budget that all of it shares."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from retrieval.images.budget import MAX_PASSED, Budget, DecodingBusy
from retrieval.images.decode import ImageError, load_image
from retrieval.images.headers import check_header
from retrieval.images.plan import Wanted
from retrieval.images.pool import Bounds, DecodePool, _Shared, _Worker
from tests.support.hostile_pictures import many_scans, png, slow

PATIENCE_S = 60


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    made = DecodePool(2)
    yield made
    made.close()


def picture(file_format: str = "PNG", size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(buffer, file_format)
    return buffer.getvalue()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers(pool: DecodePool) -> list[int]:
    return [worker._process.pid for worker in [*pool._idle, *pool._busy]]


def is_there(pid: int) -> bool:
    """Whether there is such a process, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_a_picture_is_the_same_as_in_this_process(pool: DecodePool, file_format: str) -> None:
    data = picture(file_format, (900, 700))
    for wanted in (Wanted(), Wanted(200), Wanted(fit=100)):
        there, here = pool.load(data, wanted), load_image(data, wanted=wanted)
        assert (there.mode, there.size, there.tobytes()) == (here.mode, here.size, here.tobytes())


def test_what_is_no_picture_is_refused_in_the_same_words(pool: DecodePool) -> None:
    whole = picture()
    for data in (b"no picture", b"", whole[: len(whole) // 2], png(2000, 2000)):
        bounds = Bounds(max_pixels=1_000_000)
        with pytest.raises(ImageError) as there:
            pool.load(data, bounds=bounds)
        with pytest.raises(ImageError) as here:
            load_image(data, max_pixels=1_000_000)
        assert str(there.value) == str(here.value)


def test_one_that_takes_too_long_is_ended_and_the_next_is_decoded(pool: DecodePool) -> None:
    hostile = slow()
    with pytest.raises(ImageError, match=r"takes over 0\.5 s to decode"):
        pool.load(hostile, bounds=Bounds(cpu_s=0.5))
    assert workers(pool) == []
    assert pool.load(picture()).size == (60, 40)
    # Its time is its own: a process that has worked for others has as much for the next.
    worked = workers(pool)
    for _ in range(3):
        assert pool.load(picture("JPEG", (3000, 2000)), bounds=Bounds(cpu_s=2)).size == (3000, 2000)
    assert workers(pool) == worked


def test_the_clock_ends_one_where_the_system_counts_no_processor_time(
    pool: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.images.pool._CLOCK", 0.001)
    with pytest.raises(ImageError, match="takes over 60 s to decode"):
        pool.load(slow())
    monkeypatch.undo()
    assert pool.load(picture()).size == (60, 40)


def test_one_that_needs_too_much_memory_is_refused_before_it_is_decoded(pool: DecodePool) -> None:
    with pytest.raises(ImageError, match="needs 24 MiB of memory to be decoded, more than the 10 MiB allowed"):
        pool.load(png(2600, 2000), bounds=Bounds(largest_bytes=10 * 2**20))
    assert workers(pool) == []
    # The same picture made smaller is still as large while it is decoded, another format's is not.
    small = picture("JPEG", (2600, 2000))
    assert pool.load(small, Wanted(300), Bounds(largest_bytes=10 * 2**20)).size == (650, 500)


@pytest.mark.skipif(os.name != "posix", reason="ends processes by signals")
@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults in Linux's /proc")
def test_a_process_uses_the_same_pages_for_every_picture(pool: DecodePool) -> None:
    def faults() -> int:
        return sum(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7]) for pid in workers(pool))

    data, count = picture("JPEG", (640, 480)), 20
    for _ in range(3):
        pool.load(data)
    before = faults()
    for _ in range(count):
        pool.load(data)
    # The picture alone has 300 pages.
    assert faults() - before < 100 * count


def test_scans_are_counted_once(pool: DecodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    ask = _Worker.ask
    monkeypatch.setattr(_Worker, "ask", lambda self, data, request: asked.append(request) or ask(self, data, request))
    pool.load(many_scans(scans=5))
    pool.load(picture("JPEG"))
    assert [request["header"] for request in asked] == [
        check_header(io.BytesIO(many_scans(scans=5)), len(many_scans(scans=5))),
        (1, False),
    ]


def test_a_process_that_is_killed_costs_its_own_picture_only(pool: DecodePool) -> None:
    pool.load(picture())
    (pid,) = workers(pool)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not pool._idle[0].is_alive)
    assert pool.load(picture()).size == (60, 40)
    assert workers(pool) != [pid]
    with ThreadPoolExecutor(1) as thread:
        decoding = thread.submit(pool.load, slow())
        until(lambda: bool(pool._busy))
        other = pool.load(picture())
        os.kill(next(iter(pool._busy))._process.pid, signal.SIGSEGV)
        with pytest.raises(ImageError, match=r"its decoder failed \(SIGSEGV\)"):
            decoding.result(PATIENCE_S)
    assert other.size == pool.load(picture()).size
    # Nothing is left of those that ended.
    assert not is_there(pid)


@pytest.mark.skipif(os.name != "posix", reason="looks processes up by signals")
def test_the_pool_ends_with_its_last_user_and_leaves_nothing() -> None:
    # Not the one of this process, which a service of another test may still use.
    shared = _Shared()
    with shared.use() as first, shared.use() as second:
        assert first is second
        first.load(picture())
        left = workers(first)
        with ThreadPoolExecutor(1) as thread:
            decoding = thread.submit(first.load, slow())
            until(lambda: bool(first._busy))
            left += workers(first)
            first.close()
            with pytest.raises(ImageError, match="what decodes it is ending"):
                decoding.result(PATIENCE_S)
    assert len(left) >= 2
    assert [pid for pid in left if is_there(pid)] == []
    with pytest.raises(ImageError, match="what decodes it is ending"):
        first.load(picture())
    with shared.use() as another:
        assert another is not first


SCRIPT = """
import os, sys, time
from pathlib import Path
from retrieval.images.pool import DecodePool
pool = DecodePool()
data = Path(sys.argv[1]).read_bytes()
pool.load(data)
print(pool._idle[0]._process.pid, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="ends processes by signals")
@pytest.mark.parametrize("end", ["by itself", "killed"])
def test_the_processes_end_with_the_one_they_work_for(end: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    script = SCRIPT + ("time.sleep(600)\n" if end == "killed" else "")
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path / "a.png")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        if end == "killed":
            process.kill()
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert errors == ""
        assert process.returncode == (-signal.SIGKILL if end == "killed" else 0)
    until(lambda: not is_there(pid) or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    """An orphan is cleared away by the system's first process, which some containers do not have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for open files")
def test_a_process_inherits_no_file_and_no_socket_and_hears_no_ctrl_c(pool: DecodePool, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        pool.load(picture())
        (pid,) = workers(pool)
        assert {int(name.name) for name in Path(f"/proc/{pid}/fd").iterdir()} == {0, 1, 2}
    assert os.getsid(pid) != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    pool.load(picture())
    assert workers(pool) == [pid]


def test_a_process_knows_nothing_of_encoders_and_engines(tmp_path: Path) -> None:
    code = """
import sys, types
package = types.ModuleType("retrieval")
package.__path__ = [sys.argv[1]]
sys.modules["retrieval"] = package
import retrieval.images.worker
heavy = {"torch", "onnxruntime", "fastapi", "numpy", "backends", "app"} & sys.modules.keys()
assert not heavy, heavy
"""
    place = str(Path(load_image.__code__.co_filename).parents[1])
    subprocess.run([sys.executable, "-c", code, place], check=True, timeout=PATIENCE_S)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_after_a_fork_the_child_has_processes_of_its_own(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from retrieval.images.pool import DecodePool
pool, data = DecodePool(), Path(sys.argv[1]).read_bytes()
pool.load(data)
mine = pool._idle[0]._process.pid
child = os.fork()
if child == 0:
    pool.load(data)
    same = pool._idle[0]._process.pid == mine
    pool.close()
    os._exit(3 if same else 0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
pool.load(data)
assert pool._idle[0]._process.pid == mine
"""
    (tmp_path / "a.png").write_bytes(picture())
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], check=True, timeout=PATIENCE_S)


# The budget


def test_all_that_is_decoded_is_within_the_budget() -> None:
    budget, most, lock = Budget(100), [0], threading.Lock()

    def work(need: int) -> None:
        with budget.lease(need), lock:
            most[0] = max(most[0], budget.used)

    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(work, 7 * (number % 20)) for number in range(2000)]:
            done.result(PATIENCE_S)
    assert 0 < most[0] <= 100
    assert (budget.used, budget.waiting) == (0, 0)


def test_one_that_needs_more_than_there_is_waits_and_few_pass_it() -> None:
    budget, order = Budget(100), []

    def work(name: str, need: int) -> None:
        with budget.lease(need):
            order.append(name)

    threads: list[threading.Thread] = []

    def begin(name: str, need: int) -> threading.Thread:
        threads.append(threading.Thread(target=work, args=(name, need)))
        threads[-1].start()
        return threads[-1]

    with budget.lease(60):
        begin("large", 1000)  # more than all there is: alone
        until(lambda: budget.waiting == 1)
        for number in range(MAX_PASSED):
            begin(f"small {number}", 10).join(PATIENCE_S)
        assert order == [f"small {number}" for number in range(MAX_PASSED)]
        for number in range(3):
            begin(f"late {number}", 10)
            until(lambda number=number: budget.waiting == 2 + number)
        assert "late 0" not in order
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order[MAX_PASSED] == "large"
    assert sorted(order[MAX_PASSED + 1 :]) == ["late 0", "late 1", "late 2"]


def test_places_are_taken_in_the_order_of_coming_and_waiting_ends() -> None:
    budget, order = Budget(1, places=1), []

    def work(number: int) -> None:
        with budget.lease(0):
            order.append(number)

    with budget.lease(0):
        with pytest.raises(DecodingBusy, match="try again"), budget.lease(0, 0.01):
            pass
        assert budget.waiting == 0
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            until(lambda number=number: budget.waiting == number + 1)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == list(range(8))


def test_who_gives_up_lets_others_in() -> None:
    budget = Budget(100)
    inside = threading.Event()

    def small() -> None:
        with budget.lease(30):
            inside.set()

    with budget.lease(80), pytest.raises(DecodingBusy), budget.lease(90, 0.01):
        pass
    with budget.lease(80):
        thread = threading.Thread(target=small)
        thread.start()
    assert inside.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
