"""The smallest training configuration that exercises everything: 12x12 pixels, two frames."""

from sim_training.config import EnvConfig, LearnConfig, NetworkConfig, RunConfig, TrainConfig

TINY = TrainConfig(
    profile="plain",
    env=EnvConfig(height=12, width=12, frame_stack=2),
    network=NetworkConfig(filters=4, strides=(2, 1), latent=6, hidden=16),
    learn=LearnConfig(batch_size=8, replay_capacity=200, random_steps=30),
    run=RunConfig(env_steps=60, eval_every=30, eval_episodes=1, checkpoint_every=30, log_every=10, threads=1),
)
