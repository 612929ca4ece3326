# ruff: noqa: RUF001 - letters that are easily mistaken for others are here on purpose
r"""
Some six hundred texts, each of a kind that somebody's parser fell over.

Rule: made here, by kind, so that what a kind is for can be read; no two are the same. All but those
in `SURROGATES` can be said in UTF-8.
"""

from collections.abc import Iterator
from itertools import product
from typing import Final

__all__ = ["CORPUS", "SURROGATES"]

#: Halves of pairs: alone, in the wrong order, and within a text.
SURROGATES: Final = ["\ud800", "\udfff", "\udc80", "a\ud83d", "\ude00b", "\ude00\ud83d", "x\udcffy"]

#: What is nothing, or looks like it.
EMPTY = ["", " ", "  ", "\t", "_", "-", ".", "..", "...", "/", "//", "\\\\", "''", '""', "()", "[]"]

#: What the formats themselves are made of, and what ends one thing and begins another.
SYNTAX = [
    "{", "}", "{}", "}{", "{}}", ",", "=", '="', '",', '"}', '"} 1', '"} 1\n', '"} 1 # {', '",x="',
    "\\", '"', '\\"', "\\\\", '\\\\"', "\\n", "\\\n", '\\\\\\"', '"\\', "a\\", 'a"', 'a\nb\\c"d',
    "#", "# ", "# EOF", "# EOF\n", "\n# EOF\n", "# HELP x", "# TYPE x counter", "# UNIT x seconds",
    "\n# TYPE x counter\nx 1\n", "x 1", "x{} 1", 'x{y="z"} 1 2', "1 # {} 1", ' # {a="b"} 1', "+Inf",
    "-Inf", "NaN", "nan", "Infinity", "1e999", "-0", "0x1F", "1_000", "1,5", "1.0", "01", "1e-400",
    "le", "quantile", "__name__", "__", "__x", "_total", "_bucket", "_created", "_info", "job",
    "instance", "_other", "_unmatched", "method", "endpoint", "status", "u__", "U__x", "U___2e_", ":",
    "a:b", "a.b", "a-b", "a b", "1a", "%", "%s", "%d", "%%", "%(x)s", "%n%n%n", "{0}", "{x!r}", "$x",
    "${x}", "$(x)", "`x`", "{{x}}", "{% x %}", "<%= x %>", "#{x}", "*", "**", "?", "[a-z]", ".*", "^$",
    "(a+)+$", "(?:", "(?P<x", "|", "&", "&&", ";", ";;", "!", "~", "@", "x@y", "<", ">", "<>", "</",
]  # fmt: skip

#: What has been written into other people's logs, pages, shells and databases.
INJECTED = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>",
    "'\"><script>alert(1)</script>", "javascript:alert(1)", '<!--#exec cmd="ls"-->', "<![CDATA[x]]>",
    '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]>', "&lt;script&gt;", "&#x3c;", "&amp;",
    "' OR 1=1 --", "'; DROP TABLE users; --", "1;SELECT pg_sleep(9)", '" OR ""="', "admin'/*",
    "${jndi:ldap://x/a}", "${${lower:j}ndi:x}", "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>",
    "; ls -la", "| cat /etc/passwd", "`id`", "$(id)", "& ping -c 9 x &", "|| true", "> /dev/null",
    "() { :;}; echo x", "../../etc/passwd", "..\\..\\windows\\win.ini", "....//....//", "/etc/passwd%00",
    "file:///etc/passwd", "//x.example/", "http://169.254.169.254/", "\\\\x\\c$", "CON", "NUL", "PRN",
    "a\r\nSet-Cookie: x=1", "a\r\n\r\nHTTP/1.1 200 OK", "a\nX: y", "a\rb", "\r\n", "\n\n", "\r", "\n",
    "=1+1", "+1+1", "@SUM(A1)", "=cmd|'/c x'!A1", "*)(uid=*", "x' and '1'='1", "__proto__", "constructor",
    "toString", "hasOwnProperty", "undefined", "null", "None", "nil", "true", "False", "(null)", "NULL",
    "yes", "no", "on", "off", "~", "!!python/object:os.system", "- a: b", "key: value", '{"a": 1}',
    "[1, 2", '"unclosed', "<xml", "a=b&c=d", "a[]=b", "?a=b#c", "%00", "%0a", "%0d%0a", "%2e%2e%2f",
    "%252e", "%c0%ae", "%ff", "%u0041", "%", "%2", "%zz", "+", "a+b", "a%20b", "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07", "\x1b[2J", "\b\b\b", "a\bb", "\x7f",
]  # fmt: skip

