"""What the graph says about a topic, with real publishers and subscribers in contexts of their own."""

from collections.abc import Callable, Iterator

import pytest
import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo
from ros_network import Network
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from sac_ae_ros.nodes.graph_watch import (
    COMPRESSED,
    IMAGE,
    UNNAMED,
    Endpoint,
    GraphWatch,
    Seen,
    full_name,
    wanted_reliability,
)

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
EVERYTHING = QoSProfile(depth=1, reliability=BEST_EFFORT)
SURE = QoSProfile(depth=1, reliability=RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MakeNode = Callable[..., Node]


@pytest.fixture
def other(shared_network: Network) -> Iterator[MakeNode]:
    """Makes nodes that the network's node knows from discovery only."""
    made: list[Node] = []

    def make(name: str, **settings: object) -> Node:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=shared_network.domain_id, signal_handler_options=SignalHandlerOptions.NO)
        made.append(Node(name, context=context, namespace="/other", **settings))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()
        rclpy.shutdown(context=node.context)


def soon(watch: GraphWatch, holds: Callable[[Seen], object]) -> Seen:
    """What is seen once discovery has come so far."""
    seen = watch.look()

    def looked() -> bool:
        nonlocal seen
        seen = watch.look()
        named = all(each.node != UNNAMED for each in (*seen.publishers, *seen.subscribers))
        return bool(named and holds(seen))

    Network.until(looked, what=f"the graph; last seen: {seen}")
    return seen


def test_nobody_there(shared_network):
    watch = GraphWatch(shared_network.node, "empty", "std_msgs/msg/Bool", EVERYTHING)
    assert watch.look() == Seen((), (), ("nobody publishes /tested/empty",))


def test_nobody_there_but_images_elsewhere(shared_network, other):
    other("lost_camera").create_publisher(Image, "raw", 1)
    watch = GraphWatch(shared_network.node, "image_nobody", IMAGE, EVERYTHING)
    seen = soon(watch, lambda seen: "/other/raw" in seen.complaints[0])
    assert seen.complaints == (
        "nobody publishes /tested/image_nobody, but /other/raw has type sensor_msgs/msg/Image; remap",
    )


@pytest.mark.parametrize(
    ("topic", "taken", "published", "kind", "transport"),
    [
        ("x1", IMAGE, "x1/compressed", CompressedImage, "compressed"),
        ("x2", IMAGE, "x2/compressedDepth", CompressedImage, "compressedDepth"),
        ("x3/compressed", COMPRESSED, "x3", Image, "raw"),
        ("x4/compressed", COMPRESSED, "x4/compressedDepth", CompressedImage, "compressedDepth"),
        ("x5/compressedDepth", COMPRESSED, "x5", Image, "raw"),
    ],
)
def test_the_same_images_of_another_transport_name_what_selects_them(
    shared_network, other, topic, taken, published, kind, transport
):
    other("driver").create_publisher(kind, f"/tested/{published}", SURE)
    watch = GraphWatch(shared_network.node, topic, taken, EVERYTHING)
    seen = soon(watch, lambda seen: "/other/driver" in seen.complaints[0])
    type_ = f"sensor_msgs/msg/{kind.__name__}"
    assert seen.complaints == (
        f"nobody publishes /tested/{topic}, but /other/driver publishes {type_} on /tested/{published};"
        f" set image.transport: {transport}",
    )


def test_other_booleans_are_not_offered_as_a_switch(shared_network, other):
    other("panel").create_publisher(Bool, "lamp", 1)
    Network.until(lambda: shared_network.node.count_publishers("/other/lamp"))
    watch = GraphWatch(shared_network.node, "enable", "std_msgs/msg/Bool", EVERYTHING)
    assert watch.look().complaints == ("nobody publishes /tested/enable",)


