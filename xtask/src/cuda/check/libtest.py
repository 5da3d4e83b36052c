"""The parts that run programs of Rust's libtest."""

import re
from concurrent.futures import ThreadPoolExecutor

from tools import MOST_OUT, Outcome, failed, panicked, telling

RESULT = re.compile(r"^test (.+?) \.\.\. (ok|FAILED|ignored)\b.*$", re.MULTILINE)


def messages(out):
    """What each failed test said. libtest prints it under a heading of the test."""
    found = {}
    for part in out.split("\n---- ")[1:]:
        head, _, body = part.partition("\n")
        body = body.split("\n\nfailures:")[0]
        found[head.split(" stdout")[0]] = panicked(body.splitlines()) or telling(body) or "it said nothing"
    return found


def tests(context, program, names=(), threads=4):
    """Tests of a program whose names have one of these in them; all of them without names.

    What is listed is what has to pass, so a test that never ran is not taken for one that did.
    """
    path = f"tests/{program}"
    listing = context.run([path, "--list", "--format=terse", *names])
    listed = [line.removesuffix(": test") for line in listing.out.splitlines() if line.endswith(": test")]
    unknown = [name for name in names if not any(name in test for test in listed)]
    if listing.code != 0 or not listed or unknown:
        return failed(listing, f"it has no test {', '.join(unknown)}".rstrip())
    done = context.run([path, f"--test-threads={threads}", *names])
    results = dict(RESULT.findall(done.out))
    said = messages(done.out)
    silent = [name for name in listed if name not in results]
    if silent and done.code not in (0, "timeout", "stopped"):
        # Run separately, each of them shows whether it ended the process.
        for name in silent:
            one = context.run([path, "--test-threads=1", "--exact", name])
            if one.code in ("no time", "stopped"):
                break
            results[name] = "ok" if one.code == 0 and "\ntest result: ok. 1 passed;" in one.out else "FAILED"
            said[name] = messages(one.out).get(name) or one.why() or "no result"
    # Tests start in the order of their names, some at a time.
    running = [name for name in silent if name not in results][:threads]
    wrong = [name for name in listed if results.get(name) != "ok"]
    figure = f"{len(listed) - len(wrong)} of {len(listed)} tests"
    details = {"tests": results}
    if done.code == 0 and not wrong:
        return Outcome(True, figure, details=details)
    errors = [f"{name}: {said.get(name) or results[name]}" for name in wrong if name in results]
    if running:
        errors.append(f"{' or '.join(running)}: {done.why() or 'no result'}")
    errors = errors or [f"each passes by itself, but together: {done.why()}" if silent else done.why()]
    repeat = [path, "--test-threads=1", *(["--exact", wrong[0]] if wrong else names)]
    details |= {"command": done.command(), "out": done.out[-MOST_OUT:], "err": done.err[-8000:], "repeat": repeat}
    return Outcome(False, figure, error="\n".join(errors), details=details)


def together(context, modules):
    """Modules of test programs, several processes at a time: each mostly waits for its own copies."""
    jobs = [(program, module) for program, names in modules.items() for module in names]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda job: tests(context, job[0], [f"{job[1]}::"], threads=2), jobs)
        outcomes = dict(zip((module for _, module in jobs), results))
    wrong = {name: outcome for name, outcome in outcomes.items() if not outcome.passed}
    count = sum(len(outcome.details.get("tests", {})) for outcome in outcomes.values())
    details = {name: outcome.details for name, outcome in outcomes.items()}
    if not wrong:
        return Outcome(True, f"{count} tests of {len(jobs)} modules", details=details)
    error = "\n".join(f"{name}: {line}" for name, outcome in wrong.items() for line in outcome.error.splitlines())
    details["repeat"] = next(iter(wrong.values())).details.get("repeat")
    return Outcome(False, f"{len(jobs) - len(wrong)} of {len(jobs)} modules", error=error, details=details)
