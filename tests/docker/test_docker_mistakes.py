"""Slips that an engine would take as they are, or refuse in words that name no field."""

import pytest

from executors._docker_container import parse_mount
from executors._docker_engine import connect
from executors.docker import DockerExecutor
from neva_recipes.config import UserError


@pytest.mark.parametrize("option", ["RO", "readonly", "z", "ro,z"])
def test_a_slip_is_no_place_to_write_to(tmp_path, option):
    with pytest.raises(
        UserError, match=f"^executor.mounts: '/data:/data:{option}': '{option}' is no way to mount: exp"
    ):
        parse_mount(f"/data:/data:{option}", tmp_path)


@pytest.mark.parametrize(("end", "read_only"), [(":ro", True), (":rw", False)])
def test_a_colon_of_the_target_is_kept(tmp_path, end, read_only):
    bind = parse_mount(f"/data:/a:b{end}", tmp_path)
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
