"""deploy/kubernetes: valid for several versions of Kubernetes, and of one piece."""

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
from aiohttp.test_utils import TestServer
from processes import Prometheus
from replicas import exposition

from aiosvc.config import ServeOptions
from aiosvc.demo.service import DemoOptions
from deployment.manifests import DEPLOY, load, load_all

BUILT_IN = ("deployment", "service", "networkpolicy")
(DEPLOYMENT,) = load_all("kubernetes/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def port(name: str) -> int:
    """Return the number of a port of the container."""
    (found,) = (p["containerPort"] for p in CONTAINER["ports"] if p["name"] == name)
    assert isinstance(found, int)
    return found


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Say whether labels are selected."""
    return selector.items() <= labels.items()


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_manifests_follow_their_schemas(name: str, version: str) -> None:
    """Each is what its kind allows, and has no field that the kind does not know."""
    for manifest in load_all(f"kubernetes/{name}.yaml"):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("podmonitor", "monitoring.coreos.com/v1"),
        ("servicemonitor", "monitoring.coreos.com/v1"),
        ("scaledobject", "keda.sh/v1alpha1"),
    ],
)
def test_operators_manifests_are_theirs(name: str, version: str) -> None:
    """What other programs define is of the version that they have."""
    (manifest,) = load_all(f"kubernetes/{name}.yaml")
    assert (manifest["apiVersion"], manifest["kind"].lower()) == (version, name)


def test_every_manifest_is_known_to_the_kustomization() -> None:
    """Each file is in kustomization.yaml, applied or as one to choose."""
    text = (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        assert path.name == "kustomization.yaml" or f"- {path.name}\n" in text
    assert load("kubernetes/kustomization.yaml")["resources"] == [f"{n}.yaml" for n in BUILT_IN]


def test_probes_ask_what_they_are_for() -> None:
    """Liveness asks the thread that can tell of a blocked loop; readiness the way of the traffic."""
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness")}
    probes["readiness"] = CONTAINER["readinessProbe"]["httpGet"]
    assert probes == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "metrics"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert f"--admin-port={port('metrics')}" in CONTAINER["args"]
    assert ServeOptions().port == port("http")


def test_a_pod_has_time_to_stop() -> None:
    """It outlasts a scrape before the signal, and then its requests and its queue."""
    command = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    asleep = int(command[1])
    endpoint = load("kubernetes/podmonitor.yaml")["spec"]["podMetricsEndpoints"][0]
    assert asleep > int(endpoint["interval"].removesuffix("s"))
    needed = asleep + ServeOptions().shutdown_timeout + DemoOptions().drain_timeout
    assert POD["terminationGracePeriodSeconds"] > needed


def test_a_pod_may_do_little() -> None:
    """It is not root, writes nowhere but in /tmp, and has bounds; it holds no token."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] > 0
    assert POD["automountServiceAccountToken"] is False
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} == set(CONTAINER["resources"]["limits"])
    assert [mount["mountPath"] for mount in CONTAINER["volumeMounts"]] == ["/tmp"]
    assert ":" in CONTAINER["image"]
    assert not CONTAINER["image"].endswith(":latest")


def test_environment_of_services_is_not_taken_for_options() -> None:
    """Kubernetes is told not to make variables of Services, which may be called aiosvc."""
    assert POD["enableServiceLinks"] is False


def test_pods_are_selected_by_all() -> None:
    """Deployment, Services, policy and monitor mean the same pods, and ports that these have."""
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    ports = {p["name"] for p in CONTAINER["ports"]}
    assert selects(DEPLOYMENT["spec"]["selector"]["matchLabels"], labels)
    for service in load_all("kubernetes/service.yaml"):
        assert selects(service["spec"]["selector"], labels)
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    policy = load("kubernetes/networkpolicy.yaml")["spec"]
    assert selects(policy["podSelector"]["matchLabels"], labels)
    monitor = load("kubernetes/podmonitor.yaml")["spec"]
    assert selects(monitor["selector"]["matchLabels"], labels)
    assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= ports


def test_the_service_monitor_means_one_service() -> None:
    """It selects the Service for scrapes and not the one for traffic."""
    monitor = load("kubernetes/servicemonitor.yaml")["spec"]
    found = [
        service
        for service in load_all("kubernetes/service.yaml")
        if selects(monitor["selector"]["matchLabels"], service["metadata"]["labels"])
    ]
    assert [service["metadata"]["name"] for service in found] == ["shop-metrics"]
    assert {e["port"] for e in monitor["endpoints"]} <= {
        p["name"] for p in found[0]["spec"]["ports"]
    }


def test_the_admin_port_is_prometheus_alone() -> None:
    """Everybody may reach the traffic's port; the admin port has a rule that says who."""
    rules = load("kubernetes/networkpolicy.yaml")["spec"]["ingress"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in rules}
    assert by_port["http"] is None
    (only,) = by_port["metrics"]
    assert set(only) == {"namespaceSelector", "podSelector"}


def backlog(scope: str, depth: int, in_flight: int | None) -> str:
    """Return what a replica exports of the queue."""
    text = (
        f'queue_info{{queue_name="email",backend="x",scope="{scope}"}} 1\n'
        f'queue_depth{{queue_name="email"}} {depth}\n'
    )
    return (
        text if in_flight is None else f'{text}queue_in_flight{{queue_name="email"}} {in_flight}\n'
    )


@pytest.mark.parametrize(
    ("scope", "replicas", "expected"),
    [
        ("process", [(3, 2), (4, 1)], 10),
        ("shared", [(70, 8), (72, 8)], 80),
        ("shared", [(70, None), (72, None)], 72),
    ],
)
async def test_replicas_follow_the_backlog(
    scope: str,
    replicas: list[tuple[int, int | None]],
    expected: float,
    tmp_path: Any,
) -> None:
    """The autoscaler's query is ready plus in flight, once for a shared queue, where known."""
    (trigger,) = load("kubernetes/scaledobject.yaml")["spec"]["triggers"]
    query = trigger["metadata"]["query"].replace('job="shop"', 'job="aiosvc"')
    first = TestServer(exposition(backlog(scope, *replicas[0])))
    second = TestServer(exposition(backlog(scope, *replicas[1])))
    async with first, second:
        assert first.port is not None
        assert second.port is not None
        async with Prometheus(
            tmp_path, target_port=first.port, more_ports=[second.port]
        ) as prometheus:
            await prometheus.wait_for_value("sum(up)", lambda up: up == 2)
            assert await prometheus.value(query) == expected


def test_the_autoscaler_means_the_deployment() -> None:
    """It scales this Deployment, within bounds, and a query without an answer does not scale to 0."""
    spec = load("kubernetes/scaledobject.yaml")["spec"]
    assert spec["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert 0 < spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
