"""The table of all faults: what is done, and what must come of it.

tests/nodes/test_faults.py runs each once and judges it; benchmarks/faults.py runs each many times and measures.
"""

from functools import partial

import fault_arming
import fault_control
import fault_senses
from fault_case import Case
from fault_publishers import CLOCK_HZ
from fault_rig import PERIOD_S
from tiny_policy import NAN_PIXEL, SLOW_PIXEL

STALE_S = 2.5 * PERIOD_S
SILENT_S = 0.5
GRAPH_S = 1.0  # between two looks at who publishes
JUMP_S = 0.05 + 1 / CLOCK_HZ  # until the next /clock, and the next look at it
EDGE_OR_ARM = "`~/arm`, or `enable` false, then true"
ARM = "`~/arm`"

CASES: dict[str, Case] = {
    "camera dies": Case(
        fault_senses.camera_dies, "no image comes any more", STALE_S, "stale", ("images", "no image for"), EDGE_OR_ARM
    ),
    "stamps freeze": Case(
        fault_senses.frozen_stamps,
        "new images, all of one stamp",
        STALE_S,
        "stale",
        ("images", "image stamps have stood still"),
        EDGE_OR_ARM,
    ),
    "pixels freeze": Case(
        fault_senses.frozen_pixels,
        f"new stamps, the same picture; `image.freeze_timeout_s: {fault_senses.FREEZE_S}`",
        fault_senses.FREEZE_S + STALE_S,
        "stale",
        ("images", "pixels have not changed"),
        EDGE_OR_ARM,
    ),
    "resolution changes": Case(
        fault_senses.resolution_changes, "8x8 pixels become 16x16: decoded and resized", None, None
    ),
    "garbage": Case(
        fault_senses.garbage,
        "messages that hold no picture, of six kinds",
        STALE_S,
        "stale",
        ("images", "expected"),
        EDGE_OR_ARM,
    ),
    "JPEG of thousands of scans": Case(
        fault_senses.many_scans,
        f"each image has {fault_senses.SCANS} progressive scans, which would take OpenCV long",
        STALE_S,
        "stale",
        ("images", "scans in a JPEG"),
        EDGE_OR_ARM,
        alone=True,
    ),
    "grey camera": Case(
        fault_senses.grey_camera,
        "mono8 for a policy of colours: the node drives on",
        None,
        None,
        ("images", "image: grey (mono8)"),
    ),
    "two cameras on one topic": Case(
        fault_senses.two_publishers,
        "frames of both are mixed; the node drives on",
        None,
        None,
        ("images", "/tested/second_camera, /tested/test: frames of all are mixed"),
    ),
    "camera of another type": Case(
        fault_senses.another_type,
        "the camera comes back, with CompressedImage on the topic of Image",
        STALE_S,
        "stale",
        ("images", "/tested/jpeg_camera publishes sensor_msgs/msg/CompressedImage, this node takes sensor_msgs/msg/Im"),
        EDGE_OR_ARM,
    ),
    "another lens": Case(
        fault_senses.other_optics,
        "`camera_info` contradicts the policy; `camera_info.check: refuse`",
        0.0,
        "camera",
        ("images", "field of view: the policy was trained with"),
        ARM,
    ),
    "covered lens": Case(
        fault_senses.covered_lens,
        "pictures of one colour; `novelty.stop: 1.5`, `novelty.every: 1`, 3 of 5",
        3 * PERIOD_S,
        "novelty",
        ("safety", "frame variance"),
        ARM,
    ),
    "stamps from the future": Case(
        fault_senses.future_stamps, "stamps 10 s ahead", STALE_S, "clock", ("safety", "ahead, got one of"), ARM
    ),
    "stamps go round": Case(
        fault_senses.stamps_go_round,
        "stamps of one 100 Hz camera go round: 0.24, 0.14 and 0.04 s back, 0.07 s ahead; the policy's rate is kept",
        None,
        None,
        ("images", "they go back and forth or run too fast"),
    ),
    "paused clock": Case(
        fault_senses.paused_clock,
        "`/clock` stops; images keep coming",
        STALE_S,
        "clock",
        ("safety", "has stood still for"),
        ARM,
    ),
    "slow simulation": Case(
        fault_senses.slow_simulation,
        f"`/clock` pauses for {fault_senses.CLOCK_PAUSE_S:g} s, three times; `watchdog_timeout_s` as in sim.launch.py",
        None,
        None,
    ),
    **{
        f"clock jumps {by_s:+g} s": Case(
            partial(fault_senses.clock_jumps, by_s),
            "`/clock` and the stamps jump together",
            JUMP_S,
            "clock",
            ("safety", f"the clock jumped by {'+' if by_s > 0 else '-'}"),
            ARM,
            lasts=False,
        )
        for by_s in (10, -10)
    },
    "two clocks": Case(
        fault_senses.two_clocks,
        f"a second node publishes `/clock`, {fault_senses.TWO_CLOCKS_S:g} s behind the first",
        JUMP_S,
        "clock",
        ("safety", "stopped: clock"),
        ARM,
    ),
    **{
        f"clock jumps {by_s:+g} s, stamps do not": Case(
            partial(fault_senses.clock_jumps_alone, by_s),
            "`/clock` jumps, the camera keeps its time",
            JUMP_S,
            "clock",
            ("safety", f"the clock jumped by {'+' if by_s > 0 else '-'}"),
            ARM,
            slow=True,
        )
        for by_s in (10, -10)
    },
    "hung inference": Case(
        partial(fault_control.pixels, SLOW_PIXEL),
        "an inference takes more than a second",
        STALE_S,
        "hung",
        ("safety", "inference has not come back"),
        ARM,
        lasts=False,  # `~/arm` is answered between two inferences
    ),
    "NaN": Case(
        partial(fault_control.pixels, NAN_PIXEL),
        "the policy's action is no number",
        PERIOD_S,
        "nan",
        ("safety", "stopped: nan"),
        ARM,
    ),
    "e_stop during NaN": Case(
        fault_control.nan_and_e_stop,
        "`e_stop` is pressed while a NaN has stopped the robot already",
        PERIOD_S,
        "nan",
        ("safety", "stopped: nan"),
        ARM,
        latched=("e_stop", "nan"),
    ),
    "e_stop during a hung inference": Case(
        fault_control.hung_and_e_stop,
        "`e_stop` is pressed while an inference hangs, before it counts as late",
        0.0,
        "e_stop",
        ("safety", "stopped: e_stop"),
        ARM,
        lasts=False,  # see above
        latched=("e_stop",),
    ),
    "broken new version": Case(
        fault_control.damaged_version,
        "a byte of the file in `policy_dir` is flipped before `~/reload`",
        None,
        None,
        ("policy", "reload failed: version 1 refused"),
    ),
    **{
        f"hostile new version, {kind}": Case(
            partial(fault_control.hostile_version, kind),
            f"a file that would {does} whoever reads it, then `~/reload`",
            None,
            None,
            ("policy", "reload failed: version 1 refused"),
        )
        for kind, does in {"abort": "abort", "interpreter": "hold up", "memory": "fill the memory of"}.items()
    },
    "forged name": Case(
        fault_control.forged_name,
        "a version whose name has a line break and a line of a log, then `~/reload`",
        None,
        None,
        ("policy", "reload failed: version 1 refused"),
    ),
    "e_stop during a hostile reload": Case(
        fault_control.hostile_version_and_e_stop,
        "`e_stop` is pressed while a child process reads a file that would hold it up",
        0.0,
        "e_stop",
        ("safety", "stopped: e_stop"),
        ARM,
    ),
    "disk gone": Case(
        fault_control.lost_disk,
        "`policy_dir` and the launched file are deleted, then `~/reload`",
        None,
        None,
        ("policy", "reload failed: reload refused: cannot read"),
    ),
    "enable false": Case(
        fault_control.enable_false, "`enable_required`", 0.0, "enable", ("safety", "stopped: enable"), EDGE_OR_ARM
    ),
    "enable silent": Case(
        fault_control.enable_silent,
        f"`enable_timeout_s: {SILENT_S}`",
        SILENT_S,
        "enable",
        ("safety", "stopped: enable … silent for"),
        EDGE_OR_ARM,
    ),
    "enable flaps": Case(
        fault_control.enable_flaps,
        "true and false in turn, five times; the slowest of five stops",
        0.0,
        "enable",
        ("safety", "stopped: enable"),
        EDGE_OR_ARM,
        slow=True,
    ),
    **{
        f"e_stop, {kind}": Case(
            partial(fault_control.e_stop_pressed, kind),
            "true is published once",
            0.0,
            "e_stop",
            ("safety", "stopped: e_stop"),
            ARM,
            slow=kind == "transient local",
        )
        for kind in fault_control.QOS
    },
    "e_stop of another type": Case(
        fault_arming.e_stop_of_another_type,
        "a publisher of std_msgs/Int8 appears on `e_stop`, which nobody hears",
        GRAPH_S,
        "e_stop",
        ("safety", "stopped: e_stop … /tested/button (std_msgs/msg/Int8)"),
        ARM,
    ),
    "second deadman": Case(
        fault_arming.second_deadman,
        "`enable_required`; a second node publishes `enable`",
        GRAPH_S,
        "enable",
        ("safety", "stopped: enable … got /tested/second_deadman, /tested/test"),
        EDGE_OR_ARM,
    ),
    "second commander": Case(
        fault_arming.commander_appears,
        "another node publishes commands; `command.other_publishers: stop`",
        GRAPH_S,
        "rival",
        ("command", "ERROR … /tested/teleop"),
        ARM,
    ),
    "paused process": Case(
        fault_arming.paused,
        f"SIGSTOP for {fault_arming.PAUSE_S:g} s; times are from SIGCONT on",
        0.0,
        "stale",
        ("safety", "stopped: stale … this process was paused"),
        EDGE_OR_ARM,
        lasts=False,  # frames come again at once
    ),
    "constant velocity": Case(
        fault_arming.constant_velocity,
        "no image comes any more; `command.constants: [linear.y=0.5]`, of which no stop has anything",
        STALE_S,
        "stale",
        ("images", "no image for"),
        EDGE_OR_ARM,
        alone=True,
    ),
    "e_stop before the start": Case(
        fault_control.e_stop_before_start,
        "pressed, transient local, before the node starts",
        None,
        None,
        ("safety", "armed … e_stop"),
        ARM,
        alone=True,
        bars="e_stop",
    ),
    "no camera": Case(
        fault_arming.no_camera,
        "no image has come since the node was activated",
        None,
        None,
        ("safety", "not armed, and cannot be … stale"),
        ARM,
        bars="stale … no image has come yet on /tested/image",
    ),
    "stamps of 0": Case(
        partial(fault_arming.harmed_camera, fault_arming.unstamped),
        "a camera driver that sets no stamps",
        None,
        None,
        ("images", "a stamp of 0"),
        ARM,
        bars="stale … set stamp_source: arrival",
    ),
    "stamps of another time": Case(
        partial(fault_arming.harmed_camera, fault_arming.of_another_time),
        "a simulation or a recording, without `use_sim_time`",
        None,
        None,
        ("images", "expected a stamp"),
        ARM,
        bars="stale … use_sim_time:=true",
    ),
    "encoding RGB8": Case(
        partial(fault_arming.harmed_camera, fault_arming.spelled_otherwise),
        "an encoding that is spelled otherwise",
        None,
        None,
        ("images", "image encoding: expected"),
        ARM,
        bars="stale … got 'RGB8'",
    ),
    "slow camera": Case(
        fault_arming.slow_camera,
        f"{fault_arming.SLOW_HZ:g} Hz for a policy of {1 / PERIOD_S:g} Hz",
        None,
        None,
        ("images", "2 times the time that it was trained with"),
        ARM,
        bars="got 5 Hz",
    ),
    "uncalibrated camera": Case(
        fault_arming.uncalibrated,
        "`camera_info` of zeros; `camera_info.check: refuse`",
        None,
        None,
        ("images", "camera_info: the camera is uncalibrated"),
        ARM,
        bars="camera … the camera is uncalibrated",
    ),
    "another commander": Case(
        fault_arming.another_commander,
        "another node publishes commands already",
        None,
        None,
        ("command", "ERROR … /tested/teleop"),
        ARM,
        bars="/tested/teleop (geometry_msgs/msg/Twist) … command.allow_publishers",
    ),
    "two nodes of one name": Case(
        fault_arming.namesake,
        "a second process offers the same `~/arm`",
        None,
        None,
        ("command", "ERROR … another process"),
        ARM,
        alone=True,
        bars="another process",
    ),
    "misspelt parameter": Case(
        fault_arming.misspelt,
        "`e_stop_requierd: true`: the node does not start, exit code 2",
        None,
        None,
        cleared="start it right, `~/arm`",
        alone=True,
        bars="did you mean 'e_stop_required'?",
    ),
    "e_stop silent": Case(
        fault_control.e_stop_silent,
        f"`e_stop_required`, `e_stop_timeout_s: {SILENT_S}`",
        SILENT_S,
        "e_stop",
        ("safety", "stopped: e_stop … silent for"),
        ARM,
    ),
    "joints silent": Case(
        fault_control.joints_silent,
        f"`command.stop: hold_measured`, `command.joint_timeout_s: {SILENT_S}`",
        SILENT_S,
        "joints",
        ("safety", "stopped: joints"),
        ARM,
        alone=True,
    ),
    "joints told twice": Case(
        fault_control.joints_told_twice,
        "`command.stop: hold_measured`, a second node publishes the same joints",
        0.0,
        "joints",
        ("safety", "stopped: joints … one publisher of joint"),
        ARM,
        alone=True,
    ),
    "deactivated": Case(
        fault_control.deactivated,
        "while armed; stops for 0.5 s, then silence",
        0.0,
        None,
        ("safety", "OK: inactive"),
        "activate, `~/arm`",
        lasts=False,
    ),
    "SIGTERM": Case(
        fault_control.terminated,
        "while armed; stops for 0.5 s, then the process ends with code 0",
        0.0,
        None,
        cleared="start it, `~/arm`",
        lasts=False,
        alone=True,
    ),
    "launch killed": Case(
        fault_control.launch_killed,
        "the `ros2 launch` that started it ends by SIGTERM; stops for 0.5 s, then the process ends",
        0.0,
        None,
        cleared="start it, `~/arm`",
        lasts=False,
        alone=True,
    ),
    "kill -9": Case(
        fault_control.killed,
        "no stop comes; the simulated robot's own timeout of 0.5 s stops it",
        0.5,
        None,
        cleared="start it, `~/arm`",
        lasts=False,
        alone=True,
        slow=True,
    ),
}
