"""Where a thread is, in text."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any

import pytest

from aiosvc.eventloop import stacks
from aiosvc.eventloop.stacks import Place, Sighting, loop_code, sight

from .doubles import wait_for


def settled(
    thread: int, loop: asyncio.AbstractEventLoop | None, beneath: CodeType | None
) -> Sighting:
    """Return where a thread is seen, once it is where it stays."""
    seen: list[Sighting] = []

    def waits() -> bool:
        sighting = sight(thread, loop, beneath)
        assert sighting is not None
        seen.append(sighting)
        return sighting.innermost.function == "Condition.wait"

    wait_for(waits, "the thread waits")
    return seen[-1]


class Held:
    """A thread that stays in *call* until the end of the block; *call* gets what to wait for."""

    def __init__(self, call: Callable[[Callable[[], object]], object]) -> None:
        self.arrived = threading.Event()
        self._go = threading.Event()
        self._thread = threading.Thread(target=call, args=(self._wait,))

    def _wait(self) -> None:
        self.arrived.set()
        self._go.wait(20)

    def __enter__(self) -> int:
        self._thread.start()
        assert self.arrived.wait(20)
        assert self._thread.ident is not None
        return self._thread.ident

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()


def seen_in(
    call: Callable[[Callable[[], object]], object], beneath: CodeType | None = None
) -> Sighting:
    """Return where a thread that is held in *call* is seen."""
    with Held(call) as thread:
        return settled(thread, None, beneath)


LIBRARY = "/venv/lib/python3.11/site-packages/fastlib/__init__.py"


def test_the_users_line_and_the_innermost() -> None:
    """The innermost line may be the standard library's; the user's is the one that called it."""
    with Held(lambda wait: json.loads("[1]", parse_int=lambda _: wait())) as thread:
        sighting = settled(thread, None, None)
    assert sighting.innermost.file.endswith("threading.py")
    assert sighting.code is not None
    assert sighting.code.file == __file__
    assert sighting.innermost.function == "Condition.wait"


def seen_through(*sources: tuple[str, str], beneath: str | None = None) -> Sighting:
    """
    Return where a thread is seen that waits in the last of the sources, called by those before.

    A source is a file's name and the text of a function `call`, which calls `then`. *beneath* is the
    file that is the loop's.
    """
    arrived, go = threading.Event(), threading.Event()

    def wait() -> None:
        arrived.set()

    then: Callable[[], object] = wait
    codes = {}
    for number, (file, text) in enumerate(reversed(sources)):
        namespace = {"then": then, "go": go}
        last = "    then()\n    go.wait(20)\n" if number == 0 else "    then()\n"
        exec(compile(text or f"def call():\n{last}", file, "exec"), namespace)
        function: Any = namespace["call"]
        then, codes[file] = function, function.__code__
    thread = threading.Thread(target=then)
    thread.start()
    try:
        assert arrived.wait(20)
        assert thread.ident is not None
        return settled(thread.ident, None, codes.get(beneath or ""))
    finally:
        go.set()
        thread.join()


def test_the_line_is_the_one_that_calls() -> None:
    """The line is that of the call, in a method as in a function."""
    text = "class Shop:\n  def price(self):\n    then()\n    go.wait(\n      20)\ncall = Shop().price\n"
    arrived_in = seen_through(
        (
            "/srv/shop/price.py",
            text.replace("call = Shop().price", "") + "def call():\n  return Shop().price()\n",
        )
    )
    assert arrived_in.code == Place("/srv/shop/price.py", 4, "Shop.price")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("/srv/shop/web.py", "/srv/shop/price.py"), "/srv/shop/price.py"),
        (("/srv/shop/web.py", LIBRARY), "/srv/shop/web.py"),
        (("/srv/shop/web.py", stacks.__file__), "/srv/shop/web.py"),
        (("/srv/shop/web.py", asyncio.__file__), "/srv/shop/web.py"),
        ((LIBRARY, asyncio.__file__), LIBRARY),
        (
            ("/usr/lib/python3/dist-packages/a.py", "<frozen importlib>"),
            "/usr/lib/python3/dist-packages/a.py",
        ),
        (("<stdin>", asyncio.__file__), "<stdin>"),
        ((asyncio.__file__, "<frozen runpy>"), None),
    ],
)
def test_whose_code_it_is(files: tuple[str, str], expected: str | None) -> None:
    """The user's code is no library's; where all of it is installed, it is the innermost of that."""
    sighting = seen_through(*((file, "") for file in files))
    assert (sighting.code.file if sighting.code else None) == expected


def test_no_further_than_the_loop() -> None:
    """What the loop itself was called from is not what holds it up."""
    files = ("/srv/shop/main.py", "/loop.py", LIBRARY)
    assert seen_through(*((file, "") for file in files)).code == Place("/loop.py", 2, "call")
    seen = seen_through(*((file, "") for file in files), beneath="/loop.py")
    assert seen.code == Place(LIBRARY, 3, "call")


async def test_the_loops_own_code() -> None:
    """A callback finds the code that callbacks are called from."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[CodeType | None] = loop.create_future()

    def callback() -> None:
        found.set_result(loop_code())

    loop.call_soon(callback)
    code = await found
    assert code is not None
    assert code.co_filename.endswith(("events.py", "runners.py"))


async def test_the_task_is_told() -> None:
    """The task that runs on the loop is told by its name and its coroutine's."""
    task = asyncio.current_task()
    assert task is not None
    task.set_name("order " * 100)
    loop = asyncio.get_running_loop()
    answers: list[Sighting | None] = []
    mine = threading.get_ident()
    thread = threading.Thread(target=lambda: answers.append(sight(mine, loop, None)))
    thread.start()
    thread.join()
    (sighting,) = answers
    assert sighting is not None
    assert sighting.task == ("order " * 100)[:200]
    assert sighting.coroutine == "test_the_task_is_told"


def test_no_thread_is_nowhere() -> None:
    """A thread that has ended is nowhere."""
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert sight(thread.ident, None, None) is None


def test_no_variable_is_kept_alive() -> None:
    """What was seen holds no frame, so what the code had in its variables can go."""

    class Big:
        pass

    refs: list[weakref.ref[Big]] = []

    def work(wait: Callable[[], object]) -> None:
        big = Big()
        refs.append(weakref.ref(big))
        wait()

    sighting = seen_in(work)
    gc.collect()
    assert refs[0]() is None
    assert sighting.code is not None
