from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headway.cli import main as cli
from headway.core.clock import ManualClock
from headway.core.errors import HeadwayError
from headway.core.project import Project
from headway.core.settings import load_settings
from headway.core.types import Principal
from headway.features.catalogue import registry
from headway.features.definitions import FeatureService
from headway.governance.audit_event import MemoryAudit

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("up", "down", "status", "doctor", "login", "token", "demo", "train", "deploy", "score"),
    *("contract check", "contract sign", "contract verify", "audit verify", "features apply", "features list"),
    *("features show", "features lineage", "features catalogue"),
    *(
        "models list",
        "models verify",
        "models show",
        "models promote",
        "models refuse",
        "monitor drift",
        "monitor alarms",
        "render kubernetes",
        "lake status",
        "lake compact",
        "lake expire",
    ),
    *("stream run", "stream status", "stream stop", "stream skip", "stream feed"),
    *("quality list", "quality show", "quality release", "quality drop", "quality profile"),
)


def invoke(*arguments: str, home: Path, project: Path = ROOT) -> Result:
    return CliRunner().invoke(cli.build(), ["--home", str(home), "--project", str(project), *arguments])


def failure(result: Result) -> HeadwayError:
    assert isinstance(result.exception, HeadwayError), result.output
    return result.exception


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json(command: str, tmp_path: Path) -> None:
    result = invoke(*command.split(), "--help", home=tmp_path)
    assert result.exit_code == 0
    assert "--json" in result.output


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from headway.cli.main import build; from typer.main import get_command; get_command(build());"
        "print([n for n in ('ray','mlflow','feast','pyarrow','numpy','pydantic','xgboost','rich.progress') "
        "if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_help_is_quick() -> None:
    command = [sys.executable, "-m", "headway.cli.main", "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # processor time, which other programs of the machine hardly touch: 0.22 s measured
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "command",
    [
        "train fraud",
        "deploy fraud",
        "score fraud",
        "models list fraud",
        "models reproduce fraud/1",
        "monitor drift fraud",
        "status --shell",
    ],
)
def test_commands_that_need_the_platform_say_so(command: str, tmp_path: Path) -> None:
    error = failure(invoke(*command.split(), home=tmp_path))
    assert error.hint == "headway up"


def test_an_unknown_use_case_lists_the_known_ones(tmp_path: Path) -> None:
    for command in ("contract check nosuch", "contract verify nosuch"):
        assert "churn, fraud" in str(failure(invoke(*command.split(), home=tmp_path)))


def test_contract_check_names_what_nothing_enforces(tmp_path: Path) -> None:
    result = invoke("contract", "check", "fraud", "--json", home=tmp_path)
    clauses = json.loads(result.stdout)
    assert {"path", "value", "mechanism", "enforced"} <= set(clauses[0])
    shown = invoke("contract", "check", "fraud", home=tmp_path).stdout
    assert len(shown.splitlines()) == len(clauses) + 2


def test_status_of_nothing_is_down_with_exit_status_1(tmp_path: Path) -> None:
    result = invoke("status", "--json", home=tmp_path)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "down"


def test_down_of_nothing_is_fine(tmp_path: Path) -> None:
    assert invoke("down", home=tmp_path / "home").stdout == "Headway was not up.\n"


def test_audit_of_an_empty_home_is_whole(tmp_path: Path) -> None:
    result = invoke("audit", "verify", "--json", home=tmp_path)
    assert (result.exit_code, json.loads(result.stdout)["events"]) == (0, 0)


def test_doctor_reports_a_corrupt_state(tmp_path: Path) -> None:
    (tmp_path / "platform.json").write_text("nonsense")
    result = invoke("doctor", "--json", home=tmp_path)
    findings = {item["check"]: item for item in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert not findings["state"]["ok"]
    assert "headway down --force" in findings["state"]["hint"]


def test_version() -> None:
    import headway

    assert CliRunner().invoke(cli.build(), ["--version"]).stdout.strip() == headway.__version__


def test_the_catalogue_needs_no_platform(tmp_path: Path) -> None:
    settings, writer = load_settings(home=tmp_path / "home", project=ROOT), frozenset({"features:write"})
    who = Principal(sub="w", kind="ci", scopes=writer, purpose="testing", expires=2**60)
    services = Project(ROOT).collect("features", FeatureService)
    registry.apply(services, settings, who, MemoryAudit(ManualClock()))
    listed = invoke("features", "list", home=settings.home)
    assert "fraud_v1" in listed.output
    assert "financial, pii" in listed.output
    view = json.loads(invoke("features", "show", "card_activity", "--json", home=settings.home).output)
    assert view["tags"] == ["financial", "pii"]
    assert "headway up" in view["notes"][0]
    lines = json.loads(invoke("features", "lineage", "transactions", "--json", home=settings.home).output)
    assert [(line["view"], line["service"], line["models"]) for line in lines] == [("card_activity", "fraud_v1", [])]
    made = invoke("features", "catalogue", "--out", str(tmp_path / "out"), home=settings.home)
    assert made.exit_code == 0, made.output
    assert "card_activity" in (tmp_path / "out" / "index.html").read_text()
    near = failure(invoke("features", "show", "card_activty", home=settings.home))
    assert "did you mean 'card_activity'" in str(near)
