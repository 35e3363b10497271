"""The files in deploy/: valid by the schemas of those who read them, and in agreement with the code and each other.

What no test here can do, build the image and start a cluster, is said in deploy/README.md.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import typer
import yaml
from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from ghl_pipeline.cli.app import app
from ghl_pipeline.orchestration.celery_launcher import PresenceCheckedCeleryLauncher
from ghl_pipeline.orchestration.storage import PooledPostgresStorage
from ghl_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).parent / "schemas"
MANIFESTS = sorted(path for path in (DEPLOY / "helm").glob("*.yaml") if path.name != "values.yaml")
COMPOSE_FILES = (DEPLOY / "compose.yaml", DEPLOY / "compose.worker.yaml")
VERSION = "0.1.0"
# Variables of others that the files set.
FOREIGN = {
    "DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "GRPC_VERBOSITY",
    "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "UV_COMPILE_BYTECODE", "UV_LINK_MODE", "UV_PYTHON_DOWNLOADS",
    # workspace.yaml reads them, through Dagster
    "GHL_PIPELINE_CODE_HOST", "GHL_PIPELINE_CODE_PORT",
    # prepare-database.sh reads them
    "WORKER_PASSWORD", "RECEIVER_PASSWORD",
}  # fmt: skip
EXAMPLES = sorted(DEPLOY.glob("env*example"))
PREPARE = ["sh", "/app/prepare-database.sh"]
# Whose environment names what: the owner's login, the receiver's, the one of all that work.
OWNER, RECEIVER, WORKER = "owner", "receiver", "pipeline"
ONE_MACHINE = ("run_launcher", "compute_logs", "local_artifact_storage")

Yaml = dict[str, Any]


def documents(path: Path) -> list[Yaml]:
    return [cast("Yaml", document) for document in yaml.safe_load_all(path.read_text()) if document]


def only(path: Path) -> Yaml:
    (document,) = documents(path)
    return document


def containers() -> Iterator[tuple[str, Yaml]]:
    """The containers of our own manifests, and their pods' specs."""
    for path in MANIFESTS:
        for document in documents(path):
            template = document.get("spec", {}).get("template") if isinstance(document.get("spec"), dict) else None
            if template:
                for container in template["spec"]["containers"]:
                    yield f"{path.name}: {container['name']}", {**container, "pod": template["spec"]}


def pipeline_services() -> Iterator[tuple[str, Yaml]]:
    for path in COMPOSE_FILES:
        for name, service in only(path)["services"].items():
            if str(service["image"]).startswith("ghl-pipeline"):
                yield f"{path.name}: {name}", service


def of_all(found: Iterator[tuple[str, Yaml]]) -> pytest.MarkDecorator:
    cases = list(found)
    return pytest.mark.parametrize("it", [case for _, case in cases], ids=[name for name, _ in cases])


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_files_follow_the_compose_specification(path: Path) -> None:
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(only(path), schema, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize("wrong", [{"healthchek": {}}, {"depends_on": {"code": {"condition": "ready"}}}])
def test_the_compose_schema_finds_mistakes(wrong: Yaml) -> None:
    compose = only(DEPLOY / "compose.yaml")
    compose["services"]["daemon"].update(wrong)
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, schema, cls=jsonschema.Draft7Validator)


def test_the_charts_values_follow_its_schema() -> None:
    schema = json.loads((SCHEMAS / "dagster-chart-values.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(only(DEPLOY / "helm" / "values.yaml"), schema, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("dagsterDaemon", {"enviroment": []}),
        ("dagsterDaemon", {"image": {"tag": 1}}),
        ("runLauncher", {"type": "Celery"}),
    ],
)
def test_the_charts_schema_finds_mistakes(place: str, wrong: Yaml) -> None:
    values = only(DEPLOY / "helm" / "values.yaml")
    values[place].update(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json.loads((SCHEMAS / "dagster-chart-values.json").read_text()))


