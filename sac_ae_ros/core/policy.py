"""OnnxPolicy: an exported policy file, checked, warmed up and ready to act."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A robot's process reports to nobody: onnxruntime's telemetry is on unless this stands before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sac_ae_ros.core import policy_file
from sac_ae_ros.core.errors import ModelError
from sac_ae_ros.core.policy_file import Vetted, Weight, never
from sac_ae_ros.core.spec import PolicySpec

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class PolicyOutput:
    """One inference. The last three are None unless novelty was asked for.

    action: float32 [A], the mean, in [-1, 1]. log_std: float32 [A]. latent: float32 [Z].
    reconstruction: uint8 RGB [H, W, 3] of the newest frame. novelty: its mean squared error.
    """

    action: NDArray[np.float32]
    log_std: NDArray[np.float32]
    latent: NDArray[np.float32] | None = None
    reconstruction: NDArray[np.uint8] | None = None
    novelty: float | None = None


class OnnxPolicy:
    """One loaded policy. Not for several threads at once."""

    def __init__(
        self,
        data: bytes,
        title: str,
        *,
        provider: str = "cpu",
        threads: int = 1,
        background: bool = False,
        given_up: Callable[[], bool] = never,
    ) -> None:
        """Has the bytes of a policy file vetted in a child process, then loads and warms them up here.

        Args:
            data: the file's bytes; untrusted.
            title: what errors call it, usually its path.
            provider: "cpu" or "cuda"; asking for cuda fails where it is not really active.
            threads: intra-op threads; more than one slows small policies down.
            background, given_up: as for `policy_file.vet`.

        Raises:
            ModelError: the file cannot be trusted, loaded or run, or the provider is not active.
            SpecError: its contract is missing, malformed or contradicts its graph.
        """
        self._load(policy_file.vet(data, title, background=background, given_up=given_up), title, provider, threads)

    @classmethod
    def of(cls, vetted: Vetted, title: str) -> OnnxPolicy:
        """Loads and warms up what has been vetted, on the CPU; errors as in the constructor."""
        policy = cls.__new__(cls)
        policy._load(vetted, title, "cpu", 1)
        return policy

    @classmethod
    def own(cls, data: bytes, title: str) -> OnnxPolicy:
        """Loads, on the CPU, bytes that this very process has built, and therefore vets them in it.

        Never for bytes from elsewhere: a hostile file can end or hold up this process. Errors as in the constructor.
        """
        from sac_ae_ros.core import policy_graph  # onnx, which the constructor does without

        spec, skeleton, weights = policy_graph.vet(data, title)
        return cls.of(Vetted(spec, skeleton, tuple(weights), data), title)

    def _load(self, vetted: Vetted, title: str, provider: str, threads: int) -> None:
        self.spec: PolicySpec = vetted.spec
        self.sha256 = hashlib.sha256(vetted.data).hexdigest()
        # onnxruntime may read them in place, as long as the session lives
        self._weights = [_tensor(weight, vetted.data) for weight in vetted.weights]
        self._session = _session(vetted, self._weights, title, provider, threads)
        self.provider = self._session.get_providers()[0]
        self._warm_up(title)

    @staticmethod
    def load(path: str | Path, *, provider: str = "cpu", threads: int = 1) -> OnnxPolicy:
        """Reads the file at `path` once, whole, and loads it; arguments and errors as in the constructor."""
        path = Path(path)
        return OnnxPolicy(policy_file.read_bytes(path), str(path), provider=provider, threads=threads)

    def act(self, frames: NDArray[np.uint8], want_novelty: bool = False) -> PolicyOutput:
        """Infers from one stack, uint8 [3K, H, W], oldest frame first; about 2 ms at 84x84 on one core.

        Raises:
            ModelError: onnxruntime failed.
        """
        feeds = {"frames": frames[None], "want_novelty": np.asarray(want_novelty)}
        try:
            action, log_std, latent, reconstruction, novelty = self._session.run(
                ["action", "log_std", "latent", "reconstruction", "novelty"], feeds
            )
        except Exception as error:  # onnxruntime raises classes of its own that derive from Exception alone
            raise ModelError(f"policy {self.spec.name}: inference failed ({str(error)[:200]})") from None
        if not want_novelty:
            return PolicyOutput(action[0], log_std[0])
        picture = np.clip(np.nan_to_num(reconstruction[0]).transpose(1, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
        return PolicyOutput(action[0], log_std[0], latent[0], picture, float(novelty[0]))

    def _warm_up(self, title: str) -> None:
        camera = self.spec.camera
        shape = (3 * self.spec.frame_stack, camera.height, camera.width)
        for value, want_novelty in ((0, False), (127, True), (255, True)):
            output = self.act(np.full(shape, value, np.uint8), want_novelty)
            finite = np.isfinite(output.action).all() and np.isfinite(output.log_std).all()
            if not finite or np.abs(output.action).max() > 1:
                raise ModelError(f"{title}: expected finite actions within -1..1, got {output.action.tolist()}")
            if want_novelty and not np.isfinite(output.novelty or 0.0):
                raise ModelError(f"{title}: expected a finite novelty, got {output.novelty}")


def _tensor(weight: Weight, data: bytes) -> ort.OrtValue:
    """A copy of its own, aligned. Copying large arrays releases the interpreter; parsing them would not."""
    count = math.prod(weight.shape)
    flat = np.frombuffer(data, np.dtype(weight.dtype), count, weight.offset)
    return ort.OrtValue.ortvalue_from_numpy(flat.reshape(weight.shape).copy())


def _session(
    vetted: Vetted, weights: list[ort.OrtValue], title: str, provider: str, threads: int
) -> ort.InferenceSession:
    if provider not in PROVIDERS:
        raise ModelError(f"inference provider: expected one of {sorted(PROVIDERS)}, got {provider!r}")
    wanted = PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        raise ModelError(
            f"inference provider {provider}: onnxruntime here offers {ort.get_available_providers()};"
            " install the extra `gpu` instead of `cpu`, or choose cpu"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; printed, they would quote the file
    if weights:
        options.add_external_initializers([weight.name for weight in vetted.weights], weights)
    chain = [wanted] if provider == "cpu" else [wanted, PROVIDERS["cpu"]]
    try:
        session = ort.InferenceSession(vetted.skeleton, options, providers=chain)
    except Exception as error:  # as above: no common class but Exception
        raise ModelError(f"{title}: onnxruntime cannot load it ({str(error)[:200]})") from None
    if session.get_providers()[0] != wanted:
        raise ModelError(
            f"inference provider {provider}: onnxruntime fell back to {session.get_providers()[0]};"
            " run `sac-ae doctor` to see what is missing"
        )
    return session
