"""The parts that train: runs that are stopped, resumed and repeated, and what they leave behind."""

import json
import signal

from tools import Outcome, at_first_checkpoint, checkpoints, differences, failed, fresh

CONFIG = "configs/pretrain/default.toml"
# Of an interrupted run.
STEPS = 120
# With which a program ends that was stopped on request, in the middle.
STOPPED = 75


def words(*sets):
    return [word for pair in sets for word in ("--set", pair)]


def interrupted(context, precision):
    """A run that is stopped in the middle and resumed, compared with one resumed from its first checkpoint.

    Both end with the same tensors. Two runs from the start might not: each measures the algorithms of its
    convolutions, and a checkpoint names those that were chosen.
    """
    sets = [f"run.steps={STEPS}", f"run.precision={precision}", "evaluate.at_end=false", "monitor.knn_every_steps=0"]
    sets += ["log.every_steps=5", "checkpoint.every_steps=10", f"checkpoint.keep={STEPS}"]
    sets += ["optim.batch_size=4"] if context.device == "cpu" else []
    cut = fresh(f"cut-{precision}")
    metrics, asked = cut / "metrics.jsonl", []

    def stop_when_it_trains(program):
        if not asked and metrics.exists() and metrics.read_text().count("\n") >= 8:
            asked.append(True)
            program.send_signal(signal.SIGTERM)

    command = ["./pretrain", CONFIG, "--name", cut.name, *words(*sets), "--device", context.device]
    done = context.run(command, meanwhile=stop_when_it_trains)
    if done.code != STOPPED:
        outcome = failed(done, "it was not stopped in the middle: exit code 0")
        if isinstance(done.code, int) and done.code > 0:
            outcome.error += f"; expected {STOPPED}, of a run that was stopped"
        return outcome
    whole = at_first_checkpoint(cut, f"whole-{precision}")
    for folder in (whole, cut):
        done = context.run(["./pretrain", "--resume", folder.name, "--device", context.device])
        if done.code != 0:
            return failed(done)
    context.wholes[precision] = whole
    return same_tensors(whole, cut)


def same_tensors(a, b):
    """Two runs that end at the same step with the same bits."""
    ends = [[path.name for path in checkpoints(folder)[-1:]] for folder in (a, b)]
    if not ends[0] or ends[0] != ends[1]:
        return Outcome(False, error=f"the last checkpoints are {ends[0]} and {ends[1]}")
    different = differences(a, b)
    count = f"{len(checkpoints(a))} checkpoints"
    if not different:
        return Outcome(True, f"equal bits, {count}", "equal bits")
    return Outcome(False, f"{len(different)} tensors differ", "equal bits", f"{different[0]} differs", {"different": different})


def repeated(context, precision):
    """A run that continues by replaying a captured step ends as the eager one."""
    whole = context.wholes.get(precision)
    if whole is None:
        # Not of an earlier start, whose programs may have been others.
        return Outcome(None, error=f"needs a run of resume/{precision}, which left none")
    copy = at_first_checkpoint(whole, f"repeated-{precision}")
    done = context.run(["./pretrain", "--resume", copy.name, *words("run.cuda_graph=true"), "--device", context.device])
    return failed(done) if done.code != 0 else same_tensors(whole, copy)


def finished_on_gpu(context):
    """Views finished on the GPU: the first loss is that of views finished on the CPU; images_on_gpu tests their bits."""
    sets = ["run.steps=10", "evaluate.at_end=false", "monitor.knn_every_steps=0", "augment.fidelity=exact", "log.every_steps=1"]
    losses = []
    for place in ("cpu", "gpu"):
        folder = fresh(f"finish-{place}")
        more = [*words(*sets, f"augment.finish_on={place}"), "--device", context.device]
        done = context.run(["./pretrain", CONFIG, "--name", folder.name, *more])
        metrics = folder / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if done.code != 0 or not lines:
            return failed(done, "exit code 0, but no line in metrics.jsonl")
        losses.append(json.loads(lines[0])["loss"])
    apart = abs(losses[0] / losses[1] - 1)
    return Outcome(apart < 1e-4, f"losses {apart:.1e} apart", "< 1e-4", "" if apart < 1e-4 else f"{losses}")
