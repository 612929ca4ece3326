"""
How many series a scrape has by family, counted in its text as it goes by.

Rule: reads bytes that are being sent anyway; a family is what follows "# TYPE", a series a line
that is no comment. A line never holds a newline, the formats escape it.
"""

__all__ = ["Counting", "SeriesCount"]

TYPE = b"# TYPE "


class SeriesCount:
    """The counts of the last scrape that was rendered whole."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def begin(self) -> "Counting":
        """Return what is to be fed with the chunks of one scrape."""
        return Counting(self)


class Counting:
    """The counts of a scrape under way."""

    def __init__(self, count: SeriesCount) -> None:
        self._count = count
        self._found: dict[str, int] = {}
        self._family = ""
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Count a chunk, which may end within a line."""
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        first, *others = text[:end].split(TYPE)
        self._add(first)
        for part in others:
            name, _, lines = part.partition(b" ")
            self._family = name.decode(errors="replace").strip('"')
            self._add(lines.partition(b"\n")[2])

    def end(self) -> None:
        """Make these counts the ones that are exported."""
        self._count.found = self._found

    def _add(self, lines: bytes) -> None:
        comments = lines.count(b"\n#") + lines.startswith(b"#")
        series = lines.count(b"\n") - comments
        if series > 0 and self._family:
            self._found[self._family] = self._found.get(self._family, 0) + series
