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
    from pathlib import Path

    from common.digests import file_digest
    from validation.gate.gate import evaluate_gate, load_evaluation, load_policy, parse_policy, write_verdict

    verdict.path = f"{verdict.path}.json"
    rules = parse_policy(policy) if policy else load_policy()
    decided = evaluate_gate(load_evaluation(evaluation.path), rules, bootstrap, forced)
    write_verdict(decided, Path(verdict.path))
    verdict.metadata.update(digest=file_digest(verdict.path), evaluation=evaluation.metadata["digest"])
    verdict.metadata.update(blessed=decided.blessed, policy=decided.policy, summary=decided.summary())
    return decided.blessed
