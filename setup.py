"""Build for pip and for colcon (ament_python); what depends on what is told in docs/dependencies.md."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "sac_ae_ros"
NODES = ("policy_node", "record_node", "replay_node", "sim_robot_node")

# What a ROS 2 distribution brings where there is one. Never install these beside a distribution.
OPENCV = ["opencv-python-headless>=4.9"]
ROS = [
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-diagnostic-msgs",
    "ros-geometry-msgs",
    "ros-lifecycle-msgs",
    "ros-nav-msgs",
    "ros-rosgraph-msgs",
    "ros-sensor-msgs",
    "ros-std-msgs",
    "ros-std-srvs",
    "ros-trajectory-msgs",
]


def data_files() -> list[tuple[str, list[str]]]:
    """Everything outside the Python packages, each file under the folder where ROS tools look for it."""
    share = Path("share") / NAME
    files = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(share), ["package.xml"]),
        (f"lib/{NAME}", [f"scripts/{node}" for node in NODES]),
    ]
    for root in map(Path, ("launch", "config", "models")):
        for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
            found = sorted(str(path) for path in folder.glob("[!._]*") if path.is_file())
            if found and folder.name != "__pycache__":
                files.append((str(share / folder), found))
    return files


setup(
    name=NAME,
    version="0.1.0",
    description="Camera policies learned in simulation with SAC-AE, exported to ONNX, driving robots through ROS 2",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=[NAME, f"{NAME}.*", "sim_training", "sim_training.*"]),
    package_data={
        NAME: ["*.jinja"],
        f"{NAME}.bag": ["*.jinja", "*.js"],
        "sim_training": ["*.jinja"],
        "sim_training.envs": ["*.xml"],
    },
    data_files=data_files(),
    entry_points={"console_scripts": [f"sac-ae = {NAME}.cli:main"]},
    zip_safe=False,
    install_requires=["numpy>=1.26", "onnx>=1.23", "PyYAML>=6"],
    extras_require={
        "opencv": OPENCV,
        "ros": ROS + OPENCV,
        "cpu": ["onnxruntime>=1.31"],
        "gpu": ["onnxruntime-gpu>=1.31"],
        "bag": [
            "apsw>=3.46",
            "Jinja2>=3.1",
            "av>=18",
            "lz4>=4.3",
            "matplotlib>=3.8",
            "mcap>=1.6",
            "rosbags>=0.11",
            "tqdm>=4.66",
            "zstandard>=0.22",
        ],
        "sim": ["av>=18", "dm_control>=1.0.50", "gymnasium>=1.4", "mujoco>=3.17,<4"],
        "train": [
            "Jinja2>=3.1",
            "jsonargparse[signatures]>=4.53",
            "matplotlib>=3.8",
            "pillow>=10",
            "rliable>=1.2",
            "tensorboard>=2.21",
            "torch==2.13.0",
            "tqdm>=4.66",
        ],
        "test": [
            "colcon-common-extensions>=0.3",
            "hypothesis>=6.100",
            "mypy>=2.4",
            "pytest>=7.4,<9",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.5",
            "ruff>=0.17",
            "setuptools>=68,<80",
            "types-PyYAML",
        ],
    },
)
