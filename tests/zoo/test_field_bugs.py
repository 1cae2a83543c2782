"""Bugs that other trainers have, or had, in methods for given data: each with the tests that would show it here.

Most of them are one of six: a sum for a mean, a micro-batch for the step, an index counted from the wrong place, an end
or a beginning lost, an option that is accepted and ignored, a sign. What has no better place is tested below.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.conftest import ROOT
from xpo import Batch, Completion, Group
from xpo.cli import main
from xpo.data.prepare import prepare
from xpo.data.sources import Rows
from xpo.models.scoring import score

_PAIRS, _FREE, _HERE = "zoo/test_pairs_mistakes.py", "zoo/test_pairs_free.py", "zoo/test_field_bugs.py"

#: What goes wrong elsewhere -> file and name of the tests that hold it off.
TESTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "labels come sorted, so that KTO's micro-batches have one label each": (
        ("data/test_order.py", "test_converted_pairs_never_make_batches_of_one_label"),
        ("data/test_order.py", "test_labels_are_spread_evenly"),
        ("zoo/test_kto.py", "test_the_order_mixes_labels_that_come_sorted"),
    ),
    "every epoch has the same order": (("data/test_order.py", "test_the_order_follows_seed_and_epoch_alone"),),
    "a last batch of one row is mismatched with its own completion": (
        ("zoo/test_kto.py", "test_a_row_that_would_be_alone_is_left_out"),
        ("zoo/test_kto.py", "test_a_batch_of_one_is_refused_with_the_way_out"),
    ),
    "evaluation mismatches rows by the batch size of training": (
        (_HERE, "test_mismatched_completions_come_from_the_same_batch_in_training_and_evaluation"),
    ),
    "mismatched completions meet a prompt equal to their own": (
        ("zoo/test_kto.py", "test_equal_prompts_never_meet_where_that_can_be_avoided"),
    ),
    "KTO's reference point is clamped before the mean, or is that of one rank": (
        ("zoo/test_kto.py", "test_z0_is_clamped_after_the_mean"),
        ("zoo/test_kto.py", "test_z0_is_the_mean_over_all_ranks_and_idle_ones_do_not_count"),
    ),
    "KTO raises undesirable completions": (
        (
            "zoo/test_kto.py",
            "test_the_gradient_raises_the_desirable_lowers_the_undesirable_and_leaves_the_mismatched",
        ),
        ("zoo/test_kto.py", "test_one_step_moves_the_completions_where_they_belong"),
    ),
    "label smoothing is ignored": (
        (_PAIRS, "test_cdpo_is_not_an_ignored_option"),
        ("cli/test_train_flags.py", "test_what_cannot_be_honoured_is_named"),
        ("cli/test_train_flags.py", "test_every_foreign_flag_is_refused_with_its_reason"),
    ),
    "a loss is on offer that is not there": ((_HERE, "test_a_method_that_is_not_there_is_not_on_offer"),),
    "the NLL of ORPO, CPO and RPO depends on accumulation": (
        (_HERE, "test_accumulation_does_not_change_an_nll"),
        (_FREE, "test_the_loss_of_a_step_does_not_depend_on_its_micro_batches"),
        (_PAIRS, "test_the_token_nll_of_rpo_is_that_of_the_step_not_of_its_micro_batches"),
        ("zoo/test_sft.py", "test_the_token_mean_is_of_the_step_and_not_of_its_micro_batches"),
    ),
    "SimPO has the beta of DPO, a margin far beyond it, and an NLL": (
        (_HERE, "test_the_defaults_of_simpo_are_within_what_its_authors_used"),
        (_FREE, "test_simpo_adds_no_nll_that_nobody_asked_for"),
    ),
    "ORPO's gradient is NaN close to certainty": (
        (_FREE, "test_orpo_stays_finite_where_a_completion_is_known_by_heart"),
        (_FREE, "test_the_odds_keep_their_digits_close_to_certainty"),
    ),
    "the first token of a completion is lost": (
        ("train/test_invariance.py", "test_every_token_of_a_completion_counts"),
        (_HERE, "test_averages_are_over_the_completion_and_all_of_it"),
    ),
    "averages are over prompt and completion, or from positions of the whole sequence": (
        (_HERE, "test_averages_are_over_the_completion_and_all_of_it"),
    ),
    "WPO's weights are of sums, and vanish": (
        ("zoo/test_wpo.py", "test_the_weight_of_wpo_does_not_vanish_with_length"),
    ),
    "WPO's weights are off by one token": ((_HERE, "test_the_weights_of_wpo_are_of_the_tokens_they_belong_to"),),
    "WPO's weights exceed 1": (("zoo/test_wpo.py", "test_the_weight_of_wpo_is_clamped_at_1"),),
    "log(1 + exp(x)) is infinite": (
        ("zoo/test_rewards.py", "test_the_log_of_one_plus_exp_overflows_elsewhere_but_not_here"),
        ("zoo/test_pairs_in_common.py", "test_hundreds_of_nats_either_way_stay_finite_in_float32"),
    ),
    "IPO compares sums by accident": ((_PAIRS, "test_ipo_averages_unless_told_to_sum"),),
    "LD-DPO counts positions from the start of the prompt": (
        (_PAIRS, "test_ld_dpo_counts_positions_from_the_start_of_the_completion"),
    ),
    "LD-DPO scales the policy alone": ((_PAIRS, "test_ld_dpo_scales_the_tail_of_the_reference_too"),),
    "alpha of f-DPO is turned around": ((_PAIRS, "test_alpha_of_f_dpo_is_the_papers_and_not_one_minus_it"),),
    "BCO on pairs has lost its shift": ((_PAIRS, "test_bco_on_pairs_has_its_shift"),),
    "tokens of id 0 are dropped": (
        (_PAIRS, "test_the_nll_of_rpo_does_not_drop_tokens_of_id_zero"),
        (_FREE, "test_a_token_whose_id_is_0_counts_in_the_nll"),
        ("zoo/test_sft.py", "test_a_token_whose_id_is_0_is_learnt_like_any_other"),
    ),
    "an EOS that pads is not learnt": (("train/test_invariance.py", "test_every_token_of_a_completion_counts"),),
    "BOS is doubled": (("data/test_tokenize.py", "test_bos_is_never_doubled_and_may_be_missing"),),
    "BOS is put in front although there is none": (
        ("data/test_tokenize.py", "test_bos_is_never_doubled_and_may_be_missing"),
        ("data/test_tokenize.py", "test_an_empty_prompt_becomes_bos_or_eos"),
    ),
    "EOS is doubled, or missing": (
        ("data/test_tokenize.py", "test_there_is_exactly_one_eos"),
        ("data/test_tokenize.py", "test_an_eos_is_added_only_where_the_template_closes_no_turn"),
    ),
    "truncation cuts the EOS, or leaves nothing of a completion": (
        (_HERE, "test_no_length_limit_touches_a_completion"),
        ("data/test_tokenize.py", "test_long_text_prompts_lose_their_beginning_but_bos"),
    ),
    "the side a tokenizer pads on decides what is learnt": (
        (_HERE, "test_no_length_limit_touches_a_completion"),
        ("train/test_invariance.py", "test_what_stands_in_the_padding_does_not_matter"),
    ),
    "a prompt that was tokenized alone ends in the middle of a token": (
        ("data/test_tokenize.py", "test_the_completion_starts_where_tokens_diverge"),
    ),
    "SLiC's loss of a pair is spread over tokens": (
        (_FREE, "test_the_slic_hinge_is_one_value_a_pair_where_pairs_are_as_many_as_tokens"),
    ),
    "reference log-probabilities are kept and not used, or used for another model": (
        ("runs/test_reference_cache.py", "test_it_changes_nothing"),
        ("runs/test_reference_cache.py", "test_another_reference_is_another_cache"),
    ),
    "a blend of losses is not their sum": (
        ("train/test_mixture.py", "test_a_mixture_is_the_weighted_sum_of_its_parts"),
    ),
}


@cache
def names(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("bug", TESTS)
def test_every_bug_has_its_tests(bug: str) -> None:
    for file, name in TESTS[bug]:
        assert name in names(ROOT / "tests" / file), f"{file} has no {name}"


def test_mismatched_completions_come_from_the_same_batch_in_training_and_evaluation(tmp_path: Path) -> None:
    sizes = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 4}
    trainer = tiny.trainer("kto", tmp_path, train=tiny.groups("labels", 11), **sizes)
    for loader, size in ((trainer.get_train_dataloader(), 2), (trainer.get_eval_dataloader(trainer.train_dataset), 4)):
        batches = [micro.groups for micro in loader]
        assert {len(groups) for groups in batches[:-1]} == {size}
        for groups in batches:
            borrowed = [group.completions[1].ids for group in groups]
            assert len(groups) > 1
            assert borrowed == [groups[number - 1].completions[0].ids for number in range(len(groups))]


@pytest.mark.parametrize("asked", ["kto_pair", "aot_pair"])
def test_a_method_that_is_not_there_is_not_on_offer(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--algo", asked]) == 2
    assert f"'{asked}'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "kind"), [("orpo", "pairs"), ("cpo_simpo", "pairs"), ("sft", "demonstrations")])
def test_accumulation_does_not_change_an_nll(tmp_path: Path, name: str, kind: str) -> None:
    runs = []
    for size, pieces in ((4, 1), (1, 4)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": pieces, "max_steps": 2}
        runs.append(tiny.fit(name, tmp_path / str(size), train=tiny.groups(kind, 8), **split))
    assert runs[0].losses == pytest.approx(runs[1].losses, abs=1e-5)
    assert runs[0].distance(runs[1]) < 1e-5


def test_the_defaults_of_simpo_are_within_what_its_authors_used() -> None:
    simpo = tiny.algorithm("simpo").config
    assert 2.0 <= simpo.beta <= 10.0
    assert 0.1 <= simpo.margin / simpo.beta <= 0.8
    assert simpo.sft_weight == 0.0
    assert tiny.algorithm("simpo", gamma=None, gamma_beta_ratio=None).config.margin == simpo.margin


def by_hand(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """(n, V) log-probabilities of whatever might stand where each token of the completion does."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


