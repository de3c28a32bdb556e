"""Writes encoder, actor and autoencoder as one ONNX file with its contract inside.

The graph is built node by node: it is small, and what stands in it is exactly what docs/architecture.md says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from sac_ae_ros.core.errors import ModelError, RunError
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import METADATA_KEY, CameraSpec, NoveltyStats, PolicySpec, TrainingFacts
from sim_training import checkpoint
from sim_training import config as configs
from sim_training.agent import SacAeAgent
from sim_training.config import TrainConfig
from sim_training.envs.make import make_env
from sim_training.envs.pixel_env import PixelEnv
from sim_training.evaluate import HELD_OUT_SEED, run_episodes, run_policy_file, to_physical
from sim_training.networks import Encoder, Latent

OPSET = 18
IR_VERSION = 9
QUANTILES = (0.0, 0.001, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0)
PARITY = 1e-4
HALF_PARITY = 5e-3  # of a reconstruction whose Linear is stored as float16
ROUNDING = 1 / 255  # reconstructions are compared as the bytes that a user sees
PARITY_FRAMES = 200


@dataclass(frozen=True)
class Exported:
    """What an export made: the file, its contract, and the greatest difference from torch of each output."""

    path: Path
    spec: PolicySpec
    parity: dict[str, float]


def load_agent(run_dir: Path, *, device: str = "cpu") -> tuple[TrainConfig, SacAeAgent, dict[str, Any]]:
    """The best evaluated networks of a run, with its config and the facts saved beside them.

    Raises:
        RunError: not a run folder, or nothing was evaluated yet.
    """
    path = configs.run_config(run_dir)
    if not (run_dir / "best.pt").is_file():
        raise RunError(f"run folder: {run_dir} has no best.pt yet; train until the first evaluation")
    config = configs.load(path)
    learn = replace(config.learn, bfloat16=False)  # robots and judges take the weights as they are
    config = replace(config, run=replace(config.run, device=device), learn=learn)
    agent, facts = _fitting(run_dir, config, device)
    return config, agent, facts


def _fitting(run_dir: Path, config: TrainConfig, device: str) -> tuple[SacAeAgent, dict[str, Any]]:
    state = checkpoint.load_tensors(run_dir / "best.pt", device)
    try:
        layers = state["agent"]
        inputs = layers["actor.mlp.0.weight"].shape[1] if config.env.obs == "state" else None
        agent = SacAeAgent(config, layers["actor.mlp.4.bias"].numel() // 2, inputs)
        agent.load_state_dict(state["agent"])
        facts = {key: state[key] for key in ("env_step", "eval_return_mean", "revision")}
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise RunError(f"run folder: {run_dir / 'best.pt'} does not fit its config.yaml ({reason})") from None
    return agent, facts


def export_run(run_dir: Path, out: Path, *, name: str = "", episodes: int = 10, half: bool = True) -> Exported:
    """Exports the best checkpoint of a run, judged on held-out episodes through the robot's own code.

    Args:
        run_dir: folder that training made.
        out: the ONNX file to write; it appears whole or not at all.
        name: the policy's name; the task's by default.
        episodes: held-out episodes for the contract's returns and novelty quantiles.
        half: store the decoder's Linear as float16.

    Raises:
        RunError: not a run folder, or one of a policy without a camera.
        ModelError: ONNX and torch disagree on real frames; nothing is written.
    """
    config, agent, state = load_agent(run_dir)
    env = make_env(config.env)
    if not isinstance(env, PixelEnv):
        raise RunError(f"export: expected a policy that sees pixels, {run_dir} learned from env.obs {config.env.obs}")
    try:
        facts = TrainingFacts(int(state["env_step"]), config.run.seed, state["revision"], 0.0, 0.0, 0)
        spec = make_spec(env, config, facts, name or config.env.task.replace("/", "_"))
        policy = OnnxPolicy(build(agent, spec, half=half), f"export of {run_dir}")
        parity = check_parity(agent, policy, collect_frames(env, agent), half=half)
        returns, readings = run_policy_file(env, policy, held_out(episodes), want_novelty=True)
    finally:
        env.close()
    facts = replace(facts, eval_return_mean=returns.mean, eval_return_sd=returns.sd, eval_episodes=episodes)
    spec = replace(spec, training=facts, novelty=novelty_stats(readings))
    write(build(agent, spec, half=half), out)
    return Exported(out, spec, parity)


def held_out(episodes: int) -> range:
    """Seeds of episodes that neither training nor the choice of the checkpoint has seen."""
    return range(HELD_OUT_SEED, HELD_OUT_SEED + episodes)


def novelty_stats(readings: NDArray[np.float64]) -> NoveltyStats:
    """The statistics of held-out frames from their errors and variances, float64 [N, 2]."""
    errors, variances = ({str(q): float(np.quantile(column, q)) for q in QUANTILES} for column in readings.T)
    return NoveltyStats(len(readings), errors, variances)


def make_spec(env: PixelEnv, config: TrainConfig, training: TrainingFacts, name: str) -> PolicySpec:
    """The contract of a policy trained in `env`, its novelty statistics still empty."""
    source = env.camera_image.shape
    camera = CameraSpec(
        name=env.task.camera_name,
        height=config.env.height,
        width=config.env.width,
        source_height=source[0],
        source_width=source[1],
        fovy_deg=env.task.fovy_deg,
    )
    return PolicySpec(
        task=config.env.task,
        name=name,
        version=f"{training.env_steps}-{training.seed}",
        cameras=(camera,),
        frame_stack=config.env.frame_stack,
        control_period_s=env.control_period_s,
        actions=env.task.actions,
        training=training,
        novelty=NoveltyStats(0, {}),
    )


def collect_frames(env: PixelEnv, agent: SacAeAgent) -> NDArray[np.uint8]:
    """Stacks that the policy meets in held-out episodes, uint8 [N, 3K, H, W]."""
    stacks: list[NDArray[np.uint8]] = []

    def act(obs: NDArray[np.uint8]) -> NDArray[np.float64]:
        stacks.append(obs)
        return to_physical(env, agent.act(obs, sample=False))

    seed = HELD_OUT_SEED
    while len(stacks) < PARITY_FRAMES:
        run_episodes(env, act, [seed])
        seed += 1
    return np.stack(stacks[:: max(1, len(stacks) // PARITY_FRAMES)])


@torch.no_grad()
def check_parity(agent: SacAeAgent, policy: OnnxPolicy, stacks: NDArray[np.uint8], *, half: bool) -> dict[str, float]:
    """Greatest absolute difference between torch and ONNX over these stacks, for each output.

    Raises:
        ModelError: an output differs by more than 1e-4; of a float16 reconstruction, by more than 5e-3.
    """
    assert agent.decoder is not None
    worst = dict.fromkeys(("action", "log_std", "latent", "reconstruction", "novelty"), 0.0)
    for stack in stacks:
        features = agent.encoder(torch.from_numpy(stack[None]))
        mean, log_std = agent.actor(features)
        latent = agent.critic.latent(features)
        picture = (agent.decoder(latent)[0, -3:] + 0.5).numpy()
        newest = stack[-3:].astype(np.float32) / 255
        expected = (torch.tanh(mean)[0].numpy(), log_std[0].numpy(), latent[0].numpy())
        output = policy.act(stack, True)
        for key, value in zip(worst, expected, strict=False):
            worst[key] = float(np.maximum(worst[key], np.abs(value - getattr(output, key)).max()))  # keeps NaN
        rounded = np.clip(picture.transpose(1, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
        difference = np.abs(rounded.astype(int) - output.reconstruction).max() / 255
        worst["reconstruction"] = float(np.maximum(worst["reconstruction"], difference))
        novelty = np.abs(np.square(picture - newest).mean() - np.float64(output.novelty))
        worst["novelty"] = float(np.maximum(worst["novelty"], novelty))
    picture_parity = ROUNDING + (HALF_PARITY if half else PARITY)
    for key, value in worst.items():
        allowed = picture_parity if key == "reconstruction" else PARITY
        if not value <= allowed:
            raise ModelError(f"export: ONNX and torch differ by {value:.2g} in {key}, expected at most {allowed:g}")
    return worst


def write(data: bytes, out: Path) -> None:
    """Writes a policy file atomically, after loading it as a robot would."""
    OnnxPolicy(data, str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_bytes(data)
    partial.replace(out)


@torch.no_grad()
def build(agent: SacAeAgent, spec: PolicySpec, *, half: bool) -> bytes:
    """The ONNX file as bytes; its graph is described in docs/architecture.md."""
    graph = _Graph()
    pixels = graph.add("Div", [graph.add("Cast", ["frames"], to=TensorProto.FLOAT), graph.const(np.float32(255))])
    features = pixels
    assert isinstance(agent.encoder, Encoder)
    for conv in agent.encoder.convs:
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        convolved = graph.add(
            "Conv", [features, graph.weight(conv.weight), graph.weight(conv.bias)], strides=list(conv.stride)
        )
        features = graph.add("Relu", [convolved])
    features = graph.add("Flatten", [features], out="features")
    _actor(graph, agent, features)
    branches = {"then_branch": _autoencoder(agent, spec, pixels, half), "else_branch": _nothing(agent, spec)}
    graph.nodes.append(helper.make_node("If", ["want_novelty"], ["latent", "reconstruction", "novelty"], **branches))
    return _model(graph, agent, spec)


class _Graph:
    """Collects nodes and weights under names that do not clash."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._prefix = prefix

    def add(self, kind: str, inputs: Sequence[str], *, out: str = "", **attributes: Any) -> str:
        """Appends a node with one output and returns the output's name."""
        name = out or f"{self._prefix}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value: Any) -> str:
        """Stores an array and returns its name."""
        name = f"{self._prefix}weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, tensor: torch.Tensor) -> str:
        """Stores a parameter."""
        return self.const(tensor.detach().cpu().numpy())

    def linear(self, x: str, layer: nn.Linear, *, half: bool = False) -> str:
        """Appends x W' + b; with `half` the matrix is stored as float16 and widened when it runs."""
        matrix = self.weight(layer.weight.half() if half else layer.weight)
        if half:
            matrix = self.add("Cast", [matrix], to=TensorProto.FLOAT)
        return self.add("Gemm", [x, matrix, self.weight(layer.bias)], transB=1)

    def latent(self, features: str, layer: nn.Module, out: str = "") -> str:
        """Appends Linear, LayerNorm, tanh."""
        assert isinstance(layer, Latent)
        norm = [self.linear(features, layer.linear), self.weight(layer.norm.weight), self.weight(layer.norm.bias)]
        return self.add("Tanh", [self.add("LayerNormalization", norm, epsilon=layer.norm.eps)], out=out)


