"""One way in: defaults, YAML, command line; whatever does not fit is one clear error."""

import pytest

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.core.share import share_file
from sim_training import config as configs


def test_defaults_are_the_published_recipe():
    config = configs.parse([])
    learn, network = config.learn, config.network
    assert (network.filters, network.strides, network.latent, network.hidden) == (32, (2, 1, 1, 1), 50, 1024)
    assert (learn.batch_size, learn.discount, learn.random_steps, learn.replay_capacity) == (128, 0.99, 1000, 1_000_000)
    assert (learn.critic_lr, learn.actor_lr, learn.autoencoder_lr, learn.alpha_lr) == (1e-3, 1e-3, 1e-3, 1e-4)
    assert (learn.alpha_beta1, learn.init_alpha, learn.latent_l2, learn.decoder_weight_decay) == (0.5, 0.1, 1e-6, 1e-7)
    assert (learn.actor_every, learn.target_every, learn.decoder_every) == (2, 2, 1)
    assert (learn.critic_tau, learn.encoder_tau) == (0.01, 0.05)
    assert (config.env.height, config.env.width, config.env.frame_stack) == (84, 84, 3)


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learn: {batch_size: 32, discount: 0.9}\nnetwork: {strides: [2, 2]}\n")
    config = configs.parse(["--learn.batch_size=16"], path=path)
    assert (config.learn.batch_size, config.learn.discount, config.network.strides) == (16, 0.9, (2, 2))
    assert config.learn.critic_tau == 0.01


def test_a_saved_config_comes_back_the_same(tmp_path):
    config = configs.parse(["--env.task=cartpole/swingup", "--learn.critic_lr=0.0005", "--network.strides=[2,2,1]"])
    configs.save(config, tmp_path / "config.yaml")
    assert configs.load(tmp_path / "config.yaml") == config


