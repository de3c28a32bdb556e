"""What pip and colcon install, and that ROS 2 tools would find it there."""

import ast
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from importlib.metadata import PathDistribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NAME = "sac_ae_ros"
NODES = {"policy_node", "record_node", "replay_node", "sim_robot_node"}
DATA = ("launch", "config", "models")
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "install", "log", "runs", "tests", "docs", "__pycache__", "*.egg-info", ".*_cache"
)


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip_install(source: Path) -> Path:
    prefix = source / "prefix"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    run(*pip, "--prefix", prefix, source, cwd=source)
    return prefix


def colcon_build(source: Path) -> Path:
    run("colcon", "build", cwd=source)
    return source / "install" / NAME


def colcon_build_links(source: Path) -> Path:
    run("colcon", "build", "--symlink-install", cwd=source)
    return source / "install" / NAME


@pytest.fixture(scope="module", params=[pip_install, colcon_build, colcon_build_links])
def prefix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix into which a copy of the sources has been installed."""
    source = tmp_path_factory.mktemp(request.param.__name__) / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_BEHIND)
    install: Callable[[Path], Path] = request.param
    return install(source)


def test_the_index_knows_the_package(prefix: Path) -> None:
    assert (prefix / "share/ament_index/resource_index/packages" / NAME).is_file()
    assert (prefix / "share" / NAME / "package.xml").is_file()


def test_every_data_file_is_in_share(prefix: Path) -> None:
    def files(folder: Path) -> set[str]:
        paths = (path for top in DATA for path in (folder / top).rglob("*") if "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)) for path in paths if path.is_file()}

    assert files(prefix / "share" / NAME) == files(ROOT)
    assert {"launch/policy.launch.py", "launch/sim.launch.py", "config/policy.yaml"} <= files(ROOT)


def test_nodes_are_executables_that_run_on_the_python_of_path(prefix: Path) -> None:
    for node in NODES:
        path = prefix / "lib" / NAME / node
        assert path.stat().st_mode & stat.S_IXUSR, f"{path} is not executable"
        assert path.read_text().splitlines()[0] == "#!/usr/bin/env python3"


def is_colcons(prefix: Path) -> bool:
    return (prefix.parent / "setup.bash").exists()


def in_shell(prefix: Path, command: str) -> str:
    """Run a command where the installed package is found: as `setup.bash` has it, or as a user of pip would."""
    library = next(prefix.glob("lib/python3.*/site-packages"))
    pip = f"export AMENT_PREFIX_PATH={prefix} PYTHONPATH={library}:$PYTHONPATH"
    setup = f". {prefix.parent / 'setup.bash'}" if is_colcons(prefix) else pip
    return run("bash", "-c", f"{setup} && {command}", cwd=prefix).strip()


def test_ament_finds_share(prefix: Path) -> None:
    code = f"from ament_index_python.packages import get_package_share_directory as f; print(f('{NAME}'))"
    assert in_shell(prefix, f'python3 -c "{code}"') == str(prefix / "share" / NAME)


def test_the_command_runs_from_the_prefix(prefix: Path) -> None:
    command = prefix / (f"lib/{NAME}/sac-ae" if is_colcons(prefix) else "bin/sac-ae")
    assert "train" in in_shell(prefix, f"{command} --help")
    where = Path(in_shell(prefix, f"python3 -c 'import {NAME}.cli as m; print(m.__file__)'"))
    assert where.is_relative_to(prefix.parent.parent if is_colcons(prefix) else prefix)


def test_what_the_packages_read_beside_their_modules_is_there(prefix: Path) -> None:
    kept = [path for package in (NAME, "sim_training") for path in (ROOT / package).rglob("*") if path.is_file()]
    beside = [path.relative_to(ROOT) for path in kept if path.suffix not in {".py", ".pyc"}]
    assert {"report.js", "page.html.jinja", "rover.xml"} <= {path.name for path in beside}
    module = Path(in_shell(prefix, f"python3 -c 'import {NAME} as m; print(m.__file__)'"))
    assert [path for path in beside if not (module.parents[1] / path).is_file()] == []


def test_both_packages_and_nothing_else_are_installed(prefix: Path) -> None:
    library = next(prefix.glob("lib/python3.*/site-packages"))
    packages = {path.name for path in library.iterdir() if path.is_dir() and path.name.isidentifier()}
    links = (prefix.parent.parent / "build" / NAME / NAME).is_symlink()
    assert packages - {"__pycache__"} == (set() if links else {NAME, "sim_training"})


def test_package_xml_agrees_with_the_python_package(tmp_path: Path) -> None:
    manifest = ET.parse(ROOT / "package.xml").getroot()
    run(sys.executable, "setup.py", "--quiet", "dist_info", "--output-dir", tmp_path, cwd=ROOT)
    metadata = PathDistribution(next(tmp_path.glob("*.dist-info"))).metadata
    assert manifest.get("format") == "3"
    assert manifest.findtext("name") == metadata["Name"].replace("-", "_")
    assert manifest.findtext("version") == metadata["Version"]
    assert manifest.findtext("license") == (metadata["License-Expression"] or metadata["License"])
    assert manifest.findtext("export/build_type") == "ament_python"
    assert manifest.find("buildtool_depend") is None  # ament_python has no rosdep key


def requirements() -> dict[str, list[Requirement]]:
    """Requirements by extra, read from setup.py; those of no extra under the empty name."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    names = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    space = {name: ast.literal_eval(names[name]) for name in ("OPENCV", "ROS")}
    extras = eval(compile(ast.Expression(given["extras_require"]), "setup.py", "eval"), space)
    everything = {"": ast.literal_eval(given["install_requires"]), **extras}
    return {extra: [Requirement(text) for text in texts] for extra, texts in everything.items()}