def _actor(graph: _Graph, agent: SacAeAgent, features: str) -> None:
    """The actor's own Linear and LayerNorm, then its layers."""
    x = graph.latent(features, agent.actor.latent)
    for layer in agent.actor.mlp:
        x = graph.linear(x, layer) if isinstance(layer, nn.Linear) else graph.add("Relu", [x])
    graph.nodes.append(helper.make_node("Split", [x], ["mean", "raw_log_std"], axis=1, num_outputs=2))
    graph.add("Tanh", ["mean"], out="action")
    low, high = agent.actor.log_std_range
    unit = graph.add("Add", [graph.add("Tanh", ["raw_log_std"]), graph.const(np.float32(1))])
    scaled = graph.add("Mul", [unit, graph.const(np.float32(0.5 * (high - low)))])
    graph.add("Add", [scaled, graph.const(np.float32(low))], out="log_std")


def _autoencoder(agent: SacAeAgent, spec: PolicySpec, pixels: str, half: bool) -> onnx.GraphProto:
    """The critic's Linear and LayerNorm, which the decoder was trained on, and the newest frame's decoder."""
    graph = _Graph("novelty_")
    x = graph.latent("features", agent.critic.latent, out="novelty_latent")
    decoder = agent.decoder
    assert decoder is not None
    x = graph.add("Relu", [graph.linear(x, decoder.linear, half=half)])
    x = graph.add("Reshape", [x, graph.const(np.array([1, *decoder.shape], np.int64))])
    for i, deconv in enumerate(decoder.deconvs):
        assert isinstance(deconv, nn.ConvTranspose2d)
        assert deconv.bias is not None
        last = i == len(decoder.deconvs) - 1
        weight, bias = deconv.weight, deconv.bias
        if last:  # only the newest frame's three channels are needed
            weight, bias = weight[:, -3:], bias[-3:]
        inputs = [x, graph.weight(weight), graph.weight(bias)]
        padding = list(deconv.output_padding)
        x = graph.add("ConvTranspose", inputs, strides=list(deconv.stride), output_padding=padding)
        x = x if last else graph.add("Relu", [x])
    picture = graph.add("Add", [x, graph.const(np.float32(0.5))], out="novelty_reconstruction")
    bounds = [graph.const(np.array([value], np.int64)) for value in (3 * spec.frame_stack - 3, 3 * spec.frame_stack, 1)]
    newest = graph.add("Slice", [pixels, *bounds])
    error = graph.add("Sub", [picture, newest])
    axes = graph.const(np.array([1, 2, 3], np.int64))
    graph.add("ReduceMean", [graph.add("Mul", [error, error]), axes], keepdims=0, out="novelty_error")
    return helper.make_graph(graph.nodes, "novelty", [], _novelty_outputs(graph, agent, spec, 1), graph.weights)


