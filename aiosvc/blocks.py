"""
The text of many series, kept from scrape to scrape beside the values that it shows.

Rule: knows no metric type and none of prometheus_client's names; a `Reader` does. Rule: a state is
a tuple which is replaced and never changed, so scrapes in several threads at once need no lock.

Theory of operation. Series are kept in blocks of about 128 lines, the unit of work between two
looks at the clock. A block's values are read in one call into C, which no other thread interrupts
while there is a GIL, so all parts of a histogram's series are of one moment. Values are immutable
objects that are replaced when a metric changes: a series is stale exactly if a value is another
object than it was, and only stale series are written anew. The rest is joining lists of bytes.

Series come and go in a dict which only ever grows at its end (`Members`). While its length and its
last object are the same, nothing has come or gone. Where it is longer and our last object still
stands where it stood, series have only come. In any other case all blocks are gone over, and what
went is dropped together with its text.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import compress, count, islice, repeat
from operator import is_not
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from aiosvc.formats import Escaping
from aiosvc.seriestext import with_exemplars

__all__ = ["Block", "Members", "Reader", "State"]

#: Lines of a block, about. More would be a little faster; but Python's collector looks at some
#: hundreds of new containers at once, and in wide ones that takes many milliseconds.
SIZE: Final = 128

#: Series that are copied in one step; the first to touch one waits for the memory.
STEP: Final = 4096

#: How often to copy in steps before other threads are shut out, by copying in one.
ATTEMPTS: Final = 3

T = TypeVar("T")


class Reader(Protocol):
    """How the series of one metric are read and written; one object per metric and escaping."""

    #: Values, and cells, of one series.
    width: int

    def cells(self, series: Any) -> list[Any]:
        """Return the objects that hold a series' values; they are asked for once."""

    def read(self, cells: list[Any]) -> tuple[Any, ...]:
        """Return the cells' values, in one call into C."""

    def created(self, series: list[Any]) -> tuple[float, ...]:
        """Return when each series was made, in seconds since the epoch."""

    def exemplars(self, cells: list[Any]) -> tuple[Any, ...]:
        """Return the cells' exemplars, None for each that has none."""

    def write(self, series: Any, values: tuple[Any, ...], known: bytes) -> bytes:
        """Return a series' lines; *known* are those with other values, b"" if there are none."""

    def write_created(self, series: Any, created: float) -> bytes:
        """Return a series' line that says when it was made."""


class State(NamedTuple):
    """
    What a block showed at one moment.

    *values* and *exemplars* are by cell, the rest by series. *created* is empty until it is asked
    for. Where no series has exemplars, *exemplars* is empty and *full* is *texts*; else *full* has
    them, with label names written as in *escaping*.
    """

    values: tuple[Any, ...]
    texts: tuple[bytes, ...]
    created: tuple[Any, ...]
    created_texts: tuple[bytes, ...]
    exemplars: tuple[Any, ...]
    full: tuple[bytes, ...]
    escaping: Escaping


