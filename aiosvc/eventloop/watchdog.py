"""
The thread that looks where an event loop is when it is held up.

Rule: it never waits for the loop, and the loop never for it.

Theory of operation. A turn that takes too long can be noticed only by another thread, and a thread
that looks regularly would wake an idle process for nothing. So it looks when it can be worth it:

- while the loop waits, it sleeps without a timeout, *parked*; the loop wakes it when it has
  something to do, for which it reads one flag after each wait;
- while the loop runs callbacks, it sleeps until the current turn would be a stall. Mostly another
  turn runs by then; it takes that one's start and goes on, ten times a second for a threshold of
  0.1 s, until it finds that the loop waits;
- while there is a stall, it looks again whenever its duration has doubled, and when it ends.

So a loop that sleeps costs nothing, and one that wakes up after a rest costs two wake-ups of this
thread: at once, and 0.1 s later to find that it rests again. A service that does nothing but sample
itself once a second has two a second more for it. To wake the thread takes the loop some 50 us, ten
times a second at most. A loop with a heartbeat never counts as resting: 20 wake-ups a second are
its own, 7 of this thread come to that. A thread that ended is started again by the loop.

A look that comes late itself means that the interpreter was not free, and the line is then where it
became free, or that the process was stopped, and the line is of no meaning. The process's CPU time
tells which: one that was stopped has used none.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from aiosvc.eventloop.lag import Probe
from aiosvc.eventloop.stacks import Sighting
from aiosvc.eventloop.stalls import KEPT, Stalls

__all__ = ["Watchdog"]

#: Seconds without a look after an error.
PAUSE = 1.0

#: Seconds by which a look may be late because the machine has much to do.
TOO_LATE = 0.1

#: Seconds until the next look at a loop that does not wait, at most.
LONGEST_PAUSE = 10.0


class Watchdog:
    """
    Fills in *stalls* for the loop of *probe*; *sight* tells where the loop's thread is.

    It looks where the loop was not free for *threshold* seconds.
    """

    def __init__(
        self,
        probe: Probe,
        stalls: Stalls,
        threshold: float,
        sight: Callable[[], Sighting | None],
        on_error: Callable[[BaseException], None],
        *,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.threshold = threshold
        self._cpu_clock = cpu_clock
        # When the next look is to be, and the CPU time that had been used when that was decided.
        self._planned: tuple[float, float] | None = None
        self._probe = probe
        self._stalls = stalls
        self._sight = sight
        self._on_error = on_error
        self._ended: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._stopping = False
        self._thread: threading.Thread | None = None
        # Held while nobody has something for the thread; given free to wake it.
        self._bell = threading.Lock()

    def start(self) -> None:
        """Start the thread; without one, stalls are only counted."""
        self._bell = threading.Lock()
        self._bell.acquire()
        self._probe.on_wake = self._unpark
        # A daemon: a process can end while its event loop is held up.
        self._thread = threading.Thread(target=self._run, name="aiosvc watchdog", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the process may have no more
            self._thread = None
            self._on_error(error)

    def stop(self) -> None:
        """Have the thread end."""
        self._stopping = True
        self.wake()

    def revive(self) -> None:
        """Start another thread where the last one has ended."""
        if self._thread is None or self._thread.is_alive() or self._stopping:
            return
        self._on_error(RuntimeError("the watchdog's thread had ended; there is another one"))
        self.start()

    def wake(self) -> None:
        """Have the thread look; called on the loop."""
        with suppress(RuntimeError):  # it is awake already
            self._bell.release()

    def end(self, since: float, seconds: float) -> None:
        """Take note of a stall that is over; called on the loop."""
        self._ended.append((since, seconds))
        self.wake()

    def look(self) -> float | None:
        """Look once; return the seconds until the next look, None while the loop waits."""
        while self._ended:
            self._stalls.end(*self._ended.popleft())
        pause = self._look()
        self._planned = None
        if pause is not None:
            self._planned = self._probe.clock() + pause, self._cpu_clock()
        return pause

    def _look(self) -> float | None:
        since = self._probe.owing_since()
        if since is None:
            return None
        age = self._probe.clock() - since
        if age < self.threshold:
            return min(self.threshold - age, LONGEST_PAUSE)
        if self._was_stopped():
            return min(self.threshold, LONGEST_PAUSE)
        sighting = self._sight()
        # What was seen counts only if the turn was still the same; if not, its end is told.
        if sighting is not None and self._probe.owing_since() == since:
            self._stalls.see(since, sighting)
        return min(age, LONGEST_PAUSE)

    def _was_stopped(self) -> bool:
        if self._planned is None:
            return False
        planned, cpu = self._planned
        late = self._probe.clock() - planned
        return late >= TOO_LATE and self._cpu_clock() - cpu < late / 2

    def _unpark(self) -> None:
        self._probe.parked = False
        self.wake()

    def _run(self) -> None:
        bell = self._bell
        while not self._stopping:
            try:
                pause = self.look()
            except Exception as error:  # noqa: BLE001 - it is counted, and looked again
                self._on_error(error)
                pause = PAUSE
            if pause is not None:
                bell.acquire(timeout=pause)
            else:
                self._park(bell)

    def _park(self, bell: threading.Lock) -> None:
        probe = self._probe
        probe.parked = True
        # The loop reads the flag after it has said that it is busy: one of both sees the other.
        if probe.owing_since() is None and not self._ended and not self._stopping:
            bell.acquire()
        probe.parked = False
