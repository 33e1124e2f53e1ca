"""The shipped desired state has the documented services and groups, and its files agree with each other.

The tables here repeat these facts on purpose. The tests against a real engine check that Compose accepts the
files and that the stand-ins start.
"""

import importlib.util
import json
import re
import stat
import tarfile
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

SHIPPED = Path(__file__).resolve().parents[3] / "desired-state"

GROUPS = {
    "kafka": (["zookeeper", "kafka", "schema-registry"], "700MB", {}),
    "storage": (["timescaledb", "minio", "kafka-consumer", "query-api"], "200MB", {"kafka": "on"}),
    "search": (["opensearch", "opensearch-dashboards", "elasticsearch-consumer"], "1500MB", {"kafka": "on"}),
    "alerts": (["alert-engine"], "50MB", {"kafka": "on"}),
    "monitoring": (["prometheus", "grafana", "loki", "promtail", "cadvisor"], "600MB", {}),
    "analytics": (["metabase"], "700MB", {"storage": "on"}),
    "optional": (["kafka-ui"], "200MB", {"kafka": "on"}),
}

# service | image | host ports | depends on (h healthy, s started)
SERVICES = """
zookeeper              | confluentinc/cp-zookeeper:7.5.0 | 2181:2181 |
kafka                  | confluentinc/cp-kafka:7.5.0 | 9092:9092 9101:9101 | zookeeper:s
schema-registry        | confluentinc/cp-schema-registry:7.5.0 | 8081:8081 | kafka:h
timescaledb            | timescale/timescaledb:latest-pg16 | 5432:5432 |
minio                  | minio/minio:latest | 9000:9000 9001:9001 |
kafka-consumer         | built |  | kafka:h schema-registry:h timescaledb:h
query-api              | built | 8002:8000 | timescaledb:h opensearch:h
opensearch             | opensearchproject/opensearch:2.11.0 | 9200:9200 9600:9600 |
opensearch-dashboards  | opensearchproject/opensearch-dashboards:2.11.0 | 5601:5601 | opensearch:h
elasticsearch-consumer | built | 8004:8004 | kafka:h schema-registry:h opensearch:h
alert-engine           | built | 8003:8003 | kafka:h schema-registry:h
prometheus             | prom/prometheus:latest | 9090:9090 |
grafana                | grafana/grafana:latest | 3000:3000 | prometheus:s loki:s
loki                   | grafana/loki:latest | 3100:3100 |
promtail               | grafana/promtail:latest |  | loki:s
cadvisor               | gcr.io/cadvisor/cadvisor:latest | 8082:8080 |
metabase               | metabase/metabase:latest | 3001:3000 | timescaledb:h opensearch:h
kafka-ui               | provectuslabs/kafka-ui:latest | 8080:8080 | kafka:s schema-registry:s
minio-init             | minio/mc:latest |  | minio:h
tempo                  | grafana/tempo:2.3.1 | 3200:3200 4317:4317 4318:4318 |
node-exporter          | prom/node-exporter:latest | 9100:9100 |
postgres-exporter      | prometheuscommunity/postgres-exporter:latest | 9187:9187 | timescaledb:h
kafka-exporter         | danielqsj/kafka-exporter:latest | 9308:9308 | kafka:h
dlq-consumer           | built | 8005:8005 | kafka:h schema-registry:h
metrics-consumer       | built | 8006:8006 | kafka:h schema-registry:h
mlflow                 | alpr-mlflow:v2.9.2 | 5000:5000 | timescaledb:h minio:h
"""
CONDITIONS = {"h": "service_healthy", "s": "service_started"}

# command, interval, timeout, retries, start period
CHECKS = {
    "kafka": ("kafka-broker-api-versions --bootstrap-server localhost:9092", "30s", "10s", 3, None),
    "schema-registry": ("curl -f http://localhost:8081/subjects", "30s", "10s", 3, "10s"),
    "timescaledb": ("pg_isready -U alpr -d alpr_db", "10s", "5s", 5, None),
    "minio": ("curl -f http://localhost:9000/minio/health/live", "30s", "10s", 3, None),
    "query-api": ("curl -f http://localhost:8000/health", "30s", "10s", 3, "10s"),
    "opensearch": ("curl -f http://localhost:9200/_cluster/health || exit 1", "30s", "10s", 5, "60s"),
    "prometheus": ("wget --quiet --tries=1 --spider http://localhost:9090/-/healthy", "30s", "10s", 3, None),
    "grafana": ("wget --quiet --tries=1 --spider http://localhost:3000/api/health", "30s", "10s", 3, None),
    "metabase": ("curl -f http://localhost:3000/api/health", "30s", "10s", 5, "120s"),
    "mlflow": ("curl -f http://localhost:5000/health", "30s", "10s", 3, "30s"),
}

