"""
The options of the admin server, each written once: flags, variables and file keys derive from them.

Rule: a frozen, keyword-only dataclass, validated when made; a wrong value is a ConfigError that
names the option, what was given and what is expected.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from aiosvc import validation
from aiosvc.errors import ConfigError

__all__ = ["AdminOptions", "ProtectionOptions"]


class ProtectionOptions(TypedDict, total=False):
    """What `start_metrics_server` takes of `AdminOptions`: all but where to listen."""

    web_config: str | None
    bearer_token: str | None
    bearer_token_file: str | None
    auth_exempt: Iterable[str]
    live_timeout: float
    admin_connections: int
    admin_header_timeout: float
    admin_keepalive_timeout: float
    admin_write_timeout: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminOptions:
    """Where the admin server listens, who may ask it, and what it puts up with."""

    admin_port: int | None = field(
        default=None,
        metadata={
            "help": "port of the admin server, which answers while the application is busy; 0 takes "
            "a free one, none means no admin server"
        },
    )
    admin_host: str = field(
        default="127.0.0.1", metadata={"help": "address that the admin server listens on"}
    )
    web_config: str | None = field(
        default=None,
        metadata={
            "help": "file with TLS, users and headers for the admin server, as the exporters of "
            "Prometheus read it"
        },
    )
    bearer_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "help": "token that lets in whoever presents it; better in a file, where the list of "
            "processes does not show it"
        },
    )
    bearer_token_file: str | None = field(
        default=None, metadata={"help": "file with that token, re-read when it changes"}
    )
    auth_exempt: tuple[str, ...] = field(
        default=(),
        metadata={"help": "paths that need neither user nor token, like /livez,/readyz"},
    )
    live_timeout: float = field(
        default=5.0,
        metadata={"help": "seconds the event loop may be blocked before /livez says so"},
    )
    admin_connections: int = field(
        default=512,
        metadata={"help": "connections to the admin server at most; silent ones make room"},
    )
    admin_header_timeout: float = field(
        default=10.0,
        metadata={"help": "seconds in which a TLS handshake, and a request's headers, must come"},
    )
    admin_keepalive_timeout: float = field(
        default=65.0,
        metadata={"help": "seconds that a connection may be idle between two requests"},
    )
    admin_write_timeout: float = field(
        default=60.0,
        metadata={"help": "seconds in which a slow reader must have taken its answer"},
    )

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if self.admin_port is not None:
            validation.whole("admin_port", self.admin_port, at_least=0, at_most=65535)
        if not isinstance(self.admin_host, str) or not self.admin_host:
            raise validation.wrong("admin_host", self.admin_host, "an address like '127.0.0.1'")
        for name in ("web_config", "bearer_token_file"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise validation.wrong(name, value, "the name of a file")
        if self.bearer_token is not None and not (
            isinstance(self.bearer_token, str) and self.bearer_token
        ):
            raise ConfigError("bearer_token: expected a text that is not empty")
        if self.bearer_token is not None and self.bearer_token_file is not None:
            raise ConfigError("bearer_token and bearer_token_file given; give one or the other")
        object.__setattr__(self, "auth_exempt", _paths("auth_exempt", self.auth_exempt))
        validation.seconds("live_timeout", self.live_timeout, at_least=0.1)
        validation.whole("admin_connections", self.admin_connections, at_least=1)
        for name in ("admin_header_timeout", "admin_keepalive_timeout", "admin_write_timeout"):
            validation.seconds(name, getattr(self, name), at_least=0.1)


def _paths(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise validation.wrong(name, value, "paths, like ('/livez', '/readyz')")
    paths = tuple(value)
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/"):
            raise validation.wrong(name, path, "a path like '/livez'")
    return paths
