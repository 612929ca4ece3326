"""
For taskiq: a middleware that counts and times the tasks of a broker that you have anyway.

    broker = RedisStreamBroker(url).with_middlewares(TaskiqMetrics(observer, name="orders"))

Rule: nothing in here is raised into taskiq; a hook that fails is counted as an error of ours.

Theory of operation. A retry shares the dict of labels with the attempt that failed, and is sent
before that one's end is told; so all that is to be known of an attempt is read when it begins and
kept by the task's id, and what is sent under the id of a task that runs is its retry. Messages that
no task is found for are dropped by taskiq without a word to any middleware.
"""

import time
from collections.abc import Callable
from typing import Any, ParamSpec

from taskiq import NoResultError, TaskiqMessage, TaskiqMiddleware, TaskiqResult

from aiosvc.jobs.ledger import Ledger
from aiosvc.jobs.message import SENT, sent_at
from aiosvc.queues import check_name
from aiosvc.queues.attempts import ERROR, OK, RETRY, Attempt, outcome_of
from aiosvc.service import Observer

__all__ = ["TaskiqMetrics"]

P = ParamSpec("P")

#: The label in which taskiq's own middlewares count retries.
RETRIES = "_retries"


class Running:
    """One attempt under way: the retries before it, whether it was sent once more, its failure."""

    __slots__ = ("attempt", "outcome", "retried", "retries")

    def __init__(self, attempt: Attempt, retries: int) -> None:
        self.attempt = attempt
        self.retries = retries
        self.retried = False
        self.outcome = ERROR


class TaskiqMetrics(TaskiqMiddleware):
    """
    Exports what is sent by and run of a broker as the queue *name*.

    The same object serves clients and workers. Depth is for `aiosvc.brokers`, which may watch the
    queue under the same name. Raises ConfigError for a wrong name.
    """

    def __init__(self, observer: Observer, *, name: str = "taskiq") -> None:
        super().__init__()
        self._on_error = observer.collector.error
        self._ledger = Ledger(check_name(name), local=False)
        self._ledger.rejected.clear()  # no hook tells of them
        self._running: dict[str, list[Running]] = {}
        observer.count_jobs(self._ledger)

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Note in the message when it is sent."""
        self._safely(self._stamp, message)
        return message

    def post_send(self, message: TaskiqMessage) -> None:
        """Count it as enqueued."""
        self._safely(self._sent, message)

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Begin an attempt, and count how long the message waited."""
        self._safely(self._begin, message)
        return message

    def on_error(
        self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException
    ) -> None:
        """Keep what was raised, before a retry puts something else in its place."""
        del result
        self._safely(self._failed, message, exception)

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """End the attempt."""
        self._safely(self._end, message, result)

    def _safely(self, act: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            act(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the task is to be run all the same
            self._on_error("taskiq middleware", error)

    def _stamp(self, message: TaskiqMessage) -> None:
        message.labels[SENT] = time.time()

    def _sent(self, message: TaskiqMessage) -> None:
        self._ledger.enqueued += 1
        for running in self._running.get(message.task_id, ()):
            running.retried = True

    def _begin(self, message: TaskiqMessage) -> None:
        attempt = self._ledger.attempt(message.task_name)
        attempt.__enter__()
        running = Running(attempt, _retries(message))
        self._running.setdefault(message.task_id, []).append(running)
        sent = sent_at(message.labels)
        if sent is not None:
            # Clocks of two machines differ; nothing waits for less than no time.
            self._ledger.waited(max(0.0, time.time() - sent))

    def _failed(self, message: TaskiqMessage, exception: BaseException) -> None:
        for running in self._running[message.task_id][-1:]:
            running.outcome = outcome_of(exception)

    def _end(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        known = self._running[message.task_id]
        running = known.pop()
        if not known:
            del self._running[message.task_id]
        running.attempt.end(_outcome(running, message, result))


def _outcome(running: Running, message: TaskiqMessage, result: TaskiqResult[Any]) -> str:
    if not result.is_err:
        return OK
    is_hidden = isinstance(result.error, NoResultError)
    # One that is scheduled for later is not sent now, but its error is hidden and it is counted.
    if running.retried or (is_hidden and _retries(message) > running.retries):
        return RETRY
    return running.outcome


def _retries(message: TaskiqMessage) -> int:
    return int(message.labels.get(RETRIES, 0))
