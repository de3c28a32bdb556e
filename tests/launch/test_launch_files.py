"""The launch files: what they declare everywhere, and what they start wherever `launch_ros` is installed."""

import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ros_network import domain_id
from tiny_bag import START_NS, image, twist, write
from tiny_policy import write_policy

from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.model_store import ModelStore
from sac_ae_ros.nodes.process import LAUNCH_PID

ROOT = Path(__file__).resolve().parents[2]
POLICY_ARGUMENTS = {
    "policy", "policy_dir", "output", "image_topic", "camera_info_topic", "command_topic", "enable_topic",
    "e_stop_topic", "joint_states_topic", "params_file", "namespace", "use_sim_time", "autostart", "use_respawn",
    "log_level",
}  # fmt: skip
SIM_ARGUMENTS = {
    "task", "real_time_factor", "episode_seed", "params_file", "namespace", "use_sim_time", "domain_id",
}  # fmt: skip
REPLAY_ARGUMENTS = {
    "bag", "rate", "loop", "start_paused", "start_s", "duration_s", "image_topic", "as_recorded", "publish_clock",
    "wait_for", "wait_s", "namespace", "log_level",
}  # fmt: skip
RECORD_ARGUMENTS = {
    "out", "image_topic", "transport", "camera_info_topic", "command_topic", "enable_topic", "e_stop_topic",
    "joint_states_topic", "policy_node", "topics", "keep_free_mb", "namespace", "log_level",
}  # fmt: skip
LAUNCH_FILES = ["policy.launch.py", "sim.launch.py", "record.launch.py", "replay.launch.py"]
UNTIL_S = 40.0
SETTLED_S = 1.0  # launch (3.4) may forget a SIGINT that comes while it handles the node's latest events

needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None or shutil.which("ros2") is None,
    reason="no `ros2 launch` here: it comes with a ROS 2 distribution, not with the wheels",
)


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "launch" / name).read_text())


