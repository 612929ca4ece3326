"""
YAML, read as texts, lists and mappings; the one place that imports PyYAML.

Rule: every scalar stays the text that was written, so that a user named 'on' or a header's value 1
is not taken for something else; what it means is for the reader of the key to say.
"""

from typing import Any

from aiosvc.errors import ConfigError

__all__ = ["load_yaml"]


def load_yaml(content: bytes) -> object:
    """
    Return the document in *content*: texts, lists and dicts, or None where there is none.

    Raises ConfigError where it is not YAML, names a key twice, or PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra, needed only by who has such a file
    except ImportError:
        raise ConfigError("PyYAML is needed to read it; pip install 'aiosvc[web]'") from None

    class Loader(yaml.BaseLoader):
        """Refuses a key that is there twice, of which YAML's own loaders keep the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            known: set[str] = set()
            for key, _ in node.value:
                if key.value in known if isinstance(key.value, str) else False:
                    raise ConfigError(
                        f"line {key.start_mark.line + 1}: {key.value!r} is there twice"
                    )
                known.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)  # noqa: S506 - BaseLoader makes texts and nothing else
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"not YAML: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not YAML: {type(error).__name__}") from None
