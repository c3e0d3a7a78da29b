"""Membership inference: can an attacker tell who was in the training data?

from vambrace.privacy.membership import loss_scores, measure
result = measure(loss_scores(model, xm, ym), loss_scores(model, xn, yn))
result.auc, result.tpr
"""

from vambrace.privacy.membership.threshold import MembershipResult, TprPoint, loss_scores, measure, roc_points

__all__ = ["MembershipResult", "TprPoint", "loss_scores", "measure", "roc_points"]
