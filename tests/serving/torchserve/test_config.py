import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.torchserve.config import LOOPBACK, UNREACHABLE, Ports, ServerConfig, render
from serving.torchserve.server import ServerRecord
from serving.torchserve.state_dir import StateDir, write_private


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.fixture
def rendered(tmp_path: Path) -> dict[str, str]:
    return properties(render(ServerConfig(), Ports(1, 2, 3), StateDir(tmp_path), load="car-x.mar"))


def test_a_path_of_any_letters_reaches_java(tmp_path: Path) -> None:
    text = render(ServerConfig(), Ports(1, 2, 3), StateDir(tmp_path / "prö 🍵 #a=b\\:c"))
    assert text.isascii()  # Java reads Latin-1
    store = properties(text)["model_store"]
    assert store.endswith("/pr\\u00f6\\u0020\\ud83c\\udf75\\u0020#a=b\\u005c:c/model-store")


def test_every_listener_is_on_loopback(rendered: dict[str, str]) -> None:
    addresses = {key: value for key, value in rendered.items() if key.endswith("_address")}
    assert len(addresses) == 5
    hosts = {key: value.removeprefix("http://").split(":")[0] for key, value in addresses.items()}
    assert {hosts.pop(f"grpc_{api}_address") for api in ("inference", "management")} == {UNREACHABLE}
    assert set(hosts.values()) == {LOOPBACK}


def test_what_security_rests_on(rendered: dict[str, str]) -> None:
    assert rendered["disable_token_authorization"] == "false"
    assert rendered["install_py_dep_per_model"] == "false"
    assert rendered["enable_envvars_config"] == "false"
    assert rendered["allowed_urls"] == "file://none/.*"
    assert rendered["load_models"] == "car-x.mar"


def test_free_ports_are_all_different() -> None:
    assert len(set(asdict(Ports.choose()).values())) == 3


def test_a_preferred_port_is_kept_while_it_is_free() -> None:
    first = Ports.choose()
    assert Ports.choose(asdict(first)) == first
    with socket.socket() as listener:
        listener.bind((LOOPBACK, first.inference))
        listener.listen()
        second = Ports.choose(asdict(first))
    assert second.inference != first.inference
    assert second.management == first.management


def test_a_taken_port_is_named() -> None:
    ports = Ports.choose()
    ports.require_free()
    with socket.socket() as listener:
        listener.bind((LOOPBACK, ports.management))
        listener.listen()
        with pytest.raises(ServingError, match=rf"Port {ports.management} .*\(management\) is taken"):
            ports.require_free()


def test_a_long_path_moves_the_sockets_elsewhere(tmp_path: Path) -> None:
    short = StateDir(Path("/srv/car"))
    assert short.scratch == Path("/srv/car/tmp")
    deep = StateDir(tmp_path / ("d" * 120))
    assert not deep.scratch.is_relative_to(deep.root)
    assert deep.scratch == StateDir(deep.root).scratch != StateDir(tmp_path / ("e" * 120)).scratch


def test_private_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for text in ("one", "two"):
        write_private(path, text)
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"pid": 1, "ports": {"inference": 1}}'])
def test_a_missing_or_broken_record_is_named(tmp_path: Path, content: str | None) -> None:
    state = StateDir(tmp_path)
    if content is not None:
        state.server.write_text(content)
    with pytest.raises(ServingError, match=r"server\.json is missing or damaged; stop the server and start"):
        ServerRecord.load(state)
