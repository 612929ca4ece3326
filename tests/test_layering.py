"""The architecture, as a test: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aiosvc

PACKAGE = Path(aiosvc.__file__).parent

#: A module imports lower ranks only.
RANKS = [
    {
        "version",
        "errors",
        "catalogue",
        "background",
        "descriptors",
        "blocking",
        "callables",
        "formats",
        "series",
        "codings",
        "seriescount",
        "signals",
        "sketch",
        "exposed",
        "pacing",
    },
    {
        "exemplars",
        "importer",
        "negotiation",
        "validation",
        "lint",
        "naming",
    },
    {"health", "labels", "seriestext", "spans"},
    {"config", "readings", "families", "blocks", "check"},
    {"clientmetrics", "foreign"},
    {"ownership"},
    {
        "exposition",
        "options",
        "requests",
        "sampling",
        "sources",
        "queues",
        "collector",
        "eventloop",
        "calls",
        "outbound",
        "pushgateway",
        "rules",
        "dashboards",
    },
    {"scrape", "exchange", "runtime", "brokers", "summary", "client", "push", "reference"},
    {"jobs"},
    {"templates", "service", "runner", "protocol", "endpoint", "own", "frameworks", "asgiexchange"},
    {"endings", "gateway", "wsgiexchange"},
    {"tap", "admin"},
    {"aiohttp", "asgi", "wsgi", "taskiq", "worker"},
    {""},
    {"demo", "testing"},
    {"cli"},
    {"__main__"},
]


def modules() -> list[tuple[str, Path]]:
    """Return every module's first name below the package, and its file."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = parts[-1] if parts[-1] == "__main__" else parts[0]
        found.append(("" if name == "__init__" else name, path))
    return found


def rank(name: str) -> int:
    """Return the rank of a module or family."""
    return next(i for i, names in enumerate(RANKS) if name in names)


def imported(path: Path) -> set[str]:
    """Return the first names below the package of what a file imports of it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            head, _, rest = node.module.partition(".")
            if head == "aiosvc" and rest:
                names.add(rest.split(".")[0])
            elif head == "aiosvc":
                known = {name for name, _ in modules()}
                names |= {a.name if a.name in known else "" for a in node.names}
    return names


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda v: str(v)[-24:])
def test_a_module_imports_lower_ranks_only(name: str, path: Path) -> None:
    """Imports go one way, down the table of ranks; a family may import itself."""
    assert name in set().union(*RANKS), f"{name}: which rank has it?"
    too_high = {other for other in imported(path) if other != name and rank(other) >= rank(name)}
    assert too_high == set()


def test_only_one_module_knows_aiohttps_private_names() -> None:
    """What aiohttp's documentation does not promise is used in one place."""
    users = {
        name
        for name, path in modules()
        if any(
            line in path.read_text(encoding="utf-8")
            for line in ("aiohttp.web_protocol", "aiohttp.http_writer", "_make_handler")
        )
    }
    assert users <= {"protocol", "endings", "tap"}


def test_import_is_lean() -> None:
    """`import aiosvc` brings in nothing beyond its three dependencies and what they need."""
    code = (
        "import sys; import aiohttp.web, prometheus_client, psutil; before = set(sys.modules);"
        "import aiosvc; print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    dependencies = {"aiohttp", "prometheus_client", "psutil"}
    assert set(out) <= {"aiosvc"} | dependencies | sys.stdlib_module_names


def test_import_is_quick() -> None:
    """What takes long to import, and few ever need, is not imported with the package."""
    code = (
        "import sys; import aiohttp.web, prometheus_client, psutil; before = set(sys.modules);"
        "import aiosvc; print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()).isdisjoint({"importlib.metadata", "zipfile", "argparse"})


@pytest.mark.parametrize(
    "module",
    [
        ".".join(("aiosvc", *path.relative_to(PACKAGE).with_suffix("").parts))
        for _, path in modules()
        if path.name not in ("__main__.py", "__init__.py")
    ],
)
def test_each_module_can_be_imported_first(module: str) -> None:
    """No module depends on another one having been imported before it."""
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


FRAMEWORKS = (
    "django", "fastapi", "flask", "hypercorn", "litestar", "quart", "starlette", "uvicorn",
    "werkzeug",
)  # fmt: skip


@pytest.mark.parametrize("module", ["aiosvc", "aiosvc.asgi", "aiosvc.wsgi"])
def test_no_framework_is_imported(module: str) -> None:
    """The adapters import no framework; what they ask, the application has loaded."""
    code = f"import sys, {module}; print(*sorted(m.split('.')[0] for m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()).isdisjoint(FRAMEWORKS)


def test_adapters_work_without_any_framework() -> None:
    """A bare application is measured where no framework can be imported."""
    code = (
        "import sys\n"
        f"for name in {FRAMEWORKS!r}: sys.modules[name] = None\n"
        "import aiosvc.asgi, aiosvc.wsgi\n"
        "from prometheus_client import CollectorRegistry\n"
        "aiosvc.asgi.setup(lambda scope, receive, send: None, registry=CollectorRegistry())\n"
        "aiosvc.wsgi.setup(lambda environ, start: [], registry=CollectorRegistry())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