VOLUMES_OF = {
    "zookeeper": 2,
    **dict.fromkeys(["kafka", "timescaledb", "minio", "prometheus", "grafana", "loki", "tempo"], 1),
    **dict.fromkeys(["opensearch", "metabase"], 1),
}


def facts() -> dict[str, tuple[str, list[str], dict[str, str]]]:
    """Return the table above: image, ports and dependencies by service."""
    rows = {}
    for line in SERVICES.strip().splitlines():
        name, image, ports, needs = (cell.strip() for cell in line.split("|"))
        conditions = (need.split(":") for need in needs.split())
        rows[name] = (image, ports.split(), {parent: CONDITIONS[kind] for parent, kind in conditions})
    return rows


def read(name: str) -> Any:
    """Parse a shipped file; keeps tags such as `!reset` as attributes of their nodes."""
    return YAML(typ="rt").load(SHIPPED / name)


STACK, SWITCHES = read("stack.yaml"), read("groups.yaml")
COMPOSE, STANDIN = read("compose.yaml"), read("compose.standin.yaml")
BUILT = [name for name, (image, _, _) in facts().items() if image == "built"]
each_service = pytest.mark.parametrize("name", facts())


def dependencies(service: Any) -> dict[str, str]:
    """Return parents and conditions; the short notation means that the parent has started."""
    declared = service.get("depends_on", {})
    if isinstance(declared, list):
        return dict.fromkeys(declared, "service_started")
    return {parent: needed["condition"] for parent, needed in declared.items()}


def bind_sources(service: Any) -> list[str]:
    """Return the paths of the host or of this directory that a service mounts."""
    sources = (mount.split(":")[0] for mount in service.get("volumes", []))
    return [source for source in sources if source.startswith((".", "/"))]


def tag_of(node: Any) -> str | None:
    return node.tag.value if node is not None and node.tag else None


