"""Real ROS 2 for tests: a domain of their own, nodes in processes of their own, and a spinning listener."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import ListParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from sac_ae_ros.nodes.policy_state import LISTENS

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "/tested"
OWN = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "dds" / "fastdds_shm.xml"),
}
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
ANSWER_S = 20.0
DOMAINS = 97  # some tests have one of the next for good
_counter = itertools.count()
_locks: dict[int, Any] = {}
_libc = ctypes.CDLL(None)


def domain_id() -> int:
    """One that nobody else uses, in this run or another on this machine, until `give_back` or the process's end."""
    for _ in range(DOMAINS):
        number = 1 + (os.getpid() * 13 + next(_counter)) % DOMAINS
        lock = (Path(tempfile.gettempdir()) / f"sac_ae_ros_{os.getuid()}_domain_{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _locks[number] = lock
        return number
    raise AssertionError(f"expected a free one of {DOMAINS} domain ids, found none; end other tests")


def give_back(number: int) -> None:
    """Lets others have that domain id."""
    _locks.pop(number).close()


def kill(pid: int) -> None:
    """kill -9, and the tidying up of shared memory that Fast DDS then has no chance to do (35 MB each)."""
    owned = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            owned.append(Path(os.readlink(link)))
    os.kill(pid, signal.SIGKILL)
    for lock in owned:
        if re.fullmatch(r"/dev/shm/fastrtps_[0-9a-f]{16}_el", str(lock)):
            lock.unlink(missing_ok=True)
            Path(str(lock).removesuffix("_el")).unlink(missing_ok=True)


def _as_from_a_terminal() -> None:
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no orphans of a killed test
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # even where the tests run under nohup


class Process:
    """A node in a process of its own; what it prints is kept in a file."""

    def __init__(
        self,
        module: str,
        params: dict[str, Any],
        folder: Path,
        env: dict[str, str],
        remaps: tuple,
        prefix: tuple[str, ...] = (),
    ) -> None:
        name = module.rpartition(".")[2]
        params_file = folder / f"{name}.yaml"
        params_file.write_text(yaml.safe_dump({f"{NAMESPACE}/{name}": {"ros__parameters": params}}))
        self._log = folder / f"{name}.log"
        arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}", "--params-file", str(params_file)]
        for remap in remaps:
            arguments += ["-r", remap]
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *arguments],
                env=env,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_as_from_a_terminal,
            )

    @property
    def log(self) -> str:
        time.sleep(0.02)  # a thread of the node's passes on what it prints
        return self._log.read_text()

    def wait(self, timeout_s: float = 10.0) -> int:
        return self.popen.wait(timeout_s)

    def kill(self) -> None:
        kill(self.popen.pid)
        self.popen.wait()

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
            try:
                self.popen.wait(8)
            except subprocess.TimeoutExpired:
                self.kill()


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "", text)


class Heard(list):
    """(time.monotonic(), message) of one topic, in order of arrival."""

    def since(self, start_s: float) -> list[Any]:
        return [message for at_s, message in list(self) if at_s >= start_s]

    def times_since(self, start_s: float) -> list[float]:
        return [at_s for at_s, _ in list(self) if at_s >= start_s]