def commands() -> Iterator[tuple[str, list[str]]]:
    """What containers run, of ours."""
    for name, service in pipeline_services():
        yield name, service["command"]
        test = service.get("healthcheck", {}).get("test", [])
        if test[1:2] == ["ghl-pipeline"]:
            yield f"{name}, health", test[1:]
    for name, container in containers():
        yield name, container["command"]
    for line in re.findall(r"\b(ghl-pipeline .*)$", (DEPLOY / "prepare-database.sh").read_text(), re.MULTILINE):
        yield f"prepare-database.sh: {line}", shlex.split(line)
    documents_of_ours = (DEPLOY / "README.md").read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", documents_of_ours, re.DOTALL | re.MULTILINE):
        for line in re.findall(r"\b(ghl-pipeline (?:[a-z-]+ ).*)$", block, re.MULTILINE):
            yield f"README: {line}", shlex.split(line, comments=True)


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=name) for name, words in commands() if words[0] == "ghl-pipeline"]
)
def test_every_command_is_one_of_the_command_line(words: list[str]) -> None:
    words = [re.sub(r"\$\{[^}]*\}", "example.com", word) for word in words]
    group: Any = typer.main.get_command(app)
    context = group.make_context("ghl-pipeline", words[1:])
    while hasattr(group, "get_command"):
        name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        context = group.make_context(name, list(rest), parent=context)
    assert not context.args