@pytest.mark.parametrize(
    ("qos", "words"),
    [(EVERYTHING, "best effort, volatile"), (SURE, "reliable, volatile"), (LATCHED, "reliable, transient local")],
)
def test_one_publisher_of_the_right_type_is_fine(shared_network, other, qos, words):
    other("camera").create_publisher(Image, "/tested/fine", qos)
    seen = soon(GraphWatch(shared_network.node, "fine", IMAGE, EVERYTHING), lambda seen: len(seen.publishers) == 1)
    assert seen == Seen((Endpoint("/other/camera", IMAGE, words),), (), ())


@pytest.mark.parametrize(
    ("topic", "taken", "published", "way_out"),
    [
        ("a", IMAGE, CompressedImage, "set image.transport: compressed and remap /tested/a/compressed:=/tested/a"),
        ("b/compressed", IMAGE, CompressedImage, "set image.transport: compressed and remap image:=/tested/b"),
        (
            "d/compressedDepth",
            IMAGE,
            CompressedImage,
            "set image.transport: compressedDepth and remap image:=/tested/d",
        ),
        ("c/compressed", COMPRESSED, Image, "set image.transport: raw and remap image:=/tested/c/compressed"),
        ("d", IMAGE, Bool, "remap to a topic of sensor_msgs/msg/Image"),
    ],
)
def test_a_publisher_of_another_type_is_named_with_both_types(shared_network, other, topic, taken, published, way_out):
    other("driver").create_publisher(published, f"/tested/{topic}", SURE)
    seen = soon(GraphWatch(shared_network.node, topic, taken, EVERYTHING), lambda seen: seen.publishers)
    theirs = f"{published.__module__.partition('.')[0]}/msg/{published.__name__}"
    assert seen.complaints == (
        f"/tested/{topic}: /other/driver publishes {theirs}, this node takes {taken}; {way_out}",
    )


def test_a_video_is_told_what_makes_images_of_it(shared_network):
    """Its messages come in no wheel, so nobody can publish them here."""
    watch = GraphWatch(shared_network.node, "video", IMAGE, EVERYTHING)
    assert "image_transport's republish" in watch._way_out("ffmpeg_image_transport_msgs/msg/FFMPEGPacket")


def test_a_remap_that_is_suggested_works(shared_network, other):
    """The odd one of them: a rule from a full name to a full name."""
    rule = "/tested/a/compressed:=/tested/a"
    node = other("remapped", cli_args=["--ros-args", "-r", rule, "-r", "__ns:=/tested"])
    assert node.create_subscription(CompressedImage, "/tested/a/compressed", print, 1).topic_name == "/tested/a"


def test_publishers_of_two_types_get_one_complaint(shared_network, other):
    other("right").create_publisher(Image, "/tested/two_types", SURE)
    other("wrong").create_publisher(Bool, "/tested/two_types", SURE)
    seen = soon(GraphWatch(shared_network.node, "two_types", IMAGE, EVERYTHING), lambda seen: len(seen.publishers) == 2)
    assert len(seen.complaints) == 1
    assert "/other/wrong publishes std_msgs/msg/Bool" in seen.complaints[0]


def test_several_publishers_are_named(shared_network, other):
    for name in ("b", "a"):
        other(name).create_publisher(Image, "/tested/crowded", EVERYTHING)
    watch = GraphWatch(shared_network.node, "crowded", IMAGE, EVERYTHING)
    seen = soon(watch, lambda seen: len(seen.publishers) == 2)
    assert seen.complaints == (
        "2 publishers on /tested/crowded: /other/a, /other/b: frames of all are mixed; give each a topic of its own",
    )


def test_incompatible_qos_is_named_with_both_sides(shared_network, other):
    other("lossy").create_publisher(Image, "/tested/lossy", EVERYTHING)
    seen = soon(GraphWatch(shared_network.node, "lossy", IMAGE, LATCHED), lambda seen: seen.publishers)
    assert seen.complaints == (
        "/tested/lossy: /other/lossy publishes best effort, volatile, this node takes reliable, transient local,"
        " and nothing gets through (best effort publisher and reliable subscription, volatile publisher and"
        " transient local subscription); change the QoS of /other/lossy",
    )