class Network:
    """Everything a test does on its domain; spins in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domain_id = domain_id()
        os.environ.update(OWN)
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ROS_", "RMW_"))},
            "ROS_DOMAIN_ID": str(self.domain_id),
            **OWN,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("test", namespace=NAMESPACE, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        self._processes: list[Process] = []
        self._clients: dict[str, Any] = {}
        self._neighbours: list[Node] = []

    def start(
        self, module: str, params: dict[str, Any], *, remaps: tuple = (), prefix: tuple[str, ...] = (), **env: str
    ) -> Process:
        """`prefix`: what starts the node, with the node's command after it."""
        folder = self.folder / str(len(self._processes))
        folder.mkdir()
        process = Process(f"sac_ae_ros.nodes.{module}", params, folder, {**self.env, **env}, remaps, prefix)
        self._processes.append(process)
        return process

    def hear(self, kind: type, topic: str, *, qos: QoSProfile | None = None, depth: int = 1000) -> Heard:
        heard = Heard()
        callback = lambda message: heard.append((time.monotonic(), message))  # noqa: E731
        self.node.create_subscription(kind, topic, callback, qos or depth)
        return heard

    def neighbour(self, name: str) -> Node:
        """Another node, which publishes only; it lasts until `close`, or until it is destroyed."""
        node = Node(name, namespace=NAMESPACE, context=self._context)
        self._neighbours.append(node)
        return node

    def call(self, kind: type, name: str, request: Any) -> Any:
        """A service's answer."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
            self.meet(name.rpartition("/")[0])
        return self._answer(self._clients[name], request)

    def meet(self, node: str) -> None:
        """Waits until that node knows every publisher, subscription and client that were made here so far.

        DDS tells it of them in the order in which they were made, so it knows them if it answers a new client. What
        it publishes to one of whom it does not know yet is lost, and so is a service's answer.
        """
        client = self.node.create_client(ListParameters, f"{node}/list_parameters")
        self._answer(client, ListParameters.Request(), again_s=2.0)
        self.node.destroy_client(client)

    def _answer(self, client: Any, request: Any, again_s: float = ANSWER_S) -> Any:
        assert client.wait_for_service(ANSWER_S), f"no service {client.srv_name}"
        end_s = time.monotonic() + ANSWER_S
        while True:
            future = client.call_async(request)
            until_s = time.monotonic() + again_s
            while time.monotonic() < until_s:
                if future.done():
                    return future.result()
                time.sleep(0.002)
            client.remove_pending_request(future)
            assert time.monotonic() < end_s, f"no answer of {client.srv_name} within {ANSWER_S} s"

    def trigger(self, name: str) -> Trigger.Response:
        return self.call(Trigger, name, Trigger.Request())

    def ask_to_arm(self) -> Trigger.Response:
        """What `~/arm` answers once policy_node has listened for others, which it does for a while after its start."""
        answers: list[Trigger.Response] = []

        def listened() -> bool:
            answers.append(self.trigger("policy_node/arm"))
            return LISTENS not in answers[-1].message

        self.until(listened, 30, "the end of listening")
        return answers[-1]

    def listened(self, policy_node: Process) -> None:
        """Waits until a policy node that was activated just now has listened for others, as its log has it."""
        line = self.until(lambda: re.search(r" active and .*\n", policy_node.log), 10, "its activation")[0]
        left = re.search(r" (\d\.\d) s", line)
        time.sleep(float(left[1]) + 0.1 if left else 0.0)

    def arm(self) -> None:
        """Arms policy_node as soon as it has used the frames that this asks for."""
        self.until(lambda: self.trigger("policy_node/arm").success, 30, "arming")  # a pause begins the listening anew

    def barred_as_diagnosed(self, diagnostics: Heard, words: str) -> None:
        """Waits until `~/arm` is refused with these words, and `safety` in /diagnostics warns of the same reason."""

        def same() -> bool:
            answer = self.trigger("policy_node/arm")
            assert not answer.success
            statuses = [status for _, array in diagnostics[-1:] for status in array.status]
            expected = f"not armed, and cannot be: {answer.message.removeprefix('arm refused: ')}"
            return words in answer.message and any(
                status.name.endswith(": safety")
                and status.level == DiagnosticStatus.WARN
                and _without_numbers(status.message) == _without_numbers(expected)
                for status in statuses
            )

        self.until(same, 10, f"a refusal that says {words!r}, and a warning that says the same")

    def change(self, *transitions: int) -> bool:
        """Drives policy_node; whether the last transition succeeded."""
        success = True
        for number in transitions:
            request = ChangeState.Request(transition=Transition(id=number))
            success = self.call(ChangeState, "policy_node/change_state", request).success
        return success

    def state(self) -> str:
        return self.call(GetState, "policy_node/get_state", GetState.Request()).current_state.label

    def set(self, node: str, **values: Any) -> str:
        """Sets parameters (dots written as two underscores); returns the reason of the first refusal, or ''."""
        parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
        ]
        results = self.call(
            SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=parameters)
        ).results
        return next((result.reason for result in results if not result.successful), "")

    @staticmethod
    def until(holds: Callable[[], Any], timeout_s: float = 10.0, what: str = "it") -> Any:
        """Waits for it. Where a packet is lost, DDS takes seconds to tell of somebody new: give it 10 then."""
        end_s = time.monotonic() + timeout_s
        while True:
            value = holds()
            if value:
                return value
            assert time.monotonic() < end_s, f"waited {timeout_s} s for {what}"
            time.sleep(0.005)

    def close(self) -> None:
        for process in self._processes:
            process.end()
        self._executor.shutdown(timeout_sec=5)
        self._thread.join(5)
        for node in (self.node, *self._neighbours):
            node.destroy_node()
        rclpy.shutdown(context=self._context)
        give_back(self.domain_id)


class Camera:
    """Publishes 8x8 images of one brightness at a rate, until it is stopped."""

    def __init__(self, network: Network, *, topic: str = "image", rate_hz: float = 30.0) -> None:
        self._network = network
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publisher = network.node.create_publisher(Image, topic, qos)
        self._period_s = 1 / rate_hz
        self.pixel = 140
        self.change: Callable[[Image], None] = lambda image: None
        self._on = threading.Event()
        self._thread: threading.Thread | None = None

    def message(self) -> Image:
        now = self._network.node.get_clock().now().to_msg()
        image = Image(height=8, width=8, encoding="rgb8", step=24)
        image.header.stamp, image.header.frame_id = now, "lens"
        image.data = array.array("B", [self.pixel] * 192)
        self.change(image)
        return image

    def publish(self) -> Image:
        image = self.message()
        self._publisher.publish(image)
        return image

    @contextlib.contextmanager
    def running(self) -> Iterator[Camera]:
        """While this lasts, images are published."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        self._on.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Returns when the last image was sent at the latest, time.monotonic()."""
        self._on.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        return time.monotonic()

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._on.is_set():
            self.publish()
            next_s += self._period_s
            self._on.wait(max(0.0, next_s - time.monotonic()))

    def close(self) -> None:
        self.stop()
        self._network.node.destroy_publisher(self._publisher)
