"""Names and texts that are not ours."""

import pytest

from aiosvc.errors import ConfigError
from aiosvc.naming import (
    check_labels,
    check_metric,
    check_name,
    clean,
    is_label,
    is_name,
    one_line,
    what_happened,
)


def test_a_name_that_will_do() -> None:
    """Letters, digits and '_' make a metric's name, and a label's."""
    check_metric("shop_orders_2")
    assert check_labels(["state", "_kind", "a1"]) == ("state", "_kind", "a1")


@pytest.mark.parametrize("name", ["", "a b", "a-b", "1a", "a:b", "ä", "a\n", None, 7])
def test_what_is_no_name(name: object) -> None:
    """Anything else is refused, for metrics and labels alike."""
    with pytest.raises(ConfigError, match="not a metric name; use letters"):
        check_metric(name)
    assert not is_label(name)
    with pytest.raises(ConfigError, match="use letters, digits and '_', no digit"):
        check_labels([name])


@pytest.mark.parametrize("name", ["email", "email-2", "shop.email_eu", "2", "-"])
def test_the_name_of_a_thing(name: str) -> None:
    """Queues and the like may be called what is read the same in a label, a URL and a flag."""
    assert is_name(name)
    assert check_name(name, "queue name") == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a,b", "ä", "a\n", None, 7])
def test_what_no_thing_is_called(name: object) -> None:
    """What would have to be quoted is refused, and the message says whose name it was to be."""
    assert not is_name(name)
    with pytest.raises(ConfigError) as raised:
        check_name(name, "queue name")
    assert str(raised.value) == (
        f"queue name {name!r}: may hold only letters, digits, '_', '-' and '.'"
    )


@pytest.mark.parametrize("name", ["http_requests_total", "http_requests", "process_threads"])
def test_names_of_ours(name: str) -> None:
    """What aiosvc exports, be it the family or the series, is no name for anybody else."""
    with pytest.raises(ConfigError, match="aiosvc exports a metric of that name itself"):
        check_metric(name)


@pytest.mark.parametrize("name", ["le", "quantile", "__name__"])
def test_labels_with_a_meaning_of_their_own(name: str) -> None:
    """Labels that the format, or Prometheus, uses itself are refused."""
    with pytest.raises(ConfigError, match="neither le nor quantile"):
        check_labels([name])


def test_a_label_twice() -> None:
    """A label has its name for itself."""
    with pytest.raises(ConfigError, match="label 'a': give each name once"):
        check_labels(["a", "b", "a"])


def test_a_text_that_can_be_sent() -> None:
    """What has no form in UTF-8 is replaced; everything else stays, line breaks too."""
    assert clean("a\ud800\n\x00b") == "a\ufffd\n\x00b"
    assert clean(7) == "7"


def test_one_line_of_a_foreign_text() -> None:
    """Another program's words can't write lines of their own into a log, nor fill it."""
    assert one_line("a\nb\x1b[2J\tc") == "a b [2J c"
    assert len(one_line("x" * 10_000)) < 210


def test_what_an_error_has_to_say() -> None:
    """An error is told in one short line, also one that fails when it is asked."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert what_happened(OSError("no\nspace \udcff left")) == "OSError: no space left"
    assert what_happened(MuteError()) == "MuteError"
