"""What can be wrong with settings of sampling and of those who judge samples: found before anything is loaded."""

from __future__ import annotations

from xpo.errors import SettingError
from xpo.feedback.judges import RUBRIC, SERVED
from xpo.feedback.vllm import check_vllm
from xpo.train.rules import By, named, refuse
from xpo.train.settings import SAMPLES, RolloutSettings, Settings


def check_rollouts(settings: Settings, by: By) -> None:
    """Refuse settings of sampling that contradict each other, or the method; fill in how many samples it takes.

    Raises:
        SettingError: the first contradiction.
    """
    if settings.run.online:
        _online(settings, by)
    if settings.rollout is not None:
        _samples(settings, settings.rollout, by)
        _feedback(settings, settings.rollout, by)
        _sampling(settings, settings.rollout, by)


def _online(settings: Settings, by: By) -> None:
    cls, algo, label = settings.entry.cls, settings.run.algo, named("online", by)
    if cls.data == "rollouts":
        raise SettingError(f"{label}: {algo} samples while it trains anyway; leave the flag out")
    if cls.model != "policy":
        raise SettingError(f"{label}: {algo} trains a {cls.model} model, and only a policy has samples of its own")
    if cls.data not in SAMPLES:
        raise SettingError(
            f"{label} is for methods that learn from {', '.join(SAMPLES)}; {algo} learns from {cls.data} data"
        )
    if cls.extras:
        raise SettingError(
            f"{label}: {algo} also reads completions in the columns {', '.join(cls.extras)}, which nobody samples"
        )


def _samples(settings: Settings, rollout: RolloutSettings, by: By) -> None:
    needs, data = settings.make_algorithm().needs, settings.entry.cls.data
    if rollout.num_generations is None:
        rollout.num_generations = needs.samples or SAMPLES[data]
    compared = data != "rollouts" or needs.samples > 1 or (needs.wins is not None and needs.opponent is None)
    if rollout.num_generations < 2 and compared:
        raise SettingError(f"{named('num_generations', by)}: {settings.run.algo} compares completions and needs 2")
    if needs.opponent is not None and needs.opponent.trained and rollout.num_generations != needs.samples:
        raise SettingError(
            f"{named('num_generations', by)}: {settings.run.algo} compares {needs.samples} completion of the policy's "
            f"with {needs.opponent.samples} of its opponent's; leave the flag out"
        )
    for name, kind in (("online_pairs", "pairs"), ("label_threshold", "labels")):
        if name in by and data != kind:
            raise SettingError(
                f"{by[name].label} is for methods that learn from {kind}; {settings.run.algo} learns from {data}"
            )


def _feedback(settings: Settings, rollout: RolloutSettings, by: By) -> None:
    rewards, judge = settings.source("reward"), settings.source("judge")
    if not rewards and judge is None and not settings.testbed_data:
        raise SettingError(
            f"{settings.run.algo} needs to hear what the completions it samples are worth: give --reward a name from "
            "`xpo plugins`, module:function, file.py:function, or a reward model; or give --judge"
        )
    if rewards and judge is not None:
        raise SettingError(
            f"{named('reward', by)} and {named('judge', by)} both say what samples are worth; give one of them"
        )
    if isinstance(judge, str) and not judge.removeprefix(RUBRIC).startswith(SERVED):
        refuse(("judge_timeout", "judge_retries", "judge_concurrency"), by, f"{judge} asks no server")
    weights = rollout.reward_weights
    if weights is not None and len(weights) != len(rewards):
        raise SettingError(
            f"{named('reward_weights', by)} has {len(weights)} numbers for {len(rewards)} rewards; give one for each"
        )
    if rollout.missing_eos_score is not None:
        if judge is not None:
            raise SettingError(f"{named('missing_eos_score', by)} is a reward, and a judge gives none; drop it")
        if rollout.missing_eos_penalty is not None:
            raise SettingError(
                f"{named('missing_eos_score', by)} takes the place of a reward, and "
                f"{named('missing_eos_penalty', by)} lowers it; give one of them"
            )


def _sampling(settings: Settings, rollout: RolloutSettings, by: By) -> None:
    needs = settings.make_algorithm().needs
    for name in ("top_k", "top_p"):
        if name in by and needs.ratios and settings.entry.cls.data == "rollouts":
            raise SettingError(
                f"{by[name].label}: {settings.run.algo} compares the log-probabilities of samples with those they were "
                "drawn by, and the distribution that is left after cutting is another one; --temperature shapes both"
            )
    if rollout.use_vllm:
        if needs.opponent is not None:
            raise SettingError(
                f"{named('use_vllm', by)}: {settings.run.algo} also samples from the reference, which the server has "
                "not; leave the flag out"
            )
        if rollout.vllm_server_base_url is None:
            raise SettingError(
                f"{named('use_vllm', by)} needs a server: start `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL "
                '--weight-transfer-config \'{"backend": "nccl"}\'` and give its address as --vllm_server_base_url '
                "http://localhost:8000"
            )
        if settings.training.fsdp or settings.training.deepspeed:
            raise SettingError(
                f"{named('use_vllm', by)}: the server is sent whole weights, and --fsdp and --deepspeed spread them "
                "over processes; leave one of them out"
            )
        check_vllm()
