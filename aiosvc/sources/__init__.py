"""
What a sampler reads: one file per source.

`process`, `tasks`, `executor` and `pauses` are read by every service; `httpjson` and `database` are
added by whoever has something to read there, with `observer.sampler.add`. Rule: a source is a
function without arguments that returns `Readings`, or metric families if a user adds it; what is not
known is left out, never 0.
"""
