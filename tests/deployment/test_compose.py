"""deploy/compose.yaml: valid, closed to the outside, and with everything that it mounts."""

import re
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from aiosvc.config import ServeOptions
from aiosvc.demo.service import DemoOptions
from deployment.manifests import DEPLOY, load

SERVICES: dict[str, dict[str, Any]] = load("compose.yaml")["services"]
BUILT = "app"

each = pytest.mark.parametrize("name", SERVICES)


def sources(service: dict[str, Any]) -> list[str]:
    """Return what a service mounts: volumes' names, and paths from deploy/."""
    return [volume.split(":")[0] for volume in service.get("volumes", [])]


def test_file_follows_the_specification() -> None:
    """It is what the Compose specification allows, in every key."""
    whole = load("compose.yaml")
    parsed = PyCompose.from_yaml(yaml.safe_dump(whole))
    assert set(parsed.service_names()) == {"app", "prometheus", "alertmanager", "grafana"}
    whole["services"]["app"]["porst"] = []  # the parser is one that looks
    with pytest.raises(ValueError, match="porst"):
        PyCompose.from_yaml(yaml.safe_dump(whole))


@each
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    """What is published is bound to the loopback address; the metrics' own port is not published."""
    for port in SERVICES[name]["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
        assert not port.endswith(":9100")


@each
def test_versions_are_pinned(name: str) -> None:
    """Every image that is pulled has a full version as its tag."""
    image = SERVICES[name]["image"]
    if name == BUILT:
        assert SERVICES[name]["build"]["dockerfile"] == "deploy/Dockerfile"
    else:
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", image), image


@each
def test_health_is_checked(name: str) -> None:
    """Each container says whether it works; the app's check is its image's own."""
    if name == BUILT:
        assert "HEALTHCHECK" in (DEPLOY / "Dockerfile").read_text()
        return
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    inside = SERVICES[name]["ports"][0].rpartition(":")[2]
    assert check["test"][-1].startswith(f"http://127.0.0.1:{inside}/")


@each
def test_containers_may_do_little(name: str) -> None:
    """No container has capabilities, gains privileges or fills the disk with logs."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["logging"]["options"]["max-size"]
    assert service.get("read_only") or name == "grafana"  # Grafana installs plugins beside itself


def test_there_is_no_default_password() -> None:
    """Compose refuses to start without the password, and no file has one."""
    environment = SERVICES["grafana"]["environment"]
    password = environment["GF_SECURITY_ADMIN_PASSWORD"]
    assert re.fullmatch(r"\$\{GRAFANA_ADMIN_PASSWORD:\?[^}]+\}", password)
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


@each
def test_what_is_mounted_is_there(name: str) -> None:
    """Configuration comes from this repository, read-only; data is in named volumes."""
    for volume in SERVICES[name].get("volumes", []):
        source, *rest = volume.split(":")
        if source.startswith("."):
            assert rest[-1] == "ro", volume
            # The runbooks are written with the rules.
            assert (DEPLOY / source).exists() or source.endswith("/runbooks"), volume
        else:
            assert source in load("compose.yaml")["volumes"]


def test_every_volume_is_used() -> None:
    """No volume is declared that nothing keeps its data in."""
    used = {source for service in SERVICES.values() for source in sources(service)}
    assert set(load("compose.yaml")["volumes"]) == {s for s in used if not s.startswith(".")}


def test_service_has_time_to_stop() -> None:
    """Docker waits longer than the service takes for its requests and its queue."""
    seconds = int(SERVICES["app"]["stop_grace_period"].removesuffix("s"))
    assert seconds > ServeOptions().shutdown_timeout + DemoOptions().drain_timeout


def test_grafana_knows_its_data_and_dashboards() -> None:
    """Its data source is the Prometheus beside it, and it reads the dashboards that are mounted."""
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"] is True
    (provider,) = load("grafana/provisioning/dashboards/aiosvc.yml")["providers"]
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    folder = provider["options"]["path"]
    assert sum(path.startswith(f"{folder}/") and path.endswith(".json") for path in mounted) == 3
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounted
    assert "/usr/share/grafana/public/runbooks" in mounted


def test_rates_are_worked_out_from_the_real_interval() -> None:
    """Grafana is told the interval that Prometheus scrapes with."""
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    scraped = load("prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


def test_prometheus_finds_the_containers() -> None:
    """Each address in its configuration is a container's name and a port that it listens on."""
    config = load("prometheus/prometheus.yml")
    found = {
        target
        for job in config["scrape_configs"]
        for group in job.get("static_configs", [])
        for target in group["targets"]
    }
    assert found == {"app:9100", "localhost:9090", "alertmanager:9093"}
    assert "9100" in SERVICES["app"]["command"]
    (alertmanagers,) = config["alerting"]["alertmanagers"]
    assert alertmanagers["static_configs"] == [{"targets": ["alertmanager:9093"]}]