def test_the_shipped_configs_parse():
    assert configs.parse([], path=share_file("config/train/rover_chase_ball.yaml")).env.task == "rover/chase_ball"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--learn.batchsize=3"], "batchsize"),
        (["--run.env_step=5"], "unrecognized arguments: --run.env_step=5"),
        (["--learn.critic_l", "1"], "unrecognized arguments: --learn.critic_l 1"),
        (["--prof=plain"], "unrecognized arguments: --prof=plain"),
        (["--learn.batch_size=many"], "learn.batch_size"),
        (["--learn.batch_size=0"], "at least 1"),
        (["--learn.discount=1.5"], r"0\.\.1"),
        (["--network.strides=[]"], "strides"),
        (["--env.height=3"], "enough pixels for the strides"),
        (["--learn.replay_capacity=100"], "more than 131"),
        (["stray"], "stray"),
        (["--run.eval_every=-1"], "at least 0"),
        (["--run.seed=-1"], "at least 0"),
        (["--learn.updates_per_step=-3"], "at least 0"),
        (["--learn.critic_lr=-1"], r"learn.critic_lr: expected 1e-12\.\.1, got -1"),
        (["--learn.actor_lr=1e-320"], r"learn.actor_lr: expected 1e-12\.\.1, got 1e-320"),
        (["--learn.alpha_lr=100"], r"learn.alpha_lr: expected 1e-12\.\.1, got 100"),
        (["--learn.init_alpha=-1"], r"learn.init_alpha: expected 1e-12\.\.1e\+06, got -1"),
        (["--learn.init_alpha=1e308"], r"learn.init_alpha: expected 1e-12\.\.1e\+06, got 1e\+308"),
        (["--learn.init_alpha=1e-46"], "learn.init_alpha: expected"),
        (["--learn.init_alpha=.nan"], "learn.init_alpha: expected .* got nan"),
        (["--learn.discount=.nan"], r"learn.discount: expected 0\.\.1, got nan"),
        (["--learn.critic_tau=1.1"], r"learn.critic_tau: expected 0\.\.1, got 1.1"),
        (["--network.log_std_min=3"], "less than log_std_max"),
        (["--network.log_std_max=1000"], r"network.log_std_max: expected -50\.\.20, got 1000"),
        (["--learn.decoder_weight_decay=-1e-7"], r"decoder_weight_decay: expected 0\.\.1e\+06, got -1e-07"),
        (["--learn.decoder_weight_decay=.nan"], r"expected 0\.\.1e\+06, got nan"),
        (["--learn.latent_l2=1e300"], r"learn.latent_l2: expected 0\.\.1e\+06, got 1e\+300"),
        (["--learn.latent_l2=-1"], r"learn.latent_l2: expected 0\.\.1e\+06, got -1"),
        (["--learn.alpha_beta1=1"], r"learn.alpha_beta1: expected 0\.\.1, less than 1, got 1"),
        (["--learn.alpha_beta1=-0.1"], "learn.alpha_beta1"),
        (["--learn.critic_lr=.inf"], r"learn.critic_lr: expected 1e-12\.\.1, got inf"),
        (["--env.width=1000000"], r"env.width: expected 1\.\.1024, got 1000000"),
        (["--env.height=1025"], r"env.height: expected 1\.\.1024, got 1025"),
        (["--env.frame_stack=17"], r"env.frame_stack: expected 1\.\.16, got 17"),
        (["--env.supersample=17"], r"env.supersample: expected 1\.\.16"),
        (["--network.hidden=1000000"], r"network.hidden: expected 1\.\.16384"),
        (["--network.filters=100000"], r"network.filters: expected 1\.\.1024"),
        (["--network.latent=100000"], r"network.latent: expected 1\.\.4096"),
        (["--learn.batch_size=1000000"], r"learn.batch_size: expected 1\.\.65536"),
        (["--learn.n_step=1000000"], r"learn.n_step: expected 1\.\.1000"),
        (["--run.collect=async", "--run.envs=100000"], r"run.envs: expected 1\.\.1024"),
        (["--run.threads=100000"], r"run.threads: expected 0\.\.1024"),
        (["--run.seed=99999999999999999999"], r"run.seed: expected 0\.\.9223372036854775807"),
        (["--run.device=foo"], "cuda:N"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ConfigError, match=says) as caught:
        configs.parse(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("learn: {batchsize: 3}", "batchsize"),
        ("training: {}", "training"),
        ("learn: [1, 2", "while parsing"),
        ("learn: {batch_size: many}", "batch_size"),
        ("- 1", "run.yaml"),
    ],
)
def test_bad_files(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        configs.parse([], path=path)


def bomb(levels: int) -> str:
    """Aliases of aliases: a few hundred bytes that are 9 to the power of `levels` values."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(f"    {line}" for line in lines)


def merges(levels: int) -> str:
    """Merge keys of merge keys: what PyYAML itself makes longer and longer."""
    lines = ["a0: &a0 {x: 1, y: 2}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, levels)]
    return "\n".join(f"    {line}" for line in lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x: " + "[" * 5000 + "]" * 5000, "expected a few levels, got hundreds"),
        ("[" * 3000, "expected a few levels, got hundreds"),
        ("env: {task: " + "[" * 200 + "]" * 200 + "}", "env.task"),
        ("env:\n  task:\n" + bomb(12), "expected at most 10000 values"),
        ("env:\n  task:\n" + merges(40), "expected at most 10000 values"),
        ("env: {task: &a [*a]}", r"expected no alias of what it stands in, got \*a"),
        ("# " + "x" * 2**20, "expected at most 1048576 bytes"),
        (f"env: {{width: {'9' * 6000}}}", "digits"),
        ("env: {width: .inf}", "env.width"),
    ],
)
@pytest.mark.parametrize("read", [configs.load, lambda path: configs.parse([], path=path)])
def test_files_made_to_take_forever_are_refused_at_once(tmp_path, read, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="expected a YAML file"):
        configs.parse([], path=tmp_path / "none.yaml")


def test_every_key_is_explained():
    text = configs.help_text()
    for group in ("env", "network", "learn", "run"):
        for name in vars(getattr(configs.TrainConfig(), group)):
            assert f"--{group}.{name}" in text
    assert "gamma" in text


def test_the_best_profile_is_the_default_and_plain_is_the_published_recipe():
    best, plain = configs.parse([]), configs.parse(["--profile=plain"])
    assert (best.profile, plain.profile) == ("best", "plain")
    assert plain == configs.TrainConfig(profile="plain")
    assert (plain.learn.shared_pass, plain.learn.random_shift, plain.learn.n_step) == (False, 0, 1)
    assert (best.learn.shared_pass, best.learn.random_shift, best.learn.n_step) == (True, 4, 3)
    assert best.network.critic_layer_norm
    assert not plain.network.critic_layer_norm


def test_a_file_and_the_command_line_come_after_the_profile(tmp_path):
    (tmp_path / "c.yaml").write_text("learn: {n_step: 5}\nenv: {height: 40, width: 64}\n")
    config = configs.parse(["--learn.shared_pass=false"], path=tmp_path / "c.yaml")
    assert (config.learn.n_step, config.learn.shared_pass, config.learn.random_shift) == (5, False, 2)
    (tmp_path / "c.yaml").write_text("profile: plain\n")
    assert configs.parse([], path=tmp_path / "c.yaml").learn.n_step == 1
    assert configs.parse(["--profile=best"], path=tmp_path / "c.yaml").learn.n_step == 3


def test_a_saved_config_is_read_as_it_is(tmp_path):
    for arguments in (["--profile=best", "--learn.n_step=1"], ["--profile=plain"]):
        config = configs.parse(arguments)
        configs.save(config, tmp_path / "config.yaml")
        assert configs.load(tmp_path / "config.yaml") == config
    (tmp_path / "config.yaml").write_text("env: {task: rover/chase_ball}\n")  # of a version without these keys
    assert configs.load(tmp_path / "config.yaml").learn.n_step == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile=good"], "profile"),
        (["--run.envs=2"], "run.envs: expected 1, or run.collect async, got 2"),
        (["--learn.n_step=0"], "learn.n_step: expected at least 1, got 0"),
        (["--learn.random_shift=84"], "learn.random_shift: expected less than the image, got 84"),
        (["--run.replay=tape"], "run.replay"),
    ],
)
def test_flags_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        configs.parse(arguments)


def test_a_config_that_was_cut_short_is_no_base_for_a_resume(tmp_path):
    path = tmp_path / "config.yaml"
    configs.save(configs.parse([]), path)
    text = path.read_text()
    path.write_text(text[: text.index("  eval_every")])
    with pytest.raises(ConfigError, match=r"lacks run\.eval_every: it was cut short"):
        configs.load_to_resume(path, [])


def test_only_the_budget_and_the_machine_may_change_on_a_resume(tmp_path):
    path = tmp_path / "config.yaml"
    saved = configs.parse(["--profile=plain"])
    configs.save(saved, path)
    assert configs.load_to_resume(path, []) == saved
    assert configs.load_to_resume(path, ["--run.env_steps=7", "--run.threads=1"]).run.env_steps == 7
    assert configs.load_to_resume(path, ["--run.replay=disk"]).run.replay == "disk"
    for argument, name in (("--learn.n_step=2", "learn.n_step is 1"), ("--profile=best", "profile is plain")):
        with pytest.raises(ConfigError, match=rf"{name} in this run; only run\.env_steps"):
            configs.load_to_resume(path, [argument])
