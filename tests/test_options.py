"""From flags, variables and files to the option dataclasses."""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aiosvc.cli import KINDS
from aiosvc.config import ServeOptions, Settings
from aiosvc.errors import ConfigError
from aiosvc.options import add_flags, read_options

FIELDS = [
    pytest.param(kind, each, id=each.name) for kind in KINDS for each in dataclasses.fields(kind)
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Every:
    """One option of each type, not validated any further."""

    text: str = field(default="a", metadata={"help": "100% text"})
    whole: int = field(default=1, metadata={"help": "a whole number"})
    number: float = field(default=1.5, metadata={"help": "a number"})
    switch: bool = field(default=False, metadata={"help": "a switch"})
    numbers: tuple[float, ...] = field(default=(), metadata={"help": "some numbers"})


def parser_of(*kinds: type) -> argparse.ArgumentParser:
    """Return a parser with the flags of these dataclasses."""
    parser = argparse.ArgumentParser(prog="test")
    add_flags(parser, *kinds)
    return parser


def read(
    *flags: str,
    environment: Mapping[str, str] | None = None,
    kinds: tuple[type, ...] = (Every,),
    every: tuple[type, ...] | None = None,
) -> Any:
    """Return the first of *kinds* as it is read from these flags and this environment."""
    arguments = parser_of(*kinds).parse_args(flags)
    return read_options(arguments, kinds, every or kinds, environment or {})[0]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty directory the current one and return it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def options_file(here: Path) -> Path:
    """Return the path of a file for --config."""
    return here / "options.toml"


@pytest.mark.parametrize(("kind", "option"), FIELDS)
def test_every_field_is_a_flag(kind: type, option: dataclasses.Field[Any]) -> None:
    """Each field has a flag of its name, whose help is the field's, with the default."""
    shown = " ".join(parser_of(kind).format_help().split())
    assert f"--{option.name.replace('_', '-')} " in shown
    assert option.metadata["help"] in shown
    if isinstance(option.default, str | int | float):
        assert f"{option.metadata['help']} (default: {option.default})" in shown
    if "alias" in option.metadata:
        assert f" --{option.metadata['alias']} " in shown


#: Options whose default says nothing of how they are written: as a flag, and in a file.
WRITTEN = {
    "exclude": ("/a,/b/*", '["/a", "/b/*"]'),
    "labels": ("region=eu,zone=b", '{region = "eu", zone = "b"}'),
    "task_groups": ("consumers=consume_*|drain", '{consumers = "consume_*|drain"}'),
    "auth_exempt": ("/livez,/readyz", '["/livez", "/readyz"]'),
    "admin_port": ("9100", "9100"),
    "latency_slo": ("0.25:99,1:99.9", '["0.25:99", "1:99.9"]'),
    "group_by": ("namespace,job", '["namespace", "job"]'),
    "queue_ages": ("email=30,reports=3600", '{email = "30", reports = "3600"}'),
    "job_ages": ("reports=7200", '{reports = "7200"}'),
    "alert_labels": ("team=shop", '{team = "shop"}'),
    "kubernetes_labels": ("release=prometheus", '{release = "prometheus"}'),
}


@pytest.mark.parametrize(("kind", "option"), FIELDS)
def test_every_field_can_be_set_everywhere(
    kind: type, option: dataclasses.Field[Any], here: Path
) -> None:
    """The default of each field, written out, is accepted as flag, variable and key of a file."""
    if option.name in WRITTEN:
        text, toml = WRITTEN[option.name]
    elif option.default is None:
        text, toml = "a text", '"a text"'
    elif option.default == ():
        text, toml = "0.1,0.5", "[0.1, 0.5]"
    else:
        text = str(option.default)
        toml = repr(text) if isinstance(option.default, str) else text.lower()
    flag = f"--{option.name.replace('_', '-')}={text}"
    by_flag = read(flag, kinds=(kind,))
    by_variable = read(environment={f"AIOSVC_{option.name.upper()}": text}, kinds=(kind,))
    (here / "options.toml").write_text(f"{option.name} = {toml}\n")
    by_file = read("--config=options.toml", kinds=(kind,))
    assert by_flag == by_variable == by_file
    if isinstance(option.default, str | int | float):
        assert by_flag == kind()


def test_no_two_options_share_a_name() -> None:
    """A name means the same option in every command, as one file serves all of them."""
    names = [each.name for kind in KINDS for each in dataclasses.fields(kind)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    "sources",
    [s for n in range(5) for s in itertools.combinations(("flag", "env", "file", "project"), n)],
)
def test_precedence(sources: tuple[str, ...], here: Path) -> None:
    """A flag wins over a variable, that over the file of --config, and a default is the last."""
    flags, environment = [], {}
    if "project" in sources:
        (here / "pyproject.toml").write_text("[tool.aiosvc]\nwhole = 40\n")
    if "file" in sources:
        (here / "options.toml").write_text("whole = 30\n")
        flags.append("--config=options.toml")
    if "env" in sources:
        environment["AIOSVC_WHOLE"] = "20"
    if "flag" in sources:
        flags.append("--whole=10")
    values = {"flag": 10, "env": 20, "file": 30, "project": 40}
    expected = next((values[source] for source in values if source in sources), 1)
    assert read(*flags, environment=environment).whole == expected


def test_sources_are_mixed(options_file: Path) -> None:
    """Options of one dataclass may come from different places."""
    options_file.write_text("text = 'from the file'\nwhole = 3\n")
    found = read(
        "--config", str(options_file), "--number", "2.5", environment={"AIOSVC_WHOLE": "7"}
    )
    assert found == Every(text="from the file", whole=7, number=2.5)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "10", "10"),
        ("text", "true", "true"),
        ("whole", "12", 12),
        ("whole", "-3", -3),
        ("number", "2", 2.0),
        ("number", "1e-3", 0.001),
        ("switch", "true", True),
        ("switch", "Yes", True),
        ("switch", "1", True),
        ("switch", "FALSE", False),
        ("switch", "no", False),
        ("switch", "0", False),
        ("numbers", "0.1,1", (0.1, 1.0)),
        ("numbers", " 0.1 , 1 , ", (0.1, 1.0)),
        ("numbers", ",", ()),
    ],
)
def test_text_becomes_the_type_of_the_field(name: str, text: str, value: object) -> None:
    """A flag's and a variable's text become the field's type."""
    for found in (read(f"--{name}={text}"), read(environment={f"AIOSVC_{name.upper()}": text})):
        assert getattr(found, name) == value
        assert type(getattr(found, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("whole", "ten", "a whole number"),
        ("whole", "1.5", "a whole number"),
        ("number", "fast", "a number"),
        ("switch", "maybe", "true or false"),
        ("numbers", "0.1;0.5", "numbers with commas between"),
    ],
)
def test_text_that_does_not_fit(name: str, text: str, expected: str, options_file: Path) -> None:
    """A text that is not of the field's type is refused by the name under which it was given."""
    options_file.write_text(f"{name} = {text!r}\n")
    variable = f"AIOSVC_{name.upper()}"
    for origin, flags, environment in (
        (f"--{name}", [f"--{name}={text}"], {}),
        (variable, [], {variable: text}),
        (f"{name} in the file", [f"--config={options_file}"], {}),
    ):
        with pytest.raises(ConfigError) as caught:
            read(*flags, environment=environment)
        assert str(caught.value) == f"{origin}: {text!r} given; expected {expected}"