class Block:
    """Some series, the cells that hold their values, and their state when last read."""

    __slots__ = ("cells", "series", "state")

    def __init__(self, series: list[Any], cells: list[Any], state: State | None = None) -> None:
        self.series = series
        self.cells = cells
        self.state = state or _unread(len(series), len(cells))

    def refresh(
        self,
        reader: Reader,
        *,
        called: Mapping[int, float],
        created: bool,
        exemplars: Escaping | None,
    ) -> State:
        """
        Return the state as it is now.

        *called* are values by place which are not in the cells; *exemplars* is the escaping of
        their label names, None where they are not wanted.
        """
        known = self.state
        values = reader.read(self.cells)
        if called:
            values = tuple([called.get(place, value) for place, value in enumerate(values)])
        texts = self._texts(reader, known, values)
        dates, dated = known.created, known.created_texts
        if created:
            dates, dated = self._dated(reader, known)
        shown, full = known.exemplars, known.full
        if exemplars is not None:
            shown, full = self._exemplified(reader, known, texts, exemplars)
        elif texts is not known.texts:
            shown, full = (), texts
        if texts is known.texts and dated is known.created_texts and full is known.full:
            return known
        state = State(values, texts, dates, dated, shown, full, exemplars or known.escaping)
        self.state = state
        return state

    def _texts(self, reader: Reader, known: State, values: tuple[Any, ...]) -> tuple[bytes, ...]:
        width = reader.width
        if width == 1:
            stale = list(compress(count(), map(is_not, values, known.values)))
        elif values == known.values:
            return known.texts
        else:
            old = known.values
            starts = range(0, len(values), width)
            stale = [
                place
                for place, start in enumerate(starts)
                if values[start : start + width] != old[start : start + width]
            ]
        if not stale:
            return known.texts
        texts = list(known.texts)
        write = reader.write
        for place in stale:
            start = place * width
            texts[place] = write(self.series[place], values[start : start + width], texts[place])
        return tuple(texts)

    def _dated(self, reader: Reader, known: State) -> tuple[tuple[float, ...], tuple[bytes, ...]]:
        dates = reader.created(self.series)
        stale = list(compress(count(), map(is_not, dates, known.created or repeat(None))))
        if not stale:
            return known.created, known.created_texts
        texts = list(known.created_texts) or [b""] * len(dates)
        for place in stale:
            texts[place] = reader.write_created(self.series[place], dates[place])
        return dates, tuple(texts)

    def _exemplified(
        self, reader: Reader, known: State, texts: tuple[bytes, ...], escaping: Escaping
    ) -> tuple[tuple[Any, ...], tuple[bytes, ...]]:
        exemplars = reader.exemplars(self.cells)
        if exemplars.count(None) == len(exemplars):
            return (), texts
        width = reader.width
        usable = known.exemplars if escaping == known.escaping else ()
        full = list(texts)
        for place, text in enumerate(texts):
            cells = slice(place * width, (place + 1) * width)
            mine = exemplars[cells]
            if mine.count(None) == width:
                continue
            if text is known.texts[place] and mine == usable[cells]:
                full[place] = known.full[place]
            else:
                given = {line: each for line, each in enumerate(mine) if each is not None}
                full[place] = with_exemplars(text, given, escaping)
        return exemplars, tuple(full)


@lru_cache(maxsize=64)
def _unread(series: int, cells: int) -> State:
    """Return the state of a block that was never read; one for all, to be easy on the collector."""
    texts = (b"",) * series
    return State((None,) * cells, texts, (), (), (), texts, "underscores")


