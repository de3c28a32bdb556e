"""What no parameter takes ends a node's start; the shipped files reach a node under any name."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from ros_network import NAMESPACE, ROOT

from sac_ae_ros.nodes.given import _matches

CONFIG = ROOT / "config"
OF_POLICY_NODE = [
    *sorted((CONFIG / "robots").glob("*.yaml")),
    *sorted((CONFIG / "commands").glob("*.yaml")),
    CONFIG / "policy.yaml",
    CONFIG / "policy_sim.yaml",
]
MOST_BYTES = 3 << 30  # of addresses: what a file makes a node take beyond ends it
OTHERS = "twist_mux:\n  ros__parameters:\n    use_stamped: true\n"


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"sac_ae_ros.nodes.{module}", "--ros-args", *map(str, arguments)]


def start(network, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A start that ends by itself."""
    return subprocess.run(
        ["prlimit", f"--as={MOST_BYTES}", *command(module, *arguments)],
        env=network.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def refusal(network, module: str, *arguments: object) -> str:
    """The one line of a start that fails with code 2."""
    done = start(network, module, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


@pytest.mark.parametrize(
    ("module", "wrong", "nearest"),
    [
        ("policy_node", "e_stop_requierd:=true", "e_stop_required"),
        ("policy_node", "limits.max_slow:=[1.0, 1.0]", "limits.max_slew"),
        ("policy_node", "swap:=episode_end", "reload.swap"),
        ("policy_node", "use_sim_tiem:=true", "use_sim_time"),
        ("record_node", "outt:=/nowhere", "out"),
        ("replay_node", "bagg:=/nowhere", "bag"),
        ("sim_robot_node", "command.typo:=geometry_msgs/msg/Twist", "command.type"),
        ("sim_robot_node", "tsk:=rover/chase_ball", "task"),
    ],
)
def test_a_misspelt_parameter_ends_the_start(shared_network, module, wrong, nearest):
    name = wrong.partition(":=")[0]
    assert f"got '{name}' (did you mean '{nearest}'?)" in refusal(shared_network, module, "-p", wrong)


@pytest.mark.parametrize(
    "name",
    [
        "command.allow_publishers:=[/teleop]",
        "command.other_publishers:=stop",
        "command.stop:=zero",
        "command.stop_values:=[0.0, 0.0]",
        "command.stop_constants:=[linear.y=0.0]",
        "command.joints:=[shoulder]",
        "command.joint_timeout_s:=0.5",
        "command.frame_id:=base_link",
        "command.time_from_start_s:=0.1",
    ],
)
def test_what_only_a_node_that_commands_has_is_refused_by_the_simulated_robot(shared_network, name):
    line = refusal(shared_network, "sim_robot_node", "-p", name)
    assert f"expected names that sim_robot_node has, got '{name.partition(':=')[0]}'" in line


def test_all_that_is_wrong_is_named(shared_network, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    colour: red\n    image: {rotate: 90}\n    max_age_s: 0.2\n")
    line = refusal(shared_network, "policy_node", "--params-file", file, "-p", "other:max_age_s:=1.0")
    assert "'colour'" in line
    assert "'image.rotate' (did you mean 'image.rotate_deg'?)" in line
    assert "-p other:max_age_s:=1.0: expected a parameter of /policy_node, got one of '/other'" in line
    assert "'max_age_s'" not in line


@pytest.mark.parametrize(
    ("key", "remaps"),
    [("policy_node", ("-r", "__node:=driver")), ("policy_node", ("-r", "__ns:=/robot")), ("polcy_node", ())],
)
def test_a_file_for_others_alone_ends_the_start(shared_network, tmp_path, key, remaps):
    file = tmp_path / "robot.yaml"
    file.write_text(f"{key}:\n  ros__parameters:\n    e_stop_required: true\n{OTHERS}")
    line = refusal(shared_network, "policy_node", *remaps, "--params-file", file)
    assert f"{file}: expected parameters of /" in line
    assert f"got those of '/{key}', '/twist_mux'; the key '/**' fits every node" in line


def test_a_file_of_thousands_of_levels_is_refused_in_one_line(shared_network, tmp_path):
    file = tmp_path / "deep.yaml"
    file.write_text("/**:\n  ros__parameters:\n    " + "{a: " * 5000 + "1" + "}" * 5000 + "\n")
    assert "got more levels than any node has" in refusal(shared_network, "policy_node", "--params-file", file)


def laughs(levels: int) -> str:
    """A params file with 2 to the power of `levels` leaves."""
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, levels)]
    return "\n    ".join(["/**:\n  ros__parameters:", *lines]) + "\n"


@pytest.mark.parametrize(
    "text", [laughs(28), "/**: &a\n  ros__parameters:\n    a: 1\n    b: {x: *a}\n"], ids=["laughs", "of itself"]
)
@pytest.mark.parametrize("module", ["policy_node", "record_node"])
def test_aliases_are_refused_before_they_are_followed(shared_network, tmp_path, module, text):
    file = tmp_path / "laughs.yaml"
    file.write_text(text)
    line = refusal(shared_network, module, "--params-file", file)
    assert f"{file}, line 4: expected parameters as YAML, got one where the alias *a" in line


def test_a_parameter_that_is_yaml_itself_is_bounded(shared_network):
    laughs = ", ".join(["&a0 {x: 1}"] + [f"&a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)])
    for name in ("command.constants", "limits.low"):
        given = json.dumps(f"linear.y=[{laughs}]" if name == "command.constants" else f"[{laughs}]")
        arguments = ("-p", f"{name}:={given}", "-p", f"policy:={ROOT}/models/rover_chase_ball.onnx")
        assert f"{name}: expected" in refusal(shared_network, "policy_node", *arguments)


@pytest.mark.parametrize(
    ("module", "given", "told"),
    [
        ("policy_node", "watchdog_timeout_s:=1", "watchdog_timeout_s: expected a float, got an integer, 1; write 1.0"),
        ("policy_node", 'e_stop_required:="true"', 'expected a bool, got a string, "true"; write true without quotes'),
        ("policy_node", "limits.low:=[-1, -2]", "expected a list of floats, got a list of integers, [-1, -2]; write"),
        ("policy_node", "use_sim_time:=1", "use_sim_time: expected a bool, got an integer, 1; write true"),
        (
            "record_node",
            "out:=7",
            """expected a string, got an integer, 7; write "7" with its quotes, on a command line""",
        ),
        ("record_node", "topics:=/odom", 'expected a list of strings, got a string, "/odom"; write [/odom]'),
        ("replay_node", "rate:=2", "rate: expected a float, got an integer, 2; write 2.0"),
        ("sim_robot_node", "camera_rate_hz:=20", "camera_rate_hz: expected a float, got an integer, 20; write 20.0"),
        (
            "rearmer",
            "policy_node:=1.5",
            'policy_node: expected a string, got a float, 1.5; write "1.5" with its quotes',
        ),
    ],
)
def test_a_value_of_another_type_ends_the_start_and_says_what_to_write(shared_network, module, given, told):
    assert told in refusal(shared_network, module, "-p", given)


def test_a_word_that_yaml_takes_for_a_bool_is_asked_for_in_quotes(shared_network):
    told = "camera_info.check: expected a string, got a bool, true; write the word that was meant in quotes"
    assert told in refusal(shared_network, "policy_node", "-p", "camera_info.check:=on")


def test_a_list_of_several_types_ends_the_start(shared_network):
    line = refusal(shared_network, "policy_node", "-p", "limits.low:=[1, 2.5]")
    assert "expected a list with items of one type, such as [1.0, 2.5] instead of [1, 2.5]" in line
    assert ".c:" not in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# mine\n/**:\n  threads: 1\n", ", line 3: expected the key ros__parameters between a node's name and its"),
        ("threads: 1\n", ", line 1: expected the key ros__parameters between"),
        ("a:\n  ros__parameters:\n    b: 1\nmine:\n  c: {d: [1]}\n", ", line 5: expected the key ros__parameters"),
        ("/**:\n  ros__parameters:\n\tthreads: 1\n", "; indent with spaces, not with tabs"),
        ("/**:\n  ros__parameters: {threads: 1\n", ", line 3: expected parameters as YAML, got one where "),
        (
            "/**:\n  ros__parameters:\n    limits:\n      low: [1, 0.8]\n",
            ", line 4: low: expected items of one type, got integers beside floats; write 1.0 for 1",
        ),
        ("/**:\n  ros__parameters:\n    threads:\n", ", line 3: threads: expected a value, got none"),
        (
            "/**:\n  ros__parameters:\n    limits.low:\n    - 1.0\n    -\n",
            ", line 3: limits.low: expected a value, got",
        ),
        ("/**:\n  ros__parameters:\n", ", line 2: ros__parameters: expected a value, got none"),
        (
            '/**:\n  ros__parameters:\n    hardware_id: "\\uD800"\n',
            ", line 3: hardware_id: expected text, got the half",
        ),
        ("/policy_*:\n  ros__parameters: {threads: 1}\n", ", line 1: expected a node's name, of which * or ** may"),
        ("//policy_node:\n  ros__parameters: {threads: 1}\n", ", line 1: expected a node's name, of which"),
        (
            "/**: &a\n  ros__parameters: {threads: 1}\n/b: *a\n",
            ", line 3: expected parameters as YAML, got one where the",
        ),
    ],
    ids=[
        "no level",
        "flat",
        "another section",
        "tab",
        "brace",
        "mixed",
        "no value",
        "no item",
        "no parameters",
        "surrogate",
        "part of a name",
        "slashes",
        "alias",
    ],
)
def test_a_file_that_rcl_cannot_read_is_refused_in_words_of_ours(shared_network, tmp_path, text, told):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    line = refusal(shared_network, "policy_node", "--params-file", file)
    assert line.startswith(f"error: {file}")
    assert told in line


def test_a_pipe_is_no_parameter_file(shared_network, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: expected a file, got a folder, a pipe" in refusal(
        shared_network, "policy_node", "--params-file", tmp_path / "pipe"
    )


def test_an_integer_too_large_for_ros_is_not_proposed(shared_network):
    line = refusal(shared_network, "policy_node", "-p", "threads:=99999999999999999999999")
    assert line.endswith("threads: expected an integer, got a float, 1e+23; write one such as 1")


def test_what_looks_mixed_but_is_not_is_left_to_ros(shared_network, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    limits: {low: [1e0, 0.5]}\n")
    process = start(shared_network, "policy_node", "--params-file", file, "-p", "no_such:=1")
    assert "expected items of one type" not in process.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("image_topic", "'image_topic' (a topic: with launch image_topic:=TOPIC, else -r image:=TOPIC)"),
        ("cmd_vel", "'cmd_vel' (a topic: with launch command_topic:=TOPIC, else -r cmd_vel:=TOPIC)"),
        ("namespace", "'namespace' (a launch argument: without launch -r __ns:=/NAMESPACE)"),
    ],
)
def test_launch_arguments_and_topics_are_told_from_parameters(shared_network, name, told):
    assert told in refusal(shared_network, "policy_node", "-p", f"{name}:=/a")


