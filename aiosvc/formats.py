"""
The formats that a scrape can be answered in, each with its content type.

Rule: plain data; what is in no row here is announced to nobody, whatever a client asks for.

OpenMetrics 0.0.1 is the working name under which Prometheus 2.5 to 2.34 asked for the text that was
then released as 1.0.0; grammar and meaning of everything that we write are the same in both, and
Prometheus reads both with one parser. It has no escaping parameter, so names are written with
underscores. That is why it is spoken here, and announced to those who ask for it by that name.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = [
    "ESCAPINGS",
    "OPENMETRICS",
    "OPENMETRICS_0_0_1",
    "TEXT",
    "TEXT_1_0_0",
    "Escaping",
    "Format",
]

#: How names outside [a-zA-Z0-9_:] are written (prometheus.io, "UTF-8 escaping schemes").
Escaping = Literal["allow-utf-8", "underscores", "dots", "values"]

ESCAPINGS: Final[tuple[Escaping, ...]] = get_args(Escaping)


@dataclass(frozen=True, slots=True)
class Format:
    """One format: media type, version, and the escaping of names."""

    media_type: str
    version: str
    escaping: Escaping = "underscores"

    @property
    def openmetrics(self) -> bool:
        """Whether it is OpenMetrics and not Prometheus text."""
        return self.media_type == "application/openmetrics-text"

    @property
    def content_type(self) -> str:
        """The Content-Type; with the escaping where the version has such a parameter."""
        plain = f"{self.media_type}; version={self.version}; charset=utf-8"
        return f"{plain}; escaping={self.escaping}" if self.version == "1.0.0" else plain


#: The last resort of the negotiation, and what a browser can show.
TEXT: Final = Format("text/plain", "0.0.4")
TEXT_1_0_0: Final = Format("text/plain", "1.0.0")
OPENMETRICS: Final = Format("application/openmetrics-text", "1.0.0")
OPENMETRICS_0_0_1: Final = Format("application/openmetrics-text", "0.0.1")
