"""Mix the next-token distributions of two models, for an opponent that stands between the policy and its reference."""

from __future__ import annotations

from torch import Tensor

from xpo.errors import SettingError


def geometric_mixture(policy_logits: Tensor, ref_logits: Tensor, mixture: float) -> Tensor:
    """log of p^(1 - mixture) q^mixture, normalised, with p and q the softmax of two models' logits (2312.00886, 5.1).

    At another temperature than 1 it makes no difference whether the logits are divided by it or the mixture is.

    Args:
        policy_logits, ref_logits: (..., V) logits of one vocabulary.
        mixture: share of the reference, from 0 (the policy) to 1 (the reference).

    Returns:
        (..., V) log-probabilities.

    Raises:
        SettingError: ``mixture`` is outside [0, 1], or the models differ in their vocabulary.
    """
    if not 0.0 <= mixture <= 1.0:
        raise SettingError(f"the share of the reference in a mixture must be in [0, 1], not {mixture}")
    if policy_logits.shape[-1] != ref_logits.shape[-1]:
        raise SettingError(
            f"policy and reference must share one vocabulary to be mixed, but one has {policy_logits.shape[-1]} "
            f"tokens and the other {ref_logits.shape[-1]}"
        )
    # At the ends the other model must not be asked: 0 times the -inf of a token it never says would be NaN.
    if mixture == 0.0:
        return policy_logits.log_softmax(-1)
    if mixture == 1.0:
        return ref_logits.log_softmax(-1)
    return ((1.0 - mixture) * policy_logits.log_softmax(-1) + mixture * ref_logits.log_softmax(-1)).log_softmax(-1)
