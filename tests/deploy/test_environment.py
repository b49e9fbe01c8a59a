"""Settings as variables and as a file."""

import os
import string
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from deploy import environment
from schemas.errors import ConfigurationError
from schemas.settings import Settings, load, stopped_stack


def test_only_what_was_set_and_the_addresses() -> None:
    settings = Settings(
        data_dir=Path("/data"), partitions=2, kafka_sasl_password=SecretStr("secret")
    )
    assert environment.variables(settings) == {
        "RETRAIL_DATA_DIR": "/data",
        "RETRAIL_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
        "RETRAIL_KAFKA_SASL_PASSWORD": "secret",
        "RETRAIL_MILVUS_URI": "http://127.0.0.1:19530",
        "RETRAIL_PARTITIONS": "2",
    }


def test_file_gives_the_same_settings_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        data_dir=tmp_path / "a folder",
        topic_prefix="t_",
        mine_idle_seconds=0.5,
        judge_api_key=SecretStr("it's \\ a 'key'"),
        index_query_prefix="query: ",
    )
    file = tmp_path / "stack.env"
    environment.write(file, environment.variables(settings))
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(file))

    assert load() == settings
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_marked_when_its_stack_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stack.env"
    first = environment.write(file, {"RETRAIL_PARTITIONS": "2"}, ["RETRAIL_KAFKA_BOOTSTRAP"])
    second = environment.write(file, {"RETRAIL_PARTITIONS": "3"}, ["RETRAIL_KAFKA_BOOTSTRAP"])
    named = {"RETRAIL_ENV_FILE": str(file)}
    environment.mark_stopped(file, first)
    assert stopped_stack(named) == []
    environment.mark_stopped(file, second)
    [text] = stopped_stack(named)
    assert (
        text == f"{file}: the stack that wrote this file has stopped; start it with `retrail up`."
    )
    monkeypatch.setenv("RETRAIL_ENV_FILE", str(file))
    assert load().partitions == 3
    assert environment.started_here(file) == {"RETRAIL_KAFKA_BOOTSTRAP"}


def test_file_can_be_sourced_by_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "stack.env"
    environment.write(file, {"RETRAIL_DATA_DIR": "/a folder/$HOME", "RETRAIL_PARTITIONS": "2"})
    shown = subprocess.run(
        ["sh", "-c", f". {file}; echo $RETRAIL_PARTITIONS $RETRAIL_DATA_DIR"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "2 /a folder/$HOME\n"


@given(st.text(string.printable + "äß€", max_size=40).filter(lambda text: "${" not in text))
def test_values_survive_the_file(value: str) -> None:
    from io import StringIO

    text = value.replace("\r", "")  # text files hold no bare carriage returns
    rendered = environment.rendered({"RETRAIL_X": text, "RETRAIL_Y": "y"})
    assert dotenv_values(stream=StringIO(rendered)) == {"RETRAIL_X": text, "RETRAIL_Y": "y"}


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        environment.write(tmp_path / "none" / "f.env", {})


def test_file_of_an_earlier_stack_is_taken_over_without_its_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stack.env"
    before = Settings(
        data_dir=tmp_path, kafka_bootstrap="127.0.0.1:1", milvus_uri="http://mine:1", partitions=2
    )
    environment.write(file, environment.variables(before), ["RETRAIL_KAFKA_BOOTSTRAP"])
    for name in environment.variables(before):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ, RETRAIL_ENV_FILE=str(file)))

    environment.adopt_file()

    ours = {name: value for name, value in os.environ.items() if name.startswith("RETRAIL_")}
    assert ours == {
        "RETRAIL_DATA_DIR": str(tmp_path),
        "RETRAIL_MILVUS_URI": "http://mine:1",
        "RETRAIL_PARTITIONS": "2",
    }