def _nothing(agent: SacAeAgent, spec: PolicySpec) -> onnx.GraphProto:
    graph = _Graph("nothing_")
    outputs = _novelty_outputs(graph, agent, spec, 0, prefix="nothing_")
    for value in outputs:
        shape = [side.dim_value for side in value.type.tensor_type.shape.dim]
        tensor = numpy_helper.from_array(np.zeros(shape, np.float32))
        graph.nodes.append(helper.make_node("Constant", [], [value.name], value=tensor))
    return helper.make_graph(graph.nodes, "nothing", [], outputs)


def _novelty_outputs(
    graph: _Graph, agent: SacAeAgent, spec: PolicySpec, rows: Any, *, prefix: str = "novelty_"
) -> list[onnx.ValueInfoProto]:
    names = ("latent", "reconstruction", "error" if prefix == "novelty_" else "novelty")
    latent = _latent_size(agent)
    shapes = ([rows, latent], [rows, 3, spec.camera.height, spec.camera.width], [rows])
    return [_float(prefix + name, shape) for name, shape in zip(names, shapes, strict=True)]


def _model(graph: _Graph, agent: SacAeAgent, spec: PolicySpec) -> bytes:
    shape = [1, 3 * spec.frame_stack, spec.camera.height, spec.camera.width]
    inputs = [
        helper.make_tensor_value_info("frames", TensorProto.UINT8, shape),
        helper.make_tensor_value_info("want_novelty", TensorProto.BOOL, []),
    ]
    actions = len(spec.actions)
    latent = _latent_size(agent)
    outputs = [
        _float("action", [1, actions]),
        _float("log_std", [1, actions]),
        _float("latent", ["rows", latent]),
        _float("reconstruction", ["rows", 3, *shape[2:]]),
        _float("novelty", ["rows"]),
    ]
    onnx_graph = helper.make_graph(graph.nodes, spec.name, inputs, outputs, graph.weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(onnx_graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sac_ae_ros")
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return bytes(model.SerializeToString())


def _latent_size(agent: SacAeAgent) -> int:
    """Z of an agent that sees pixels."""
    assert isinstance(agent.critic.latent, Latent)
    return agent.critic.latent.linear.out_features


def _float(name: str, shape: Iterable[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
