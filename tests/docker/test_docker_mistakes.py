"""Slips that an engine would take as they are, or refuse in words that name no field."""

import json

import pytest

from executors.docker.engine import connect
from executors.docker.executor import DockerExecutor
from executors.docker.mounts import parse_mount
from neva_recipes.cli.main import main
from neva_recipes.config import UserError


@pytest.mark.parametrize("option", ["RO", "readonly", "zz", "ro,x"])
def test_a_slip_is_no_place_to_write_to(option):
    with pytest.raises(
        UserError, match=f"^executor.mounts: '/data:/data:{option}': '{option}' is not a way to mount: exp"
    ):
        parse_mount(f"/data:/data:{option}")


MALFORMED = [
    *("/data", "/data:data", "a:b:c", ":/x", "/a:", "/a:/b:ro:ro", "/a:/b:ro,rw", "/a:/b:z,Z", "/a:/b:z:Z", " :/x"),
    *("type=bind,src=/a,dst=/b", "/a:/b:RO", "/a:/b:ro;z", "/a:/b:"),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_mount_stops_the_dry_run(tmp_path, monkeypatch, capfd, text):
    """Without an engine, a container, and the other things that only a launch needs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "executors.toml").write_text(f"[mine]\nkind = 'docker'\nimage = 'x'\nmounts = [{json.dumps(text)}]\n")
    assert main(["gpt.pretrain", "size=tiny", "--executor", "mine", "--dry-run"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and "mounts: " in err and "expected SOURCE:TARGET" in err


@pytest.mark.parametrize(("end", "read_only"), [(":ro", True), (":rw", False)])
def test_a_colon_of_the_target_is_kept(tmp_path, end, read_only):
    bind = parse_mount(f"/data:/a:b{end}").bind(tmp_path)
    assert (bind.target, bind.read_only) == ("/a:b", read_only)


@pytest.mark.parametrize("port", ["999999", "abc", "-1"])
def test_a_port_that_is_none(port):
    with pytest.raises(
        UserError, match=rf"^Docker engine at tcp://127.0.0.1:{port} cannot be asked: .*[Pp]ort"
    ) as caught:
        connect(f"tcp://127.0.0.1:{port}")
    assert "\n" not in str(caught.value)


def test_an_address_with_a_bracket_left_open():
    with pytest.raises(UserError, match=r"^Docker engine at tcp://\[::1 cannot be asked: Invalid IPv6 URL$"):
        connect("tcp://[::1")


@pytest.mark.parametrize("limit", ["nofile=9:3", "nofile=-1:3"])
def test_a_limit_above_its_bound(place, limit):
    with pytest.raises(UserError, match=rf"^executor.ulimits: {limit}: the first number is more than the second"):
        place.executor(ulimits=[limit]).check(place.job("pass").layout)


@pytest.mark.parametrize("limit", ["nofile=3:9", "nofile=9:9", "memlock=-1:-1", "memlock=5:-1", "memlock=-1"])
def test_limits_in_order(place, limit):
    assert isinstance(place.executor(ulimits=[limit]), DockerExecutor)
    place.executor(ulimits=[limit]).check(place.job("pass").layout)
