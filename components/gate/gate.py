"""Step: may the challenger be released?"""

from kfp.dsl import Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def gate(
    evaluation: Input[artifact_types.Evaluation],
    policy: str,
    bootstrap: bool,
    forced: list,
    verdict: Output[artifact_types.Verdict],
) -> bool:
    """Judge the evidence; True only if no blocking condition failed.

    Args:
        policy: text of a gate policy (YAML); "" is the project's own.
        bootstrap: allow a first release, which has no champion to be compared with.
        forced: production's forced promotions, which the verdict mentions but does not judge.
    """
    from car_model.evidence.evaluation import Evaluation
    from common.digests import file_digest
    from validation.gate.gate import evaluate_gate
    from validation.gate.policy import load_policy, parse_policy

    verdict.path = f"{verdict.path}.json"
    rules = parse_policy(policy) if policy else load_policy()
    decision = evaluate_gate(Evaluation.read_object(evaluation.path), rules, bootstrap, forced)
    decision.write(verdict.path)
    verdict.metadata.update(digest=file_digest(verdict.path), evaluation=evaluation.metadata["digest"])
    verdict.metadata.update(blessed=decision.blessed, policy=decision.policy, summary=decision.summary())
    return decision.blessed