def calls(name: str, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function:
            yield node


def declared(name: str) -> set[str]:
    return {ast.literal_eval(call.args[0]) for call in calls(name, "DeclareLaunchArgument")}


def mentioned(name: str) -> list[str]:
    return [
        node.value for node in ast.walk(tree(name)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("name", [*LAUNCH_FILES, "arguments.py"])
def test_launch_files_import_nothing_of_ours(name: str) -> None:
    roots = {
        module.partition(".")[0]
        for node in ast.walk(tree(name))
        for module in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
        )
        if module
    }
    assert roots <= {"ament_index_python", "launch", "launch_ros", "lifecycle_msgs", "rclpy", *sys.stdlib_module_names}


def test_the_promised_arguments_are_declared() -> None:
    assert declared("policy.launch.py") >= POLICY_ARGUMENTS
    assert declared("sim.launch.py") >= SIM_ARGUMENTS
    assert declared("record.launch.py") == RECORD_ARGUMENTS
    assert declared("replay.launch.py") == REPLAY_ARGUMENTS


def test_every_declared_argument_is_used_and_described() -> None:
    robots = declared("policy.launch.py")
    for name in LAUNCH_FILES:
        passed_on = robots if name == "sim.launch.py" else set()
        unused = {each for each in declared(name) if mentioned(name).count(each) < 2}
        assert not unused - passed_on, f"{name} declares but never uses {unused}"
        for call in calls(name, "DeclareLaunchArgument"):
            assert {keyword.arg for keyword in call.keywords} == {"default_value", "description"}


def test_what_both_declare_differs_in_its_default() -> None:
    def defaults(name: str) -> dict[str, str]:
        return {
            ast.literal_eval(call.args[0]): ast.unparse(keyword.value)
            for call in calls(name, "DeclareLaunchArgument")
            for keyword in call.keywords
            if keyword.arg == "default_value"
        }

    robot, sim = defaults("policy.launch.py"), defaults("sim.launch.py")
    assert {name for name in robot.keys() & sim.keys() if robot[name] == sim[name]} == set()


def test_shipped_parameters_leave_the_policy_to_the_launch_file() -> None:
    assert not re.search(r"^\s*policy:", (ROOT / "config/policy.yaml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_every_node_is_told_whose_launch_it_belongs_to(name: str) -> None:
    actions = [*calls(name, "Node"), *calls(name, "LifecycleNode")]
    assert actions
    for action in actions:
        told = {keyword.arg: ast.unparse(keyword.value) for keyword in action.keywords}
        assert told["additional_env"] == "END_WITH_LAUNCH"
    assert LAUNCH_PID in mentioned(name)


def test_every_launch_file_takes_declared_arguments_only() -> None:
    assert {file.name for file in (ROOT / "launch").glob("*.launch.py")} == set(LAUNCH_FILES)
    for name in LAUNCH_FILES:
        (function,) = (each for each in tree(name).body if getattr(each, "name", "") == "generate_launch_description")
        (returned,) = (each for each in ast.walk(function) if isinstance(each, ast.Return))
        assert ast.unparse(returned).startswith("return declared_only(__file__, ")


@pytest.mark.parametrize(
    ("name", "argument"), [("policy.launch.py", "arm_on_activate"), ("replay.launch.py", "as_recorded")]
)
def test_only_the_simulation_arms_by_itself_and_recordings_command_nobody(name: str, argument: str) -> None:
    (default,) = (
        ast.literal_eval(keyword.value)
        for call in calls(name, "DeclareLaunchArgument")
        if ast.literal_eval(call.args[0]) == argument
        for keyword in call.keywords
        if keyword.arg == "default_value"
    )
    assert default == "false"


@dataclass
class Launch:
    """A running `ros2 launch`, and what it has printed so far."""

    process: subprocess.Popen[str]
    printed: list[str] = field(default_factory=list)

    def wait_for(self, *texts: str) -> None:
        """Read on until every text has been printed."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if all(any(text in seen for seen in self.printed) for text in texts):
                return
        pytest.fail(f"ended without {texts}:\n{''.join(self.printed)}")

    def end(self) -> int:
        """Stop as Ctrl-C does; return the exit code."""
        if self.process.poll() is None:
            time.sleep(SETTLED_S)
            self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=UNTIL_S)
        self.printed.extend(rest.splitlines(keepends=True))
        return self.process.returncode


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the package has been installed from the sources, with no network of the user's choice."""
    folder = tmp_path_factory.mktemp("launch")
    source, prefix = folder / "source", folder / "prefix"
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "install", "log", "runs", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*pip, "--prefix", prefix, source], check=True)
    environ = {
        key: value for key, value in os.environ.items() if not re.match(r"ROS_DOMAIN|ROS_AUTO|FAST(RTPS|DDS)_D", key)
    }

    def prepend(name: str, value: Path) -> None:
        environ[name] = os.pathsep.join([str(value), *filter(None, [environ.get(name)])])

    prepend("PYTHONPATH", next(prefix.glob("lib/python3.*/site-packages")))
    prepend("AMENT_PREFIX_PATH", prefix)
    prepend("PATH", Path(sys.executable).parent)
    return environ


@pytest.fixture
def launch(environment: dict[str, str], tmp_path: Path) -> Iterator[object]:
    """Starts a launch file, one of the package unless told otherwise; ends it after the test."""
    started = []

    def start(name: str, *arguments: str, package: bool = True, **env: str) -> Launch:
        process = subprocess.Popen(
            ["ros2", "launch", *(["sac_ae_ros"] if package else []), name, *arguments],
            cwd=tmp_path,
            env={**environment, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(Launch(process))
        return started[-1]

    yield start
    for each in started:
        each.end()


def children_of(run: Launch) -> list[int]:
    """The processes that a launch has started."""
    return list(map(int, Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()))


def node_of(run: Launch) -> int:
    """The process of the one node of a launch."""
    (pid,) = [child for child in children_of(run) if "policy_node" in command_line(child)[1]]
    return pid


def command_line(pid: int) -> list[str]:
    return [*Path(f"/proc/{pid}/cmdline").read_text().split("\0"), ""]


@pytest.fixture
def kill() -> Iterator[object]:
    """kill -9; what Fast DDS then leaves in shared memory is removed once nobody may use it any more."""
    left: list[Path] = []

    def kill(pid: int) -> None:
        files = [str(link.resolve()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        left.extend(Path(file) for file in files if re.fullmatch(r"/dev/shm/fastrtps_[0-9a-f]{16}_el", file))
        os.kill(pid, signal.SIGKILL)

    yield kill
    for lock in left:
        lock.unlink(missing_ok=True)
        Path(str(lock).removesuffix("_el")).unlink(missing_ok=True)


def own() -> dict[str, str]:
    """A network that no other test is in."""
    return {"ROS_DOMAIN_ID": str(domain_id()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@needs_launch
def test_policy_launch_activates_without_arming(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    run = launch("policy.launch.py", f"policy:={policy}", "namespace:=robot", **own())
    run.wait_for("active and not armed")
    assert run.end() == 0
    assert not [line for line in run.printed if "ERROR" in line]


@needs_launch
def test_a_policy_that_cannot_be_loaded_ends_the_launch(launch) -> None:
    run = launch("policy.launch.py", "policy:=/nowhere.onnx", **own())
    run.wait_for("/nowhere.onnx", "policy_node could not be started")
    assert run.process.wait(UNTIL_S) == 1


@needs_launch
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("policy.launch.py", ("ouput:=shadow", "zzz:=1"), "got 'ouput' (did you mean 'output'?), 'zzz';"),
        ("sim.launch.py", ("ouput:=shadow",), "got 'ouput' (did you mean 'output'?);"),
        ("record.launch.py", ("imagetopic:=/a",), "got 'imagetopic' (did you mean 'image_topic'?);"),
        ("replay.launch.py", ("bagg:=/a",), "got 'bagg' (did you mean 'bag'?);"),
    ],
)
@pytest.mark.parametrize("by_path", [False, True])
def test_a_misspelt_argument_ends_the_launch_before_any_node(
    environment, launch, name: str, arguments: tuple[str, ...], told: str, by_path: bool
) -> None:
    if by_path:
        name = str(Path(environment["AMENT_PREFIX_PATH"].split(os.pathsep)[0], "share", "sac_ae_ros", "launch", name))
    run = launch(name, *arguments, package=not by_path, **own())
    assert run.process.wait(UNTIL_S) == 1
    run.end()
    printed = "".join(run.printed)
    assert f"expected names that {Path(name).name} declares, {told}" in printed
    assert "process started" not in printed


@needs_launch
@pytest.mark.parametrize(
    "words",
    [
        ("-d", "sac_ae_ros", "policy.launch.py"),
        ("sac_ae_ros", "-d", "policy.launch.py"),
        ("sac_ae_ros", "--launch-prefix", "env", "policy.launch.py"),
        ("sac_ae_ros", "policy.launch.py", "-d"),
    ],
)
def test_options_of_ros2_launch_hide_no_misspelt_argument(launch, words: tuple[str, ...]) -> None:
    run = launch(words[0], *words[1:], "ouput:=shadow", package=False, **own())
    assert run.process.wait(UNTIL_S) != 0
    run.end()
    printed = "".join(run.printed)
    assert "'ouput' (did you mean 'output'?)" in printed or "unrecognized arguments" in printed, printed[-2000:]
    assert "process started" not in printed


@needs_launch
def test_what_launch_itself_reads_is_no_unknown_argument(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    run = launch("policy.launch.py", f"policy:={policy}", "launch-prefix:=env", "sigterm_timeout:=9", **own())
    run.wait_for("active and not armed")


@needs_launch
def test_a_launch_file_that_includes_ours_keeps_its_own_arguments(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    file = tmp_path / "policy.launch.py"  # even by that name
    file.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription\n"
        "from launch_ros.substitutions import FindPackageShare\n"
        "def generate_launch_description():\n"
        "    ours = [FindPackageShare('sac_ae_ros'), '/launch/policy.launch.py']\n"
        "    return LaunchDescription([DeclareLaunchArgument('ouput'), IncludeLaunchDescription(ours)])\n"
    )
    run = launch(str(file), f"policy:={policy}", "ouput:=x", package=False, **own())
    run.wait_for("active and not armed")


@needs_launch
def test_a_policy_in_the_params_file_holds_and_cannot_arm(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    params = tmp_path / "params.yaml"
    params.write_text(f"policy_node:\n  ros__parameters:\n    policy: {policy}\n    arm_on_activate: true\n")
    run = launch("policy.launch.py", f"params_file:={params}", **own())
    run.wait_for("policy tiny", "active and not armed")


@needs_launch
def test_a_home_in_paths_is_expanded(launch, tmp_path: Path) -> None:
    write_policy(tmp_path / "tiny.onnx")
    (tmp_path / "params.yaml").write_text("policy_node:\n  ros__parameters:\n    max_age_s: 0.7\n")
    run = launch("policy.launch.py", "params_file:=~/params.yaml", "policy:=~/tiny.onnx", HOME=str(tmp_path), **own())
    run.wait_for("policy tiny", "active and not armed")


@needs_launch
def test_what_the_params_file_says_holds_unless_an_argument_says_otherwise(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    params = tmp_path / "params.yaml"
    params.write_text(f"policy_node:\n  ros__parameters:\n    policy: {policy}\n    output: shadow\n")
    shadow = launch("policy.launch.py", f"params_file:={params}", **own())
    shadow.wait_for("commands go to /policy_node/shadow_cmd only")
    shadow.end()
    command = launch("policy.launch.py", f"params_file:={params}", "output:=command", **own())
    command.wait_for("active and not armed: call ~/arm")
    assert not any("commands go to" in line for line in command.printed)


@needs_launch
def test_topics_are_remapped_and_camera_info_stands_beside_the_images(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    topics = {
        "image_topic": "/camera/image_raw",
        "command_topic": "/base/cmd",
        "enable_topic": "/pad/deadman",
        "e_stop_topic": "/panel/stop",
        "joint_states_topic": "/base/joints",
    }
    run = launch(
        "policy.launch.py", f"policy:={policy}", *(f"{key}:={value}" for key, value in topics.items()), **own()
    )
    run.wait_for("active and not armed")
    remapped = set(command_line(node_of(run)))
    assert remapped >= {
        "image:=/camera/image_raw",
        "camera_info:=/camera/camera_info",
        "cmd_vel:=/base/cmd",
        "enable:=/pad/deadman",
        "e_stop:=/panel/stop",
        "joint_states:=/base/joints",
    }


@needs_launch
def test_a_node_that_dies_comes_back_active_unarmed_and_with_the_launched_policy(kill, launch, tmp_path: Path) -> None:
    policy, newer = write_policy(tmp_path / "tiny.onnx"), write_policy(tmp_path / "newer.onnx", gain=12.5)
    store = ModelStore(tmp_path / "versions")
    store.publish(newer.read_bytes(), str(newer))
    arguments = (f"policy:={policy}", f"policy_dir:={store.folder}", "use_respawn:=true")
    run = launch("policy.launch.py", *arguments, **own())
    for _ in range(3):
        run.wait_for("active and not armed")
        assert any("policy_dir holds version 1" in line for line in run.printed)
        run.printed.clear()
        kill(node_of(run))
    run.wait_for("active and not armed")
    assert run.end() == 0


@needs_launch
def test_without_respawn_a_node_that_dies_ends_the_launch(kill, launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    run = launch("policy.launch.py", f"policy:={policy}", **own())
    run.wait_for("active and not armed")
    kill(node_of(run))
    run.wait_for("process has died")
    assert run.process.wait(UNTIL_S) is not None


@needs_launch
def test_a_node_that_could_not_start_is_not_tried_again(launch, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("policy_node:\n  ros__parameters:\n    max_age_s: 1\n")
    run = launch("policy.launch.py", f"params_file:={params}", "use_respawn:=true", **own())
    assert run.process.wait(UNTIL_S) == 1
    run.end()
    assert "".join(run.printed).count("process started") == 1


@needs_launch
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_node_outlives_a_launch_that_is_killed(launch, tmp_path: Path, number: int) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    run = launch("sim.launch.py", f"policy:={policy}", f"domain_id:={domain_id()}")
    run.wait_for("active and", "episode with seed")
    nodes = children_of(run)
    run.process.send_signal(number)
    run.process.wait(UNTIL_S)
    until_s = time.monotonic() + UNTIL_S
    while any(Path(f"/proc/{pid}").exists() for pid in nodes):
        assert time.monotonic() < until_s, "nodes are left"
        time.sleep(0.1)


@needs_launch
def test_what_dies_never_arms_itself(launch) -> None:
    run = launch("policy.launch.py", "use_respawn:=true", "arm_on_activate:=true", **own())
    run.wait_for("use_respawn: expected no arm_on_activate")
    assert run.process.wait(UNTIL_S) == 1


@needs_launch
def test_a_params_file_that_is_missing_is_an_error(launch) -> None:
    run = launch("policy.launch.py", "params_file:=/nowhere.yaml", **own())
    run.wait_for("params_file: there is no file /nowhere.yaml")
    assert run.process.wait(UNTIL_S) == 1


@needs_launch
def test_sim_launch_arms_on_a_network_of_its_own(launch, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "tiny.onnx")
    users = {
        "ROS_DOMAIN_ID": "3",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "ROS_STATIC_PEERS": "127.0.0.9",
        "ROS_DISCOVERY_SERVER": "127.0.0.9:11811",
    }
    arguments = (f"policy:={policy}", "episode_seed:=3", f"namespace:=sim{os.getpid()}")
    run = launch("sim.launch.py", *arguments, **users)
    run.wait_for(
        "ROS_DOMAIN_ID=87 ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST", "episode with seed 3", "policy_node]: armed"
    )
    inherited = [Path(f"/proc/{pid}/environ").read_text() for pid in children_of(run)]
    assert len(inherited) == 3
    for each in inherited:
        for wanted in ("fastdds_shm.xml", "ROS_DOMAIN_ID=87\0", "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST\0"):
            assert wanted in each
        assert "127.0.0.9" not in each
    assert run.end() == 0


@needs_launch
def test_replay_launch_plays_a_recording_and_ends_with_it(launch, tmp_path: Path) -> None:
    images = [(START_NS + i * 10**7, "/camera/image", image(START_NS + i * 10**7, 90)) for i in range(20)]
    bag = write(tmp_path / "2024", [*images, (START_NS, "/cmd_vel", twist(0.1, 0.2))])
    arguments = (f"bag:={bag}", "image_topic:=/lens", "namespace:=player", "wait_for:=0", "rate:=2")
    run = launch("replay.launch.py", *arguments, **own())
    run.wait_for("at rate 2: /lens, /recorded/cmd_vel", "played 21 messages")
    assert run.process.wait(UNTIL_S) == 0


@needs_launch
def test_a_recording_that_is_not_there_fails_the_launch(launch) -> None:
    run = launch("replay.launch.py", "bag:=/nowhere.mcap", **own())
    run.wait_for("error: /nowhere.mcap: expected a recording", "replay_node has failed")
    assert run.process.wait(UNTIL_S) == 1


@needs_launch
def test_record_launch_records_remapped_topics_until_it_is_ended(launch, tmp_path: Path) -> None:
    network = own()
    images = [(START_NS + i * 10**7, "/lens/image", image(START_NS + i * 10**7, 90)) for i in range(300)]
    out, bag = tmp_path / "drive", write(tmp_path / "played", images)
    arguments = (f"out:={out}", "image_topic:=/lens/image", "topics:=/recorded/more, odom")
    run = launch("record.launch.py", *arguments, **network)
    run.wait_for("recording to", "/lens/camera_info", "/recorded/more", "/odom")
    player = launch("replay.launch.py", f"bag:={bag}", "wait_for:=1", **network)
    player.wait_for("played 300 messages")
    assert run.end() == 0
    with Bag.open(out) as recorded:
        assert recorded.topics["/lens/image"].messages == 300
        assert recorded.salvage is None


@needs_launch
def test_a_recording_that_exists_already_fails_the_launch(launch, tmp_path: Path) -> None:
    run = launch("record.launch.py", f"out:={tmp_path}", **own())
    run.wait_for(f"recording: {tmp_path} exists already", "record_node has failed")
    assert run.process.wait(UNTIL_S) == 1
