"""As much of Kubernetes as NeMo-Run asks of it: an API server that takes TrainJobs and runs their pods as processes.

What its operator of TrainJobs does is followed: the command gets no shell, `$(NAME)` in it is replaced, each pod gets
torchrun's variables (the runtime `torch-distributed`), and deleting a TrainJob ends its pods with SIGTERM.
"""

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import threading

from executors.process.linux import pick_port
from tests.nemo_run.world import PATIENCE

PREFIX = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/default/trainjobs"

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: me, user: {{}}}}]
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
current-context: here
"""


class Cluster:
    """TrainJobs by name, as they were sent, and their pods.

    Args:
        environ: Environment of a container before a TrainJob adds to it.
    """

    def __init__(self, environ):
        self.jobs = {}
        self.deleted = []
        self._pods = {}
        self._environ = environ
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def kubeconfig(self):
        return KUBECONFIG.format(port=self._server.server_port)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        for name in list(self._pods):
            self._end(name)

    def start(self, body):
        name, trainer = body["metadata"]["name"], body["spec"]["trainer"]
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name), name
        port = pick_port()
        pods = []
        for number in range(trainer["numNodes"]):
            env = {entry["name"]: entry["value"] for entry in trainer["env"]} | {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(number),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            command = [_expanded(word, env) for word in trainer["command"]]
            whole = {**self._environ, **env}
            pod = subprocess.Popen(command, env=whole, start_new_session=True, stdin=subprocess.DEVNULL)
            pods.append(pod)
        self._pods[name], self.jobs[name] = pods, body

    def status(self, name):
        """Return a TrainJob with its status, or `None` without one."""
        body = self.jobs.get(name)
        if body is None:
            return None
        codes = [pod.poll() for pod in self._pods[name]]
        counts = {"active": codes.count(None), "succeeded": int(set(codes) == {0})}
        counts["failed"] = int(any(code not in (None, 0) for code in codes))
        return {**body, "status": {"jobsStatus": [{"name": "node", "ready": 0, **counts}]}}

    def delete(self, name):
        """End a TrainJob and say so, or return `None` without one."""
        if self.jobs.pop(name, None) is None:
            return None
        self.deleted.append(name)
        self._end(name)
        return {"kind": "Status", "status": "Success"}

    def _end(self, name):
        for pod in self._pods[name]:
            if pod.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pod.pid, signal.SIGTERM)
                pod.wait(PATIENCE)

    def _handler(cluster):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                assert self.path.partition("?")[0] == PREFIX, self.path
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                cluster.start(body)
                self._answer(201, body)

            def do_GET(self):
                self._about_one(cluster.status)

            def do_DELETE(self):
                self._about_one(cluster.delete)

            def _about_one(self, function):
                found = function(self.path.partition("?")[0].removeprefix(f"{PREFIX}/"))
                if found is not None:
                    self._answer(200, found)
                else:
                    self._answer(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

            def _answer(self, code, body):
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                return

        return Handler


def _expanded(word, env):
    return re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), word)