#: Two completions as long as each other, which part at their first token, behind a longer prompt.
EQUAL = Group(
    [7, 0, 2, 5, 9, 1, 3, 8],
    [Completion([4, 6, tiny.EOS], "chosen"), Completion([0, 6, tiny.EOS], "rejected")],
    [(0, 1)],
)


@pytest.mark.parametrize("name", ["simpo", "orpo", "cpo_simpo", "dpo_norm", "ipo"])
def test_averages_are_over_the_completion_and_all_of_it(name: str) -> None:
    """Elsewhere such a pair has rewards of 0, and a loss without gradient or a NaN."""
    model, other = tiny.model().double(), tiny.model(1).double()
    batch = Batch.of([EQUAL], dtype=torch.float64)
    method = tiny.algorithm(name)
    policy, reference = score(model, batch), score(other, batch)
    policy.logps.retain_grad()
    loss = method.loss(batch, policy, reference if method.needs.reference else None)
    sum(term.values.sum() for term in loss.terms).backward()
    for role, one in zip(("chosen", "rejected"), EQUAL.completions, strict=True):
        expected = by_hand(model, EQUAL.prompt_ids, one.ids)[range(3), one.ids].mean()
        assert float(loss.metrics[f"logps/{role}"].detach()) == pytest.approx(float(expected), abs=1e-12)
    assert policy.logps.grad is not None
    assert bool((policy.logps.grad.abs() > 1e-6).all())


