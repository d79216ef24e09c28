"""What the engine is asked for is what `docker run` asks for; its part of giving GPUs is real, NVIDIA's hook is not."""

import json
import resource

import pytest

import executors
from executors.docker.engine import connect
from neva_recipes.config import UserError

pytestmark = pytest.mark.multiprocess

GPUS = {
    "all": {"DeviceIDs": None, "Count": -1, "Driver": "", "Capabilities": [["gpu"]]},
    2: {"DeviceIDs": None, "Count": 2, "Driver": "", "Capabilities": [["gpu"]]},
    "device=1": {"DeviceIDs": ["1"], "Count": 0, "Driver": "", "Capabilities": [["gpu"]]},
    "device=0,GPU-8a56a4bc": {"DeviceIDs": ["0", "GPU-8a56a4bc"], "Count": 0, "Driver": "", "Capabilities": [["gpu"]]},
    "nvidia.com/gpu=0,nvidia.com/gpu=1:0": {
        "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1:0"],
        "Count": 0,
        "Driver": "cdi",
        "Capabilities": None,
    },
    None: None,
}
"""What `docker run` asks the engine for: fields of `HostConfig.DeviceRequests`."""
NVIDIA_LIMITS = {"memlock": (-1, -1), "stack": (67108864, 67108864)}
# By hand the engine removes the container and its output goes to the terminal; the rest is told in two ways.
NOT_COMPARED = {"AutoRemove", "LogConfig", "AttachStdin", "AttachStdout", "AttachStderr"}
NOT_COMPARED |= {"Hostname", "RestartPolicy", "DeviceRequests"}


def asked_for(requests):
    """Return the one request for devices, without `Options`, which hold nothing."""
    return requests and {name: value for name, value in requests[0].items() if name != "Options"}


def plain(told):
    """Return what is told of a container, without what is empty, of no order, or of no account here."""
    found = {**told["HostConfig"], **told["Config"]}
    found["Env"] = set(found["Env"])
    found["Ulimits"] = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in found["Ulimits"]}
    return {name: value for name, value in found.items() if name not in NOT_COMPARED and value}


@pytest.mark.parametrize("gpus", GPUS)
def test_the_script_and_the_engine_are_told_the_same(place, gpus):
    """Of GPUs as of everything else; a docker command older than 25 cannot ask for devices by CDI."""
    job = place.job(
        "pass",
        gpus=gpus,
        ulimits=["nofile=1024:2048", "stack=1000000"],
        memory="300m",
        cpus=0.5,
        mounts=["/tmp:/x,y z:ro"],
        env={"A": "b c"},
    )
    container = job.executor._container(job)
    job.run_dir.mkdir(parents=True)
    name = connect(place.engine.address).api.create_container_from_config(container.api())["Id"]
    asked = place.engine.inspect(name)
    place.engine.command("rm", name)
    requests = asked["HostConfig"]["DeviceRequests"]
    assert asked_for(requests) == GPUS[gpus]
    assert ("NVIDIA_VISIBLE_DEVICES=void" in asked["Config"]["Env"]) == (gpus is None)
    limits = {"nofile": (1024, 2048), "stack": (1000000, 1000000)}
    assert plain(asked)["Ulimits"] == (limits if gpus is None else NVIDIA_LIMITS | limits)
    assert asked["HostConfig"]["UsernsMode"] == "host"
    version = int(place.engine.command("version", "--format", "{{.Client.Version}}").split(".")[0])
    if requests is None or requests[0]["Driver"] != "cdi" or version >= 25:
        words = container.command_line()[1:]
        words[words.index("run")] = "create"
        name = place.engine.command(*words).split()[-1]
        by_hand = place.engine.inspect(name)
        place.engine.command("rm", name)
        assert plain(by_hand) == plain(asked)
        assert asked_for(by_hand["HostConfig"]["DeviceRequests"]) == GPUS[gpus]


def test_the_engine_gives_what_was_asked_for(gpu_place, gpu_engine):
    """It tells NVIDIA's hook the devices; ranks have the limits that NVIDIA's containers want, but where it may not."""
    asked = gpu_engine.folder.parent / "programs" / "asked"
    asked.write_text("")
    body = """
    import resource
    print(json.dumps([resource.getrlimit(resource.RLIMIT_MEMLOCK), resource.getrlimit(resource.RLIMIT_STACK)]))
    """
    allowed = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    run = gpu_place.start(body, gpus="device=0,2", ulimits=[f"memlock={allowed}"])
    assert run.wait() == 0
    assert list(map(json.loads, run.logs())) == [[[allowed, allowed], list(NVIDIA_LIMITS["stack"])]]
    # The trial before, and the run.
    assert asked.read_text().splitlines() == ["0,2", "0,2"]
    assert gpu_place.start("pass", gpus=None).wait() == 0
    assert asked.read_text().splitlines() == ["0,2", "0,2"]


def test_gpus_that_are_not_there(gpu_place):
    refused = {
        "device=2,7": "executor.gpus: the NVIDIA Container Toolkit refuses them: device error: 7: unknown device",
        5: "executor.gpus: the NVIDIA Container Toolkit refuses them: device error: 4: unknown device",
        "nvidia.com/gpu=7": "executor.gpus: the engine has no",
    }
    for gpus, reason in refused.items():
        with pytest.raises(UserError) as caught:
            executors.start_job(gpu_place.job("pass", gpus=gpus, ulimits=["memlock=65536"]))
        assert str(caught.value).startswith(reason)
        assert "\n" not in str(caught.value)
    assert not gpu_place.runs_dir.exists()
    assert not gpu_place.engine.containers()
