"""Where the package's own files lie: configuration, launch files, models; installed or in the source tree."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Where Fast DDS looks for a profile; one that a user has set is never replaced.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# With these set, discovery leads out of this host even where its range is LOCALHOST.
WAYS_OUT = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
ROOT = Path(__file__).resolve().parents[2]


def share_file(name: str) -> Path | None:
    """The path of a file of this package's share, such as config/policy.yaml; None if it is nowhere.

    The source tree comes first, then the prefix of the interpreter (pip), then the folders above (colcon).
    """
    prefixes = [Path(sys.prefix), *ROOT.parents]
    folders = [ROOT, *(prefix / "share" / "sac_ae_ros" for prefix in prefixes)]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def ensure_dds_profile() -> None:
    """Sets this package's DDS profile, which gets whole images through, for this process unless the user has set one.

    Call it before rclpy is imported, or at least initialised.
    """
    profile = share_file("config/dds/fastdds_shm.xml")
    if profile is not None and not any(name in os.environ for name in PROFILE_VARIABLES):
        os.environ[PROFILE_VARIABLES[0]] = str(profile)