def pins(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), f"{name}: only name==version and comments"
    return {str(canonicalize_name(line.split("==")[0])): line.split("==")[1] for line in lines}


def test_every_requirement_is_pinned_to_a_version_it_admits() -> None:
    pinned = pins("constraints.txt")
    for requirement in (each for group in requirements().values() for each in group):
        name = str(canonicalize_name(requirement.name))
        assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_every_package_that_is_imported_is_required_by_its_name() -> None:
    named = {str(canonicalize_name(each.name)) for group in requirements().values() for each in group}
    # Parts of another package's interface, which it brings
    brought = {"dm_env": "dm-control", "google": "onnx", "markupsafe": "jinja2", "builtin_interfaces": "ros-rclpy"}
    brought |= {"ament_index_python": "ros-rclpy", "rcl_interfaces": "ros-rclpy"}
    own, installed = {NAME, "sim_training"}, packages_distributions()
    for path in sorted(path for package in own for path in (ROOT / package).rglob("*.py")):
        for name in imported(path) - sys.stdlib_module_names - own:
            by = {brought[name]} if name in brought else {str(canonicalize_name(n)) for n in installed.get(name, [])}
            assert not by or by & named, f"{path.relative_to(ROOT)} imports {name} of {by}: name it in setup.py"


def test_no_extra_takes_both_runtimes() -> None:
    for extra, group in requirements().items():
        assert len({"onnxruntime", "onnxruntime-gpu"} & {each.name for each in group}) == (extra in {"cpu", "gpu"})


def test_the_policy_node_needs_neither_torch_nor_simulation() -> None:
    needed = {each.name for extra in ("", "ros", "cpu") for each in requirements()[extra]}
    assert {"numpy", "onnx", "onnxruntime", "opencv-python-headless", "ros-rclpy"} <= needed
    assert not {"torch", "mujoco", "dm_control", "gymnasium"} & needed


def test_beside_a_distribution_its_own_packages_stay_free() -> None:
    beside, everywhere = pins("constraints-ros.txt"), pins("constraints.txt")
    assert {name for name, version in beside.items() if everywhere[name] != version} == {"ml-dtypes"}
    assert not {"numpy", "opencv-python-headless", "pyyaml", "empy", "setuptools"} & beside.keys()
    assert not [name for name in beside if name.startswith("ros-")]
    assert beside["torch"] == "2.13.0"


@pytest.mark.skipif("ROS_DISTRO" not in os.environ, reason="no ROS distribution is sourced")
@pytest.mark.parametrize("name", ["numpy", "cv2", "rclpy"])
def test_beside_a_distribution_its_own_packages_are_used(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert not Path(str(spec.origin)).is_relative_to(sys.prefix)
    assert not list(Path(sys.prefix).glob(f"lib/python3.*/site-packages/{name}"))


def test_the_dds_profile_replaces_the_builtin_transports() -> None:
    profile = ET.parse(ROOT / "config/dds/fastdds_shm.xml").getroot()
    space = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    defined = {each.text for each in profile.findall(".//dds:transport_descriptor/dds:transport_id", space)}
    used = {each.text for each in profile.findall(".//dds:userTransports/dds:transport_id", space)}
    assert used == defined
    assert profile.findtext(".//dds:useBuiltinTransports", namespaces=space) == "false"
    largest = int(profile.findtext(".//dds:maxMessageSize", "0", space))
    assert 1920 * 1080 * 3 < largest <= int(profile.findtext(".//dds:segment_size", "0", space))