def test_who_left_is_forgotten(shared_network, other):
    node = other("brief")
    publisher = node.create_publisher(Bool, "/tested/brief", 1)
    watch = GraphWatch(shared_network.node, "brief", "std_msgs/msg/Bool", EVERYTHING)
    soon(watch, lambda seen: not seen.complaints)
    node.destroy_publisher(publisher)
    soon(watch, lambda seen: seen.complaints == ("nobody publishes /tested/brief",))


def test_commands_nobody_takes_and_no_other_robot_is_offered(shared_network, other):
    other("other_base").create_subscription(Twist, "cmd_vel", print, 1)
    Network.until(lambda: shared_network.node.count_subscribers("/other/cmd_vel"))
    shared_network.node.create_publisher(Twist, "cmd_nobody", SURE)
    watch = GraphWatch(shared_network.node, "cmd_nobody", "geometry_msgs/msg/Twist", commands=True)
    seen = soon(watch, lambda seen: seen.publishers)
    assert seen.complaints == ("nobody subscribes to /tested/cmd_nobody",)
    assert seen.publishers == (Endpoint("/tested/test", "geometry_msgs/msg/Twist", "reliable, volatile"),)


def test_commands_of_another_type(shared_network, other):
    other("base").create_subscription(TwistStamped, "/tested/cmd_typed", print, 1)
    watch = GraphWatch(shared_network.node, "cmd_typed", "geometry_msgs/msg/Twist", commands=True)
    seen = soon(watch, lambda seen: seen.subscribers)
    assert seen.complaints == (
        "/tested/cmd_typed: /other/base takes geometry_msgs/msg/TwistStamped, this node publishes"
        " geometry_msgs/msg/Twist; set command.type: geometry_msgs/msg/TwistStamped and command.fields to go with it,"
        " or remap",
    )


def test_commands_against_the_qos_that_the_graph_has_of_this_node(shared_network, other):
    shared_network.node.create_publisher(Twist, "cmd_strict", SURE)
    strict = QoSProfile(depth=1, deadline=Duration(seconds=1))
    other("strict").create_subscription(Twist, "/tested/cmd_strict", print, strict)
    watch = GraphWatch(shared_network.node, "cmd_strict", "geometry_msgs/msg/Twist", commands=True)
    (complaint,) = soon(watch, lambda seen: seen.subscribers and seen.publishers).complaints
    assert "/other/strict takes reliable, volatile, this node publishes reliable, volatile" in complaint
    assert "nothing gets through (subscription deadline is less than publisher deadline)" in complaint


def test_commands_that_are_taken_are_fine(shared_network, other):
    shared_network.node.create_publisher(Twist, "cmd_fine", SURE)
    other("base").create_subscription(Twist, "/tested/cmd_fine", print, 1)
    for qos in (None, SURE):
        watch = GraphWatch(shared_network.node, "cmd_fine", "geometry_msgs/msg/Twist", qos, commands=True)
        seen = soon(watch, lambda seen: seen.subscribers and seen.publishers)
        assert seen.subscribers == (Endpoint("/other/base", "geometry_msgs/msg/Twist", "reliable, volatile"),)
        assert not seen.complaints


@pytest.mark.parametrize(
    ("namespace", "name", "full"),
    [
        ("/", "camera", "/camera"),
        ("/a/b", "camera", "/a/b/camera"),
        ("_NODE_NAMESPACE_UNKNOWN_", "_NODE_NAME_UNKNOWN_", UNNAMED),
        ("", "", UNNAMED),
    ],
)
def test_names_of_nodes(namespace, name, full):
    assert full_name(TopicEndpointInfo(node_namespace=namespace, node_name=name)) == full


@pytest.mark.parametrize(
    ("qos", "reliability"),
    [
        ([], BEST_EFFORT),
        (["reliable, volatile"], RELIABLE),
        (["reliable, transient local", "reliable, volatile"], RELIABLE),
        (["reliable, volatile", "best effort, volatile"], BEST_EFFORT),
        (["unknown, volatile"], BEST_EFFORT),
    ],
)
def test_reliable_only_where_every_publisher_is(qos, reliability):
    assert wanted_reliability([Endpoint("/a", IMAGE, words) for words in qos]) == reliability
