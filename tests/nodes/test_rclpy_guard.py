"""Messages that rclpy trips over, sent to real nodes: they go on."""

import time

import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from ros_network import ACTIVATE, CONFIGURE, Camera
from rosgraph_msgs.msg import Clock
from tiny_policy import write_policy

from sac_ae_ros.nodes.convert import from_ns


@pytest.mark.parametrize("atomically", [False, True])
@pytest.mark.parametrize("node", ["policy_node", "record_node"])
def test_parameters_of_a_type_that_does_not_exist_are_refused(network, tmp_path, node, atomically):
    given = {"policy_node": {}, "record_node": {"out": str(tmp_path / "drive")}}[node]
    process = network.start(node, given)
    strange = Parameter(name="hardware_id", value=ParameterValue(type=200))
    if atomically:
        request = SetParametersAtomically.Request(parameters=[strange])
        result = network.call(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result
    else:
        request = SetParameters.Request(parameters=[strange, strange])
        first, result = network.call(SetParameters, f"{node}/set_parameters", request).results
        assert not first.successful
    assert not result.successful
    assert "got 200" in result.reason
    assert process.popen.poll() is None
    assert "Traceback" not in process.log


@pytest.mark.parametrize("atomically", [False, True])
def test_a_wrong_type_is_refused_with_what_to_write(network, atomically):
    network.start("policy_node", {})
    fits = Parameter(name="threads", value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=2))
    wrong = Parameter(name="max_age_s", value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=1))
    if atomically:
        request = SetParametersAtomically.Request(parameters=[fits, wrong])
        result = network.call(SetParametersAtomically, "policy_node/set_parameters_atomically", request).result
    else:
        request = SetParameters.Request(parameters=[fits, wrong])
        first, result = network.call(SetParameters, "policy_node/set_parameters", request).results
        assert first.successful
    assert not result.successful
    assert result.reason == "max_age_s: expected a float, got an integer, 1; write 1.0"


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_negative_clock_is_not_heard(network, tmp_path, when):
    params = {"policy": str(write_policy(tmp_path / "tiny.onnx")), "image": {"freeze_timeout_s": 0.0}}
    # the node's clock may be late: whoever hears /clock keeps its newest message only, and that may be a negative one
    params |= {"arm_on_activate": True, "watchdog_timeout_s": 20.0, "max_age_s": 20.0, "max_future_s": 20.0}
    process = network.start("policy_node", {**params, "use_sim_time": when == "at the start"})
    commands, camera = network.hear(Twist, "cmd_vel"), Camera(network)
    clock = network.node.create_publisher(Clock, "/clock", 1)
    if when == "later":
        assert not network.set("policy_node", use_sim_time=True)
    assert network.change(CONFIGURE, ACTIVATE)
    network.until(clock.get_subscription_count, 10, "the node on /clock")
    now_ns = 5_000_000_000

    def tick() -> bool:
        nonlocal now_ns
        now_ns += 20_000_000
        for time_now in (from_ns(now_ns), Time(sec=-1)):
            clock.publish(Clock(clock=time_now))
            time.sleep(0.01)  # for the node to take it before the next one replaces it
        return len([each for _, each in commands if each != Twist()]) > 5

    camera.change = lambda image: setattr(image.header, "stamp", from_ns(now_ns))
    with camera.running():
        network.until(tick, 30, "commands")
    assert process.popen.poll() is None
    assert "Traceback" not in process.log