class Members:
    """The blocks of a dict's values, which are the series of one metric."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: tuple[list[Block], int, Any] = ([], 0, None)

    def update(self, series: dict[Any, Any], reader: Reader) -> Generator[bytes, None, list[Block]]:
        """Return the blocks of *series* as it is now; yields b"" where it may be paused."""
        blocks, number, last = self._known
        more = len(series) - number
        if more == 0 and _newest(series) is last:
            return blocks
        if not blocks:
            newest = _newest(series)
            blocks = yield from _first(series, reader)
            made = sum(len(block.series) for block in blocks)
            if made == more == len(series) and _newest(series) is newest:
                self._known = blocks, made, newest
                return blocks
        elif more > 0:
            tail = _settled(lambda: list(islice(reversed(series.values()), more + 1)))
            if tail[more:] == [last]:
                blocks = blocks.copy()
                yield from _append(blocks, tail[more - 1 :: -1], 0, reader)
                self._known = blocks, number + more, tail[0]
                return blocks
        members = yield from _members(series)
        blocks, kept = yield from _surviving(blocks, members, reader)
        yield from _append(blocks, members, kept, reader)
        self._known = blocks, len(members), members[-1] if members else None
        return blocks


def _newest(series: dict[Any, Any]) -> Any:
    return _settled(lambda: next(reversed(series.values()), None))


def _first(series: dict[Any, Any], reader: Reader) -> Generator[bytes, None, list[Block]]:
    """Return blocks of all values, right if the dict has not changed meanwhile."""
    blocks: list[Block] = []
    values = iter(series.values())
    with suppress(RuntimeError):  # another size
        while step := list(islice(values, _capacity(reader))):
            blocks.append(_made(step, reader))
            yield b""
    return blocks


def _members(series: dict[Any, Any]) -> Generator[bytes, None, list[Any]]:
    """Return the values of a dict: in steps if it does not change meanwhile, else in one."""
    for _ in range(ATTEMPTS):
        size, newest = len(series), _newest(series)
        members: list[Any] = []
        values = iter(series.values())
        try:
            while step := list(islice(values, STEP)):
                members += step
                yield b""
        except RuntimeError:
            continue  # another size
        # As above: with the same size and the same last value, nothing came or went.
        if len(members) == len(series) == size and _newest(series) is newest:
            return members
    return _settled(lambda: list(series.values()))


def _settled(read: Callable[[], T]) -> T:
    """Return what *read* finds in a dict that other threads change, without locking them out."""
    while True:
        try:
            return read()
        except RuntimeError:  # it changed size between two steps
            continue


def _capacity(reader: Reader) -> int:
    return max(1, SIZE // reader.width)


def _surviving(
    blocks: list[Block], members: list[Any], reader: Reader
) -> Generator[bytes, None, tuple[list[Block], int]]:
    """Return the blocks of what is left of them in *members*, and how many series those are."""
    left: list[Block] = []
    place = 0
    for block in blocks:
        end = place + len(block.series)
        if members[place:end] == block.series:
            left.append(block)
            place = end
        else:
            keep = []
            for index, each in enumerate(block.series):
                if place < len(members) and members[place] is each:
                    keep.append(index)
                    place += 1
            if keep:
                rest = _part(block, keep, reader.width)
                room = _capacity(reader) - len(keep)
                if left and len(left[-1].series) <= room:
                    rest = _joined(left.pop(), rest)
                left.append(rest)
        yield b""
    return left, place


def _append(blocks: list[Block], members: list[Any], first: int, reader: Reader) -> Iterator[bytes]:
    """Put *members* into blocks, from the *first* one on: in the last while it has room, in new."""
    size = _capacity(reader)
    room = size - len(blocks[-1].series) if blocks else 0
    if room > 0 and first < len(members):
        blocks[-1] = _joined(blocks[-1], _made(members[first : first + room], reader))
        first += room
    for place in range(first, len(members), size):
        blocks.append(_made(members[place : place + size], reader))
        yield b""


def _made(series: list[Any], reader: Reader) -> Block:
    cells: list[Any] = []
    for each in series:
        cells += reader.cells(each)
    return Block(series, cells)


def _part(block: Block, keep: list[int], width: int) -> Block:
    state = block.state
    cells = [place for index in keep for place in range(index * width, (index + 1) * width)]
    texts = tuple([state.texts[index] for index in keep])
    dated = keep if state.created else []
    return Block(
        [block.series[index] for index in keep],
        [block.cells[place] for place in cells],
        State(
            tuple([state.values[place] for place in cells]),
            texts,
            tuple([state.created[index] for index in dated]),
            tuple([state.created_texts[index] for index in dated]),
            (),
            texts,
            state.escaping,
        ),
    )


def _joined(one: Block, other: Block) -> Block:
    a, b = one.state, other.state
    texts = a.texts + b.texts
    dated = a.created and b.created
    return Block(
        one.series + other.series,
        one.cells + other.cells,
        State(
            a.values + b.values,
            texts,
            a.created + b.created if dated else (),
            a.created_texts + b.created_texts if dated else (),
            (),
            texts,
            a.escaping,
        ),
    )
