"""Step: says why the gate refused the challenger."""

from kfp.dsl import Input

from orchestration import artifact_types
from orchestration.step import step


@step
def not_promoted(
    verdict: Input[artifact_types.Verdict], registry: str, run_id: str, require_promotion: bool
) -> None:
    """Print the gate's verdict and keep it with the run, for the exit step and `car submit --watch`.

    Never cached: it writes to the registry.

    Args:
        require_promotion: end the step, and with it the run, as failed.
    """
    from pathlib import Path

    from car_model.evidence.verdict import Verdict
    from common.errors import UserError
    from registry.run_records import record_verdict
    from registry.store.open import open_store

    decision = Verdict.read(Path(verdict.path))
    print(decision.summary())
    for condition in decision.blockers:
        print(f"  {condition.name}: {condition.detail}")
    record_verdict(open_store(registry), run_id, Path(verdict.path).read_bytes())
    if require_promotion:
        raise UserError(f"{decision.summary()} This run requires a promotion (--require-promotion).")