def variables() -> set[str]:
    """Every environment variable that deploy/ names."""
    found: set[str] = set()
    for path in EXAMPLES:
        found |= set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", path.read_text(), re.MULTILINE))
    for _, service in pipeline_services():
        found |= set(service.get("environment", {}))
    found |= set(re.findall(r"^(?:ENV)?\s+([A-Z][A-Z0-9_]+)=", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    found |= set(re.findall(r"^ENV ([A-Z][A-Z0-9_]+)=", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    for path in [*MANIFESTS, DEPLOY / "helm" / "values.yaml", DEPLOY / "workspace.yaml"]:
        for document in documents(path):
            found |= set(_env_names(document))
    return found


def _env_names(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        if node.get("kind") == "ConfigMap":
            yield from (key for key in node["data"] if key.isupper())
        if isinstance(node.get("env"), str):
            yield node["env"]
        for key, value in node.items():
            if key == "env" and isinstance(value, list):
                yield from (entry["name"] for entry in value)
            yield from _env_names(value)
    elif isinstance(node, list):
        for entry in node:
            yield from _env_names(entry)


def test_every_variable_is_a_setting() -> None:
    ours = {field.alias for field in Settings.model_fields.values()}
    found = variables()
    assert {"GHL_PIPELINE_DATABASE_URL", "CELERY_BROKER_URL", "GHL_PIPELINE_HOME", "WEBHOOK_PUBLIC_URL"} <= found
    assert found - ours - FOREIGN == set()


def test_no_secret_stands_in_a_file() -> None:
    """Secrets come from files that are not in git, or by the name of a Kubernetes secret."""
    secret = {
        field.alias for field in Settings.model_fields.values() if field.annotation in {SecretStr, SecretStr | None}
    }
    for path in [*COMPOSE_FILES, *MANIFESTS, DEPLOY / "helm" / "values.yaml"]:
        for document in documents(path):
            assert not set(_env_names(document)) & secret, path.name
    assert len(EXAMPLES) == 3
    for line in "\n".join(path.read_text() for path in EXAMPLES).splitlines():
        name, _, value = line.lstrip("# ").partition("=")
        if name in secret or name.endswith("_PASSWORD"):
            assert not value or "PASSWORD" in value


def test_each_part_logs_in_as_who_it_is_and_the_receiver_has_no_keys() -> None:
    """The receiver faces the internet: who breaks into it must not find what reads tokens or starts runs."""
    logins = {OWNER: "pipeline", RECEIVER: "pipeline_receiver", WORKER: "pipeline_worker"}
    of_all_parts = {}
    for part, path in ((OWNER, "env.owner.example"), (RECEIVER, "env.receiver.example"), (WORKER, "env.example")):
        text = (DEPLOY / path).read_text()
        assert set(re.findall(r"postgresql://([a-z_]+):", text)) == {logins[part]}, path
        of_all_parts[part] = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    assert of_all_parts[RECEIVER] == {"GHL_PIPELINE_DATABASE_URL", "METRICS_TOKEN"}
    assert {"GHL_PIPELINE_TOKEN_KEYS", "CELERY_BROKER_URL", "UI_PROXY_SECRET"} <= of_all_parts[WORKER]
    script = (DEPLOY / "prepare-database.sh").read_text()
    for role, login in (("worker", logins[WORKER]), ("receiver", logins[RECEIVER])):
        assert f"add-login {login} --role {role} --password-stdin" in script

    expected = {"migrate": OWNER, "receiver": RECEIVER}
    for name, service in only(DEPLOY / "compose.yaml")["services"].items():
        if str(service["image"]).startswith("ghl-pipeline"):
            assert service["env_file"] == [f"{expected.get(name, WORKER)}.env"], name
    secrets = {OWNER: "ghl-pipeline-owner", RECEIVER: "ghl-pipeline-receiver", WORKER: "ghl-pipeline-secrets"}
    for _, container in containers():
        part = expected.get(container["name"], WORKER)
        assert [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each] == [secrets[part]]
    readme = (DEPLOY / "README.md").read_text()
    for part, secret in secrets.items():
        assert f"kubectl create secret generic {secret} --from-env-file {part}.env" in readme


@pytest.mark.slow
def test_the_database_is_prepared_as_often_as_wanted(project: Settings, engine: Engine, database_url: URL) -> None:
    """The script that `migrate` runs, and what its two logins may do then."""
    passwords = {"pipeline_worker": "a-password-of-the-worker", "pipeline_receiver": "a-password-of-the-receiver"}
    environment = os.environ | project.as_environment() | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WORKER_PASSWORD": passwords["pipeline_worker"],
        "RECEIVER_PASSWORD": passwords["pipeline_receiver"],
    }  # fmt: skip
    try:
        for _ in range(2):
            done = subprocess.run(
                ["sh", str(DEPLOY / "prepare-database.sh")],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert not any(password in done.stdout + done.stderr for password in passwords.values())
        secret, drop = "SELECT ghl_token_encrypted FROM clients", "DROP TABLE clients"
        for login, allowed in (("pipeline_worker", {secret}), ("pipeline_receiver", set())):
            own = create_engine(database_url.set(username=login, password=passwords[login]), poolclass=NullPool)
            for statement in (secret, drop):
                with own.connect() as connection:
                    if statement in allowed:
                        connection.exec_driver_sql(statement)
                    else:
                        with pytest.raises(DBAPIError, match=r"denied|must be owner"):
                            connection.exec_driver_sql(statement)
    finally:
        with engine.begin() as connection:
            for login in passwords:
                connection.exec_driver_sql(f"DROP ROLE IF EXISTS {login}")


def images() -> Iterator[tuple[str, str]]:
    for name, service in pipeline_services():
        yield name, str(service["image"])
    for name, container in containers():
        yield name, container["image"]
    values = only(DEPLOY / "helm" / "values.yaml")
    named = [values["dagsterWebserver"], values["dagsterDaemon"], *values["dagster-user-deployments"]["deployments"]]
    for part in named:
        yield "values.yaml", f"{part['image']['repository']}:{part['image']['tag']}"


def test_everything_runs_the_same_image_and_it_is_this_version() -> None:
    found = list(images())
    assert len(found) > 10
    assert {image.rpartition("/")[2] for _, image in found} == {f"ghl-pipeline:{VERSION}"}
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{VERSION}"\n' in project
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f'image.version="{VERSION}"' in dockerfile
    assert f"--tag ghl-pipeline:{VERSION} " in dockerfile


def test_the_image_installs_extras_that_exist_from_the_lock_as_a_user_without_rights() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    extras = set(re.findall(r"--extra (\S+)", dockerfile))
    assert extras == {"celery", "kubernetes"}
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    assert dockerfile.count("uv sync --locked --no-dev") == 2
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
            kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
            assert {f"!{name}", f"!{name}/**"} & set(kept), f"{name} does not reach the build"


@of_all(pipeline_services())
def test_a_service_can_change_nothing_of_its_host_and_comes_back(it: Yaml) -> None:
    assert it["read_only"] is True
    assert it["cap_drop"] == ["ALL"]
    assert it["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in it
    once = it["command"] == PREPARE
    assert it["restart"] == ("no" if once else "unless-stopped")
    assert once or it["healthcheck"]["test"][0] == "CMD"


def test_only_the_proxy_is_reached_from_outside() -> None:
    compose = only(DEPLOY / "compose.yaml")
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["proxy"]
    assert compose["networks"]["front"] == {"internal": True}
    # Other people's database servers are reached only by networks that lead outside.
    for name in ("data", "intake"):
        assert compose["networks"][name] == {"internal": "${DATA_INTERNAL:-true}"}
    assert "data" not in compose["services"]["proxy"]["networks"]
    # The receiver faces the internet: of what is inside it reaches PostgreSQL, and neither code server nor queue.
    on_intake = {name for name, it in compose["services"].items() if "intake" in it["networks"]}
    assert (on_intake, compose["services"]["receiver"]["networks"]) == ({"postgres", "receiver"}, ["intake", "front"])
    # Who needs the outside: those who ask GHL, and the code server, whose sensors send alerts.
    assert {name for name, it in compose["services"].items() if "egress" in it["networks"]} == {"code", "worker"}
    proxy = (DEPLOY / "Caddyfile").read_text()
    assert "basic_auth" in proxy.partition("reverse_proxy ui:3000")[0]


def test_what_keeps_data_can_write_it_without_rights_over_the_files_of_others(tmp_path: Path) -> None:
    """Root without its rights may not write into a folder of `redis`: that user has to be the one who starts."""
    redis = only(DEPLOY / "compose.yaml")["services"]["redis"]
    assert redis["user"] == "redis"
    assert "cap_add" not in redis
    # Without a password it must not start: everybody inside could start runs.
    script = redis["command"][2].replace("$$", "$").replace("/tmp/redis.conf", str(tmp_path / "redis.conf"))
    script = re.sub(r"exec redis-server.*", "cat " + str(tmp_path / "redis.conf"), script)
    environment = {"PATH": os.environ["PATH"]}
    without = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "is not in redis.env" in without.stderr
    environment["REDIS_PASSWORD"] = "abc"
    with_one = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert with_one.stdout == "requirepass abc\n"


def test_the_queue_lets_no_more_runs_go_than_workers_take() -> None:
    worker = only(DEPLOY / "compose.yaml")["services"]["worker"]
    (concurrency,) = [word.partition("=")[2] for word in worker["command"] if word.startswith("--concurrency=")]
    queue = only(DEPLOY / "dagster.yaml")["run_queue"]
    assert queue["max_concurrent_runs"] <= worker["deploy"]["replicas"] * int(concurrency)


def test_the_instances_differ_only_where_they_say_so() -> None:
    here, there = only(ROOT / "dagster.yaml"), only(DEPLOY / "dagster.yaml")
    kubernetes = yaml.safe_load(documents(DEPLOY / "helm" / "instance.yaml")[0]["data"]["dagster.yaml"])
    for other in (there, kubernetes):
        assert other.keys() == here.keys()
        assert other["run_queue"].pop("max_concurrent_runs") >= 1
        assert other["run_monitoring"].pop("start_timeout_seconds") >= here["run_monitoring"]["start_timeout_seconds"]
    here["run_queue"].pop("max_concurrent_runs")
    here["run_monitoring"].pop("start_timeout_seconds")
    for other in (there, kubernetes):
        for key in here.keys() - set(ONE_MACHINE):
            assert other[key] == here[key], key


def test_the_production_instance_opens_with_our_storage_and_launcher(
    project: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.database_url
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:s3cret@127.0.0.1:6379/0")
    text = (DEPLOY / "dagster.yaml").read_text().replace("/var/lib/ghl-pipeline", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(text)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, PresenceCheckedCeleryLauncher)
        assert isinstance(instance._ref.storage if instance._ref else None, PooledPostgresStorage)
        assert instance.run_launcher.supports_check_run_worker_health
        assert not instance.run_launcher.supports_resume_run
        # What goes to workers, and what the daemon's children are given as argument, names no password.
        assert "s3cret" not in str(instance.get_ref().to_dict())


@of_all(containers())
def test_a_pod_has_no_rights_and_no_token(it: Yaml) -> None:
    assert it["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert it["pod"]["securityContext"]["runAsNonRoot"] is True
    assert it["pod"]["securityContext"]["runAsUser"] == 10001
    assert it["pod"]["automountServiceAccountToken"] is False
    mounted = {mount["name"] for mount in it["volumeMounts"]}
    assert mounted == {volume["name"] for volume in it["pod"]["volumes"]}
    assert it["resources"]["limits"]["memory"]


def test_manifests_name_each_other_rightly() -> None:
    every = [document for path in MANIFESTS for document in documents(path)]
    names = {(document["kind"], document["metadata"]["name"]) for document in every}
    for document in every:
        kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec", {})
        if kind == "Service":
            (backing,) = [it for it in every if it["kind"] == "Deployment" and it["metadata"]["name"] == name]
            assert spec["selector"].items() <= backing["spec"]["template"]["metadata"]["labels"].items()
        if kind == "Deployment":
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
            for volume in spec["template"]["spec"]["volumes"]:
                if "configMap" in volume:
                    assert ("ConfigMap", volume["configMap"]["name"]) in names
        if kind == "Ingress":
            (path,) = [path for rule in spec["rules"] for path in rule["http"]["paths"]]
            assert ("Service", path["backend"]["service"]["name"]) in names
    receiver = {kind for kind, name in names if name == "ghl-pipeline-receiver"}
    assert receiver == {"Deployment", "Service", "PodDisruptionBudget", "Ingress", "NetworkPolicy"}


def test_the_chart_and_the_instance_mean_the_same_launcher() -> None:
    values = only(DEPLOY / "helm" / "values.yaml")
    configuration, settings = documents(DEPLOY / "helm" / "instance.yaml")
    instance = yaml.safe_load(configuration["data"]["dagster.yaml"])
    assert values["runLauncher"]["type"] == instance["run_launcher"]["class"] == "K8sRunLauncher"
    assert instance["run_launcher"]["config"]["instance_config_map"] == configuration["metadata"]["name"]
    (code,) = values["dagster-user-deployments"]["deployments"]
    assert settings["data"]["GHL_PIPELINE_CODE_HOST"] == code["name"]
    assert settings["data"]["GHL_PIPELINE_CODE_PORT"] == str(code["port"])
    policies = [it for it in documents(DEPLOY / "helm" / "ui.yaml") if it["kind"] == "NetworkPolicy"]
    (policy,) = [it for it in policies if it["metadata"]["name"] == "ghl-pipeline-code"]
    assert policy["spec"]["podSelector"]["matchLabels"] == code["labels"]
    assert {"podSelector": {"matchLabels": values["dagsterDaemon"]["labels"]}} in policy["spec"]["ingress"][0]["from"]
    for part in (values["dagsterDaemon"], code):
        assert {"name": "DAGSTER_HOME", "value": "/app"} in part["env"]
        mounts = {mount["mountPath"]: mount["name"] for mount in part["volumeMounts"]}
        assert mounts["/app/dagster.yaml"] == "ghl-pipeline-instance"
    # Two files at one path: the chart's own must be elsewhere.
    assert values["global"]["dagsterHome"] != "/app"


def test_a_checkout_keeps_what_is_secret_out_of_git() -> None:
    assert {"*.env", ".env", "secrets/", "tls/"} <= set((DEPLOY / ".gitignore").read_text().splitlines())
