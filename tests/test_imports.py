"""Which part may import what (docs/architecture.md), for every source file, and what really gets loaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for package in ("sac_ae_ros", "sim_training") for path in (ROOT / package).rglob("*.py"))

CORE_MAY = {"numpy", "cv2", "onnx", "onnxruntime", "google", "sac_ae_ros"}
ROS = {
    "rclpy", "ament_index_python", "builtin_interfaces", "cv_bridge", "diagnostic_msgs", "geometry_msgs",
    "lifecycle_msgs", "nav_msgs", "rcl_interfaces", "rosgraph_msgs", "rosidl_runtime_py", "sensor_msgs", "std_msgs",
    "std_srvs", "trajectory_msgs",
}  # fmt: skip
SIMULATION = {"mujoco", "dm_control", "dm_env", "gymnasium", "sim_training"}
MAY_SIMULATE = {  # and then only when called, never when imported
    "sac_ae_ros.cli",
    "sac_ae_ros.cli_bags",
    "sac_ae_ros.demo",
    "sac_ae_ros.doctor",
    "sac_ae_ros.nodes.finetune_node",
    "sac_ae_ros.nodes.sim_robot_node",
    "sac_ae_ros.report",  # films an episode for sim_training's page
}
TRAINING_MAY = ("sac_ae_ros.core", "sac_ae_ros.page", "sac_ae_ros.bounded_yaml")
MAY_USE_BAGS = {"sac_ae_ros.nodes.record_node", "sac_ae_ros.nodes.replay_node"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules(package: str) -> list[str]:
    return [name for name in map(module_name, SOURCES) if f"{name}.".startswith(f"{package}.")]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module's full name, and whether it is imported with the file (not inside a function)."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            yield from ((f"{node.module}.{alias.name}", id(node) not in lazy) for alias in node.names)


def trespasses(importer: str, imported: str, at_import: bool) -> str | None:
    """The rule that `importer` breaks by importing `imported`, or None."""
    top = imported.partition(".")[0]

    def inside(package: str) -> bool:
        return f"{importer}.".startswith(f"{package}.")

    def brings(package: str) -> bool:
        return f"{imported}.".startswith(f"{package}.")

    if top in {"launch", "launch_ros"}:
        return "only launch/ imports launch"
    if top in ROS and not inside("sac_ae_ros.nodes"):
        return "only nodes/ imports rclpy and messages"
    if top == "torch" and not inside("sim_training"):
        return "torch lives in sim_training"
    if inside("sac_ae_ros.core"):
        if top not in CORE_MAY | sys.stdlib_module_names:
            return "core imports numpy, cv2, onnx and onnxruntime only"
        if top == "sac_ae_ros" and not brings("sac_ae_ros.core"):
            return "core imports nothing else of sac_ae_ros"
    if inside("sim_training") and top == "sac_ae_ros" and not any(map(brings, TRAINING_MAY)):
        return f"sim_training imports of sac_ae_ros only {TRAINING_MAY}"
    if inside("sac_ae_ros.nodes") and brings("sac_ae_ros.bag") and importer not in MAY_USE_BAGS:
        return "of the nodes only the recorder and the player know recordings"
    if inside("sac_ae_ros.bag") and brings("sac_ae_ros.nodes"):
        return "recordings need no ROS"
    if inside("sac_ae_ros") and top in SIMULATION and (at_import or importer not in MAY_SIMULATE):
        return "sac_ae_ros reaches the simulation lazily, from few places"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_keep_to_the_rules(path: Path) -> None:
    importer = module_name(path)
    broken = [f"{name}: {why}" for name, at_import in imports(path) if (why := trespasses(importer, name, at_import))]
    assert not broken


@pytest.mark.parametrize(
    ("importer", "imported", "at_import"),
    [
        ("sac_ae_ros.core.image", "rclpy.node", True),
        ("sac_ae_ros.core.image", "cv_bridge.CvBridge", False),
        ("sac_ae_ros.core.image", "yaml.safe_load", True),
        ("sac_ae_ros.core.policy", "sac_ae_ros.nodes.params", False),
        ("sac_ae_ros.cli", "torch.nn", False),
        ("sac_ae_ros.cli", "sim_training.trainer", True),
        ("sac_ae_ros.bag.reader", "rclpy.serialization", False),
        ("sac_ae_ros.bag.reader", "sac_ae_ros.nodes.convert", False),
        ("sac_ae_ros.nodes.policy_node", "sac_ae_ros.bag.reader", False),
        ("sac_ae_ros.nodes.policy_node", "sim_training.config", False),
        ("sim_training.trainer", "std_msgs.msg", True),
        ("sim_training.trainer", "sac_ae_ros.demo", False),
        ("sim_training.trainer", "launch.actions", False),
    ],
)
def test_the_rules_refuse(importer: str, imported: str, at_import: bool) -> None:
    assert trespasses(importer, imported, at_import)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=module_name)
def test_init_files_hold_a_docstring_only(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1, f"{path} holds more than a docstring"
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


@pytest.mark.parametrize(
    ("loaded", "unwanted"),
    [
        (["sac_ae_ros.nodes.policy_node"], {"torch", "mujoco", "dm_control", "gymnasium", "sim_training", "onnx"}),
        (["sac_ae_ros.nodes.sim_robot_node"], {"torch", "mujoco", "dm_control", "onnxruntime"}),
        (["sac_ae_ros.nodes.record_node"], {"torch", "mujoco", "onnxruntime", "cv2"}),
        (["sac_ae_ros.nodes.replay_node"], {"torch", "mujoco", "onnxruntime"}),
        (["sac_ae_ros.cli"], {"torch", "mujoco", "rclpy", "onnxruntime", "cv2"}),
        (modules("sac_ae_ros.core"), {"torch", "mujoco", "rclpy", "sim_training"}),
        (modules("sim_training"), {"rclpy"}),
    ],
    ids=["policy_node", "sim_robot_node", "record_node", "replay_node", "cli", "core", "sim_training"],
)
def test_importing_loads_no_more_than_needed(loaded: list[str], unwanted: set[str]) -> None:
    code = f"import {', '.join(loaded)}, sys; print(*sorted({unwanted!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
