from __future__ import annotations

from pathlib import Path

import pytest

from headway.core.errors import DefinitionError
from headway.core.settings import SETTINGS_FILE, load_settings, unread


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_later_sources_win(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(SETTINGS_FILE).write_text('http_port = 1\ngrpc_port = 1\nwarehouse = "w"\n')
    monkeypatch.setenv("HEADWAY_HTTP_PORT", "2")
    monkeypatch.setenv("HEADWAY_GRPC_PORT", "2")
    settings = load_settings(http_port=3)
    assert (settings.http_port, settings.grpc_port, settings.warehouse) == (3, 2, "w")


@pytest.mark.parametrize("name", ["witness_url", "htp_port"])
def test_a_key_of_the_file_that_nothing_reads_is_refused(name: str) -> None:
    Path(SETTINGS_FILE).write_text(f'{name} = "x"\n')
    with pytest.raises(DefinitionError, match=name):
        load_settings()


def test_a_variable_that_nothing_reads_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HEADWAY_HTTP_PROT", "1")
    monkeypatch.setenv("HEADWAY_HTTP_HOST", "::1")
    load_settings()
    [record] = caplog.records
    assert "HEADWAY_HTTP_PROT is no setting; did you mean 'http_port'" in record.getMessage()


def test_variables_of_others_are_left_alone() -> None:
    ours = {"HEADWAY_HOME": "h", "headway_http_port": "1", "HEADWAY_SERVING_HOOK": "0", "HEADWAY_FEED_DATABASE": "d"}
    links = {
        "HEADWAY_REDIS_SERVICE_HOST": "10.0.0.1",
        "HEADWAY_REDIS_SERVICE_PORT_CLIENT": "6379",
        "HEADWAY_REDIS_PORT": "tcp://10.0.0.1:6379",
        "HEADWAY_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
    }
    assert unread(ours | links | {"PATH": "/bin"}) == []
    assert unread({"HEADWAY_WITNESS_URL": "http://witness"}) == ["HEADWAY_WITNESS_URL"]
