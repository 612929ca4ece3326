"""A job's bytes: ours, and those of taskiq's formatter."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taskiq import InMemoryBroker
from taskiq.message import TaskiqMessage

from aiosvc.jobs.message import Message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(args=st.lists(JSON), kwargs=st.dictionaries(st.text(), JSON))
def test_what_goes_in_comes_out(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Arguments that JSON can say survive the way."""
    message = Message.of("send", tuple(args), kwargs)
    assert Message.decode(message.encode()) == message


@given(data=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_a_value_error(data: bytes) -> None:
    """Whatever somebody put into the queue, it is a message or a ValueError."""
    try:
        message = Message.decode(data)
    except ValueError as error:
        assert str(error).startswith("not a job's message: ")  # noqa: PT017 - if it is one
    else:
        assert isinstance(message.name, str)


def test_taskiq_reads_ours() -> None:
    """A message is what taskiq's own formatter would have made of the same job."""
    message = Message.of("send", (1, "a"), {"to": ["x"]})
    read = InMemoryBroker().formatter.loads(message.encode())
    read.parse_labels()
    assert (read.task_name, read.args, read.kwargs) == ("send", [1, "a"], {"to": ["x"]})
    assert read.labels == {"aiosvc_sent": message.sent}


def test_taskiqs_are_read() -> None:
    """A message that a taskiq client sent is a job, of which nobody knows since when it waits."""
    sent = TaskiqMessage(task_id="7", task_name="send", labels={}, args=[1], kwargs={"a": 2})
    data = InMemoryBroker().formatter.dumps(sent).message
    assert Message.decode(data) == Message("7", "send", [1], {"a": 2}, None)


@pytest.mark.parametrize("wrong", [object(), {1, 2}, math.nan, b"bytes"])
def test_arguments_that_json_can_not_say(wrong: object) -> None:
    """An argument that would not survive the way is refused before it goes."""
    with pytest.raises(TypeError, match="job 'send': its arguments must be what JSON can say"):
        Message.of("send", (wrong,), {}).encode()


@pytest.mark.parametrize(
    "sent", ["null", "NaN", "-Infinity", "1" + 400 * "0", '"soon"', "[]", "{}"]
)
def test_a_time_that_is_none(sent: str) -> None:
    """A job whose sender wrote nonsense for the time is a job all the same; its wait is not known."""
    fields = '"task_id": "1", "task_name": "send", "args": [], "kwargs": {}'
    data = f'{{{fields}, "labels": {{"aiosvc_sent": {sent}}}}}'.encode()
    assert Message.decode(data).sent is None