def test_types_of_the_file(options_file: Path) -> None:
    """TOML's own types are taken as they are, and an array becomes a tuple."""
    options_file.write_text("whole = 3\nnumber = 0.5\nswitch = true\nnumbers = [0.1, 1]\n")
    assert read(f"--config={options_file}") == Every(
        whole=3, number=0.5, switch=True, numbers=(0.1, 1)
    )


@pytest.mark.parametrize(
    "line", ["port = 'x'", "port = 1.5", "port = true", "port = []", "port = {}"]
)
def test_wrong_type_in_the_file(line: str, options_file: Path) -> None:
    """A value of the wrong type in a file is a ConfigError that names the option."""
    options_file.write_text(line)
    with pytest.raises(ConfigError, match=r"^port.*expected a whole number"):
        read(f"--config={options_file}", kinds=(ServeOptions,))


def test_kubernetes_makes_a_variable_of_the_same_name() -> None:
    """For a service called aiosvc, Kubernetes sets AIOSVC_PORT to an address, which is no port."""
    environment = {
        "AIOSVC_PORT": "tcp://10.96.0.12:8000",
        "AIOSVC_PORT_8000_TCP": "tcp://10.96.0.12:8000",
        "AIOSVC_PORT_8000_TCP_ADDR": "10.96.0.12",
        "AIOSVC_PORT_8000_TCP_PORT": "8000",
        "AIOSVC_PORT_8000_TCP_PROTO": "tcp",
        "AIOSVC_SERVICE_HOST": "10.96.0.12",
        "AIOSVC_SERVICE_PORT": "8000",
    }
    kinds = (ServeOptions,)
    assert read(environment=environment, kinds=kinds, every=KINDS) == ServeOptions()
    assert read("--port=9000", environment=environment, kinds=kinds, every=KINDS).port == 9000