def test_all_wrong_types_of_a_file_are_named(shared_network, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    max_age_s: 1\n    e_stop_required: 'yes'\n    limits: {high: 2.0}\n")
    line = refusal(shared_network, "policy_node", "--params-file", file)
    for told in ("got an integer, 1; write 1.0", "write true without quotes", "got a float, 2.0; write [2.0]"):
        assert told in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/**:\n  ros__parameters:\n    threads: 1\n    threads: 2\n", "'threads' in line 3 and again in line 4"),
        (
            "/**:\n  ros__parameters:\n    limits.low: [1.0]\n    limits:\n      low: [2.0]\n",
            "'low' in line 3 and again in line 5",
        ),
        (
            "/**:\n  ros__parameters:\n    image: {rotate_deg: 90}\n    threads: 1\n    image: {roi: [1, 2, 3, 4]}\n",
            "'image' in line 3 and again in line 5",
        ),
        (
            "/**:\n  ros__parameters:\n    threads: 1\n/**:\n  ros__parameters:\n    max_age_s: 1.0\n",
            "'/**' in line 1 and again in line 4",
        ),
        (
            "policy_node:\n  ros__parameters:\n    threads: 1\n/policy_node:\n  ros__parameters: {threads: 2}\n",
            "'threads' in line 3 and again in line 5",
        ),
    ],
    ids=["parameter", "dotted and nested", "group", "section", "two spellings of a node"],
)
def test_a_key_that_stands_twice_ends_the_start(shared_network, tmp_path, text, told):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    assert f"{file}: expected every key once, got {told}" in refusal(
        shared_network, "policy_node", "--params-file", file
    )


@pytest.mark.parametrize("module", ["record_node", "replay_node", "sim_robot_node", "rearmer"])
def test_no_node_takes_a_key_twice(shared_network, tmp_path, module):
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    use_sim_time: true\n    use_sim_time: false\n")
    assert "'use_sim_time' in line 3 and again in line 4" in refusal(shared_network, module, "--params-file", file)


def test_a_recording_does_not_begin_without_its_file(shared_network, tmp_path):
    file, out = tmp_path / "robot.yaml", tmp_path / "drive"
    file.write_text(OTHERS)
    refusal(shared_network, "record_node", "-p", f"out:={out}", "--params-file", file)
    assert not out.exists()


def started(network, node: str, module: str, *arguments: object, names: list[str]) -> list[Any]:
    """The values of those parameters in a real process."""
    process = subprocess.Popen(
        command(module, "-r", f"__ns:={NAMESPACE}", "-r", f"__node:={node}", *arguments), env=network.env, cwd=ROOT
    )
    try:
        values = network.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=names)).values
        return [parameter_value_to_python(value) for value in values]
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("file", OF_POLICY_NODE, ids=lambda file: file.stem)
def test_a_shipped_file_reaches_a_node_of_any_name(shared_network, file: Path):
    expected = flat(yaml.safe_load(file.read_text())["/**"]["ros__parameters"])
    found = started(shared_network, f"driver_{file.stem}", "policy_node", "--params-file", file, names=list(expected))
    for (name, value), came in zip(expected.items(), found, strict=True):
        assert (list(came) if isinstance(value, list) else came) == value, name


def test_the_simulation_s_file_reaches_a_node_of_any_name(shared_network):
    pytest.importorskip("dm_control")
    arguments = ("--params-file", CONFIG / "sim_robot.yaml", "-p", "episode_seed:=3")
    found = started(shared_network, "rover", "sim_robot_node", *arguments, names=["renderer", "episode_seed"])
    assert found == ["fast", 3]


@pytest.mark.parametrize("word", ["off", "'off'"])
def test_off_needs_no_quotes_where_it_is_a_choice(shared_network, tmp_path, word):
    file = tmp_path / "robot.yaml"
    file.write_text(f"/**:\n  ros__parameters:\n    camera_info: {{check: {word}}}\n")
    name, found = f"eye_{len(word)}", ["camera_info.check"]
    assert started(shared_network, name, "policy_node", "--params-file", file, names=found) == ["off"]


def test_a_list_as_launch_writes_it_reaches_the_node(shared_network, tmp_path):
    file = tmp_path / "launch_params"
    file.write_text(yaml.dump({"/**": {"ros__parameters": {"limits.low": (-0.5, -1.0)}}}, default_flow_style=False))
    assert "!!python/tuple" in file.read_text()
    (low,) = started(shared_network, "launched", "policy_node", "--params-file", file, names=["limits.low"])
    assert list(low) == [-0.5, -1.0]


def test_a_node_s_own_section_may_differ_from_that_of_all(shared_network, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(
        "/**:\n  ros__parameters: {max_age_s: 0.5, threads: 1}\n/*/special:\n  ros__parameters: {max_age_s: 0.25}\n"
    )
    arguments = ("--params-file", file)
    assert started(shared_network, "special", "policy_node", *arguments, names=["max_age_s"]) == [0.25]


def test_what_ros_itself_declares_and_other_nodes_sections_are_no_fault(shared_network, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(f"{OTHERS}/*/mine:\n  ros__parameters:\n    max_age_s: 0.25\n    use_sim_time: false\n")
    arguments = (
        "--params-file", file, "-p", "qos_overrides./parameter_events.publisher.depth:=10",
        "-p", "start_type_description_service:=true",
    )  # fmt: skip
    assert started(shared_network, "mine", "policy_node", *arguments, names=["max_age_s"]) == [0.25]


@pytest.mark.parametrize(
    ("section", "name", "holds"),
    [
        ("/**", "/robot/driver", True),
        ("/**/driver", "/driver", True),
        ("/**/driver", "/a/b/driver", True),
        ("/*/driver", "/a/driver", True),
        ("/*/driver", "/a/b/driver", False),
        ("/*", "/driver", True),
        ("/*", "/a/driver", False),
        ("/driver", "/driver", True),
        ("/driver", "/a/driver", False),
        ("/drive", "/driver", False),
    ],
)
def test_sections_match_as_in_ros(section, name, holds):
    assert _matches(section, name) is holds