#: Letters that a program may have to count, compare, fold, mirror or join.
LETTERS = [
    "é", "e\u0301", "ñ", "ß", "ẞ", "ı", "İ", "ſ", "K", "Å", "Å", "ﬁ", "ﷺ", "ǅ", "ŉ", "ΐ", "ς", "Σ",
    "日本", "日本語のテスト", "한국어", "각", "中文", "㐀", "𠜎", "עברית", "العربية", "فارسی", "हिन्दी", "क्षि", "ไทย", "ລາວ",
    "မြန်မာ", "ქართული", "Հայերեն", "አማርኛ", "ελληνικά", "русский", "Ћћ", "ᚠᛇᚻ", "𐍈", "𓀀", "𝕳𝖊𝖑𝖑𝖔", "Ⓐ", "①",
    "½", "٣", "４２", "Ⅻ", "²", "₂", "°", "µ", "μ", "Ω", "Ω", "€", "₿", "™", "©", "∞", "≠", "√", "∅", "…",
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇩", "👍🏽", "❤️", "☠︎", "🧑🏾‍🚀", "🫠", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢", "a" + "\u0301" * 50, "\u0301",
    "раураl", "ｐａｙｐａｌ", "pаypal", "ᴀʙᴄ", "ʇsǝʇ", "¯\\_(ツ)_/¯", "(ﾉ◕ヮ◕)ﾉ", "ⓣⓔⓢⓣ", "“quoted”", "‘x’",
    "«x»", "–", "—", "‐", "･", "、", "。", "！", "｛", "＂", "＼", "＃", "％",
]  # fmt: skip

#: Marks of the direction of writing, spaces of all widths and none, ends of lines beside "\n".
UNSEEN = [
    "\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e",
    "\u2066", "\u2067", "\u2068", "\u2069", "\u2060", "\u2061", "\u180e", "\ufeff", "\ufffe", "\uffff",
    "\ufffd", "\ufff9", "\ufffb", "\u00ad", "\u034f", "\u061c", "\u115f", "\u3164", "\u00a0", "\u1680",
    "\u2000", "\u2002", "\u2003", "\u2007", "\u2009", "\u200a", "\u202f", "\u205f", "\u3000", "\u2028",
    "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\U000e0001", "\U000e0041", "\U000f0000",
    "\U0010ffff", "\ue000", "\ufdd0", "\U0001fffe", "\ufe0f", "\u2800", "\u0600", "\u070f", "\u2063",
]  # fmt: skip


def _controls() -> Iterator[str]:
    """Give every control character, alone and within a text."""
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        yield chr(code)
        yield f"a{chr(code)}b"


def _escapes() -> Iterator[str]:
    """Give all short rows of what is escaped, what escapes, and what is left."""
    for size in (2, 3):
        for letters in product('\\"\nn', repeat=size):
            yield "".join(letters)


def _positions() -> Iterator[str]:
    """Put what is hard at the beginning, in the middle and at the end."""
    for hard in ("\n", "\\", '"', "\x00", " ", "\u2028", "😀", "{", "}", ",", "#", "%"):
        yield f"{hard}a"
        yield f"a{hard}"
        yield f"a {hard} b"


def _long() -> Iterator[str]:
    """Give texts that are long, of letters of one to four bytes."""
    for letter in ("a", "\\", '"', "\n", "é", "日", "😀", " "):
        yield letter * 129
        yield letter * 2500


def _corpus() -> Iterator[str]:
    for kind in (EMPTY, SYNTAX, INJECTED, LETTERS, UNSEEN):
        yield from kind
    yield from _controls()
    yield from _escapes()
    yield from _positions()
    yield from _long()


#: All of them but the surrogates.
CORPUS: Final = list(dict.fromkeys(_corpus()))