def standin_module() -> ModuleType:
    """Import the script that makes the image; it is in no package."""
    spec = importlib.util.spec_from_file_location("build_image", SHIPPED / "standin" / "build_image.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- stack.yaml and groups.yaml -----------------------------------------------------------------------------


def test_groups_and_their_order():
    shipped = {
        name: (list(group["services"]), group["memory"], dict(group.get("depends_on", {})))
        for name, group in STACK["groups"].items()
    }
    assert shipped == GROUPS
    assert list(shipped) == list(GROUPS)


def test_every_group_has_a_description():
    assert all(group["description"] for group in STACK["groups"].values())


def test_eighteen_services_are_managed_each_in_one_group():
    managed = [service for group in STACK["groups"].values() for service in group["services"]]
    assert len(managed) == len(set(managed)) == 18


def test_pilot_needs_kafka_and_half_a_gigabyte():
    assert STACK["pilot"] == {"groups": ["kafka"], "memory": "500MB"}


def test_the_whole_stack_needs_four_and_a_half_gigabytes():
    estimates = [STACK["pilot"]["memory"], *(group["memory"] for group in STACK["groups"].values())]
    assert sum(int(estimate.removesuffix("MB")) for estimate in estimates) == 4450


def test_only_kafka_is_on_and_every_group_is_listed():
    assert SWITCHES["groups"] == {name: "on" if name == "kafka" else "off" for name in GROUPS}


def test_stack_and_compose_file_name_the_same_project():
    assert STACK["name"] == COMPOSE["name"] == "alpr"
    assert STACK["compose"] == ["compose.yaml"]


# --- compose.yaml -------------------------------------------------------------------------------------------


def test_compose_file_has_exactly_the_expected_services():
    assert set(COMPOSE["services"]) == set(facts())
    assert set(COMPOSE["services"]) > {service for services, _, _ in GROUPS.values() for service in services}


@each_service
def test_image_ports_and_dependencies(name):
    service = COMPOSE["services"][name]
    image, ports, parents = facts()[name]
    assert service["image"] == (f"alpr/{name}:latest" if name in BUILT else image)
    assert list(service.get("ports", [])) == ports
    assert dependencies(service) == parents


@each_service
def test_health_check(name):
    check = COMPOSE["services"][name].get("healthcheck")
    shipped = check and (
        " ".join(check["test"][1:]),
        *(check.get(key) for key in ("interval", "timeout", "retries", "start_period")),
    )
    assert shipped == CHECKS.get(name)


@each_service
def test_names_network_and_restart_policy(name):
    service = COMPOSE["services"][name]
    assert service["container_name"] == f"alpr-{name}"
    assert service["networks"] == ["alpr-network"]
    assert service["restart"] == ("no" if name == "minio-init" else "unless-stopped")


def test_ports_are_unique_and_not_the_daemons():
    ports = [mapping.split(":")[0] for _, mappings, _ in facts().values() for mapping in mappings]
    assert len(ports) == len(set(ports))
    assert not {"8000", "8001"} & set(ports)


def test_only_opensearch_dashboards_has_a_profile():
    profiles = {name: service.get("profiles") for name, service in COMPOSE["services"].items()}
    assert profiles.pop("opensearch-dashboards") == ["analytics"]
    assert not any(profiles.values())


def test_network_has_no_project_prefix():
    assert COMPOSE["networks"] == {"alpr-network": {"name": "alpr-network", "driver": "bridge"}}


def test_data_is_in_named_volumes():
    used = {
        name: [mount.split(":")[0] for mount in service.get("volumes", []) if mount[0] not in "./"]
        for name, service in COMPOSE["services"].items()
    }
    assert {name: len(volumes) for name, volumes in used.items() if volumes} == VOLUMES_OF
    assert {volume for volumes in used.values() for volume in volumes} == set(COMPOSE["volumes"])


def test_single_files_are_mounted_as_files_and_folders_as_folders():
    sources = [source for service in COMPOSE["services"].values() for source in bind_sources(service)]
    local = [source for source in sources if source.startswith(".")]
    files = {Path(source).name for source in local if (SHIPPED / source).is_file()}
    folders = {source for source in local if (SHIPPED / source).is_dir()}
    assert files == {
        *("prometheus.yml", "loki-config.yaml", "promtail-config.yaml", "tempo-config.yaml"),
        *("alert_rules.yaml", "010-schema.sql", "020-mlflow.sql", "service-manager-alerts.yml"),
    }
    assert folders == {"./grafana/provisioning", "./grafana/dashboards", "./logs"}
    assert len(files) + len(folders) == len(local)


def test_cadvisor_and_promtail_mount_host_paths():
    cadvisor, promtail = COMPOSE["services"]["cadvisor"], COMPOSE["services"]["promtail"]
    assert cadvisor["privileged"] is True
    assert bind_sources(cadvisor) == ["/", "/var/run", "/sys", "/var/lib/docker"]
    assert bind_sources(promtail)[-2:] == ["/var/run/docker.sock", "/var/lib/docker/containers"]
    mounts = [*cadvisor["volumes"], *promtail["volumes"]]
    assert all(mount.endswith(":ro") for mount in mounts)


def test_env_files_exist_and_have_only_example_passwords():
    named = {path for service in COMPOSE["services"].values() for path in service.get("env_file", [])}
    assert named == {f"env/{path.name}" for path in (SHIPPED / "env").iterdir()}
    for path in named:
        assert set(re.findall(r"PASSWORD=(.*)", (SHIPPED / path).read_text())) == {"example-only"}


@pytest.mark.parametrize("name", BUILT)
def test_built_service_has_a_program_and_a_base_image_argument(name):
    build = COMPOSE["services"][name]["build"]
    context = SHIPPED / build["context"]
    assert build["args"] == {"SERVICE": name}
    assert f'run("{name}")' in (context / name / "main.py").read_text()
    assert (context / "Dockerfile").read_text().count("${BASE}") == 1


def test_prometheus_scrapes_the_daemon_through_the_gateway():
    jobs = {job["job_name"]: job for job in read("config/prometheus.yml")["scrape_configs"]}
    daemon = jobs["service-manager"]
    assert daemon["static_configs"] == [{"targets": ["host.docker.internal:8001"]}]
    assert daemon["metrics_path"] == "/metrics"
    assert COMPOSE["services"]["prometheus"]["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_mounted_configuration_parses():
    files = [*SHIPPED.glob("config/*.y*ml"), *SHIPPED.glob("grafana/**/*.yaml")]
    assert len(files) == 8
    assert all(YAML(typ="safe").load(path) for path in files)
    for name in ("alpr-stack", "service-manager"):
        assert json.loads((SHIPPED / "grafana" / "dashboards" / f"{name}.json").read_text())["panels"]


# --- compose.standin.yaml -----------------------------------------------------------------------------------


def test_the_override_covers_every_service():
    assert set(STANDIN["services"]) == set(COMPOSE["services"])


@each_service
def test_stand_in_publishes_no_port(name):
    ports = STANDIN["services"][name].get("ports")
    assert tag_of(ports) == ("!reset" if "ports" in COMPOSE["services"][name] else None)
    assert not ports


@each_service
def test_stand_in_runs_or_is_built_from_the_stand_in_image(name):
    override = STANDIN["services"][name]
    if name in BUILT:
        assert "image" not in override
        assert override["build"] == {"args": {"BASE": standin_module().TAG}}
    else:
        assert override["image"] == standin_module().TAG
        assert override["pull_policy"] == "never"


@each_service
def test_stand_in_keeps_name_dependencies_checks_and_network(name):
    kept = "container_name depends_on healthcheck networks profiles restart stop_grace_period"
    assert not set(kept.split()) & set(STANDIN["services"][name])


@each_service
def test_stand_in_has_no_access_to_the_host(name):
    real, override = COMPOSE["services"][name], STANDIN["services"][name]
    if any(source.startswith("/") for source in bind_sources(real)):
        assert tag_of(override["volumes"]) in ("!reset", "!override")
        assert not any(source.startswith("/") for source in bind_sources(override))
    if "privileged" in real:
        assert override["privileged"] is False
    for key in ("pid", "extra_hosts", "ulimits"):
        assert tag_of(override.get(key)) == ("!reset" if key in real else None)


@each_service
def test_stand_in_uses_only_documented_variables(name):
    entry = (SHIPPED / "standin" / "entry.sh").read_text()
    documented = set(re.findall(r"^#   (STANDIN_\w+)=", entry, re.MULTILINE))
    environment = STANDIN["services"][name]["environment"]
    assert set(environment) <= documented
    assert environment.get("STANDIN_READY_AFTER", 0) <= 2
    assert environment.get("STANDIN_STOP_AFTER", 0) <= 0.5


# --- the stand-in image -------------------------------------------------------------------------------------


def test_image_has_every_client_that_a_health_check_calls():
    clients = {command.split()[0] for command, *_ in CHECKS.values()}
    assert clients == set(standin_module().CLIENTS)


def test_no_check_calls_wget_through_the_shell():
    """Busybox's shell ignores PATH for wget and runs its own, which uses the network."""
    for service in COMPOSE["services"].values():
        kind, command, *_ = service.get("healthcheck", {"test": ["CMD", "true"]})["test"]
        assert kind == "CMD" or not command.startswith("wget")


def test_same_content_makes_the_same_image():
    module = standin_module()
    layer = module.make_layer(b"busybox")
    assert layer == module.make_layer(b"busybox")
    first, again = (module.make_archive(layer, module.make_config(layer, "amd64")) for _ in range(2))
    assert first == again
    other = module.make_config(module.make_layer(b"another"), "amd64")
    assert other["config"]["Labels"] != module.make_config(layer, "amd64")["config"]["Labels"]


def test_scripts_are_executable_with_any_mode_in_the_checkout():
    with tarfile.open(fileobj=BytesIO(standin_module().make_layer(b"busybox"))) as tar:
        for name in ("bin/busybox", "standin/entry", "standin/check"):
            assert tar.getmember(name).mode & stat.S_IXOTH
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("usr/local/bin/curl").linkname == "/standin/check"


def an_executable(machine: int, *program_headers: int) -> bytes:
    """Return the beginning of a 64-bit little-endian ELF file."""
    identity = b"\x7fELF\x02\x01".ljust(16, b"\0")
    header = identity + bytes([2, 0, machine, 0]) + bytes(12) + (64).to_bytes(8, "little") + bytes(14)
    header += (56).to_bytes(2, "little") + len(program_headers).to_bytes(2, "little") + bytes(6)
    return header + b"".join(kind.to_bytes(4, "little").ljust(56, b"\0") for kind in program_headers)


@pytest.mark.parametrize(
    ("binary", "architecture"),
    [
        (an_executable(62, 1, 1), "amd64"),
        (an_executable(183, 1), "arm64"),
        (an_executable(62, 1, 3), None),
        (b"#!/bin/sh\n", None),
    ],
    ids=["amd64", "arm64", "needs shared libraries", "a script"],
)
def test_only_a_static_linux_binary_is_accepted_as_busybox(binary, architecture):
    assert standin_module().static_architecture(binary) == architecture