def test_empty_variable_is_none() -> None:
    """A variable that is set to nothing is as good as one that is not set."""
    assert read(environment={"AIOSVC_WHOLE": "", "AIOSVC_TEXT": ""}) == Every()


def test_real_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment of the caller's, the variables of the process are read."""
    monkeypatch.setenv("AIOSVC_WHOLE", "9")
    assert read_options(parser_of(Every).parse_args([]), (Every,), (Every,))[0].whole == 9


def test_unknown_key(options_file: Path) -> None:
    """A key that is no option is refused, with the likely one."""
    options_file.write_text("prot = 8001\n")
    with pytest.raises(ConfigError) as caught:
        read(f"--config={options_file}", kinds=(ServeOptions,))
    assert str(caught.value) == ("prot in the file: there is no such option; did you mean 'port'?")


def test_key_of_another_command(options_file: Path) -> None:
    """One file serves all commands: a key that only another command uses is no mistake."""
    options_file.write_text("port = 8001\nworkers = 7\npath = '/m'\n")
    flags = (f"--config={options_file}",)
    assert read(*flags, kinds=(ServeOptions,), every=KINDS) == ServeOptions(port=8001)
    assert read(*flags, kinds=(Settings,), every=KINDS) == Settings(path="/m")


def test_variable_of_another_command() -> None:
    """A variable that only another command uses is no mistake either, whatever it holds."""
    found = read(environment={"AIOSVC_WORKERS": "x"}, kinds=(ServeOptions,), every=KINDS)
    assert found == ServeOptions()


def test_missing_file() -> None:
    """A file that was asked for and is not there is a ConfigError with its name."""
    with pytest.raises(ConfigError, match=r"^--config: nowhere\.toml: No such file or directory$"):
        read("--config=nowhere.toml")


def test_directory_as_file(here: Path) -> None:
    """A directory is no options file."""
    with pytest.raises(ConfigError, match=r"^--config: .*: Is a directory$"):
        read(f"--config={here}")


@pytest.mark.parametrize("content", [b"port = ", b"port", b"port = 1\nport = 2", b"text = '\xff'"])
def test_broken_file(content: bytes, options_file: Path) -> None:
    """A file that is no TOML, or no UTF-8, is a ConfigError that says where it breaks."""
    options_file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^--config: .*options\.toml: not TOML: .+") as caught:
        read(f"--config={options_file}")
    assert "\n" not in str(caught.value)


def test_project_file(here: Path) -> None:
    """Without --config, [tool.aiosvc] of the pyproject.toml beside is read, other tables are not."""
    (here / "pyproject.toml").write_text("[tool.other]\nwhole = 1\n[tool.aiosvc]\nwhole = 5\n")
    assert read().whole == 5


def test_unknown_key_in_the_project_file(here: Path) -> None:
    """A mistake in [tool.aiosvc] is ours to complain about."""
    (here / "pyproject.toml").write_text("[tool.aiosvc]\nhole = 5\n")
    with pytest.raises(ConfigError, match=r"hole in the file: .* did you mean 'whole'"):
        read()


@pytest.mark.parametrize("content", ["", "[project]\nname = 'x'\n", "[tool.other]\n", "broken ="])
def test_project_file_of_others(here: Path, content: str) -> None:
    """A pyproject.toml without our table, or a broken one, leaves the defaults."""
    (here / "pyproject.toml").write_text(content)
    assert read() == Every()


@pytest.mark.parametrize("content", ["tool = 3\n", "[tool]\naiosvc = 3\n", "[[tool.aiosvc]]\n"])
def test_project_file_without_tables(here: Path, content: str) -> None:
    """Where the project file has something else in the place of a table, it is no crash."""
    (here / "pyproject.toml").write_text(content)
    try:
        assert read() == Every()
    except ConfigError as error:
        assert "tool.aiosvc" in str(error)  # noqa: PT017 - to complain is as good as to ignore
