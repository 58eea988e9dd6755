"""Step: may the challenger be released?"""

from kfp.dsl import Artifact, Input, Output

from orchestration.step import step


@step
def gate(
    evaluation: Input[Artifact], policy: str, bootstrap: bool, forced: list, verdict: Output[Artifact]
) -> bool:
    """Judge the evidence; True only where no blocking condition failed.

    Args:
        policy: text of a gate policy (YAML); "" is the project's own.
        bootstrap: a person asked for a first release, which has no champion to face.
        forced: production's promotions by force, which the verdict mentions and never judges.
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