def test_the_weights_of_wpo_are_of_the_tokens_they_belong_to() -> None:
    model = tiny.model().double()
    batch = Batch.of([EQUAL], dtype=torch.float64)
    policy = score(model, batch, vocabulary=True)
    found = tiny.algorithm("wpo", clamp=False).loss(batch, policy, policy).metrics["weights"]
    expected = 1.0
    for one in EQUAL.completions:
        logps = by_hand(model, EQUAL.prompt_ids, one.ids)
        own, chance = logps[range(3), one.ids], (2.0 * logps).logsumexp(-1)
        expected *= float((own - chance).mean().exp())
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_length_limit_touches_a_completion(side: str) -> None:
    rows = Rows.of(tiny.rows("pairs", 20), "mine")
    tokenizer = tiny.tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = side
    whole = {group.row: group for group in prepare(rows, "pairs", tokenizer, max_length=None).groups}
    assert len(whole) == 20
    kept = []
    shortest = min(max(len(one.ids) for one in group.completions) for group in whole.values())
    for limit in range(shortest + 1, 20):
        groups = prepare(rows, "pairs", tokenizer, max_length=limit).groups
        for group in groups:
            assert [one.ids for one in group.completions] == [one.ids for one in whole[group.row].completions]
            assert all(one.ids[-1] == tiny.EOS for one in group.completions)
            assert len(group.prompt_ids) >= 1
            assert group.length <= limit
            assert group.prompt_ids == whole[group.row].prompt_ids[-len(group.prompt_ids) :]
        kept.append(len(groups))
    assert kept == sorted(kept)
    assert 0 < kept[0] < kept[-1] == 20
