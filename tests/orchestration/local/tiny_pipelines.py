"""Pipelines of one or two steps, to see how a local run treats what steps do."""

from kfp import dsl

from orchestration.step import step


@step
def work(loops: int, made: dsl.Output[dsl.Artifact]) -> bool:
    import time
    from pathlib import Path

    from tqdm import tqdm

    for _ in tqdm(range(loops), desc="counting", mininterval=0):
        time.sleep(0.001)
    import registry

    print("done [all] of it with", registry.__file__)
    Path(made.path).write_text(str(loops))
    return loops > 1


@step
def end(how: str) -> None:
    import os
    import signal

    print("about to end")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "unexpected":
        raise KeyError("the first")
    if how == "raised":
        from common.errors import UserError

        raise UserError("orders.csv: column 'stars'\nis wrong; correct it.")


@dsl.pipeline(name="tiny")
def tiny(loops: int = 3, how: str = "well") -> dsl.Artifact:
    counted = work(loops=loops).set_caching_options(True)
    with dsl.If(counted.outputs["Output"] == True):  # noqa: E712 - KFP builds the condition
        end(how=how).set_caching_options(False).set_retry(3, "60s").set_memory_limit("1Gi")
    return counted.outputs["made"]


@dsl.pipeline(name="branching")
def branching(loops: int = 3) -> None:
    counted = work(loops=loops).outputs["Output"]
    with dsl.If(counted == True):  # noqa: E712 - KFP builds the condition
        end(how="well").after(end(how="well"))
    with dsl.If(counted == False):  # noqa: E712
        end(how="well")
