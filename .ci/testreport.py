"""Reads the JSON events of `go test -json` and prints what a person wants:
a line for each package, the output of what failed, what was skipped, the tests that
took longest, the sum.
When the process of a package ended before its tests did (a panic, os.Exit, a kill),
the tests that had not ended are named and what the process said last is shown.
Exits 1 when something failed or was skipped, or when no test ran.

    testreport.py [FILE]

FILE names the tests that are expected to be skipped, one pattern a line (* is
anything): then each of them has to be, once, and no other."""
import collections
import fnmatch
import json
import re
import sys

# How the Go runtime and the go tool begin to tell that a process ended.
DEATH = re.compile(r"(panic|fatal error|signal|unexpected fault address|SIG[A-Z]+|\*\*\* Test)\b")

# How a line begins that a test says of itself.
SAID = re.compile(r"\s+\w+\.go:\d+: ")

expected = []
if len(sys.argv) > 1:
    with open(sys.argv[1]) as f:
        expected = [l.strip() for l in f if l.strip() and not l.startswith("#")]

output = collections.defaultdict(list)
counts = collections.Counter()
failed, skipped = [], []
took = []  # of tests that are no part of another one
running = collections.defaultdict(set)
# test2json gives the last words of a process to whichever test printed last, even to
# one that has passed, so they are looked for in the order of the package's lines.
recent = collections.defaultdict(lambda: collections.deque(maxlen=20_000))
died = []
for line in sys.stdin:
    try:
        event = json.loads(line)
    except ValueError:
        print(line, end="")  # what the tool itself says, such as a build error
        continue
    key = (event.get("Package", ""), event.get("Test", ""))
    action = event["Action"]
    if action in ("output", "build-output"):
        if action == "build-output":
            print(event["Output"], end="")
            continue
        output[key].append(event["Output"])
        recent[key[0]].append(event["Output"])
    elif action == "run":
        running[key[0]].add(key[1])
    elif action in ("pass", "fail", "skip"):
        package, test = key
        if test:
            running[package].discard(test)
            counts[action] += 1
            if "/" not in test:
                took.append((event.get("Elapsed", 0), package, test))
            if action == "fail":
                failed.append(key)
            elif action == "skip":
                skipped.append(key)
        elif action == "fail" or action == "pass" and event.get("Elapsed", 0) >= 5:
            print(f"{action:5} {package} {event.get('Elapsed', 0):.0f} s")
            if action == "fail":
                failed.append(key)
                if running[package]:
                    died.append(package)
        if not test and package not in died:
            recent.pop(package, None)
        if action == "pass":
            output.pop(key, None)
for key in failed:
    print(f"\n--- {' '.join(k for k in key if k)}")
    said, tail = output[key][:-200], output[key][-200:]
    # Logs of nodes are long: what the test itself says is not to be lost before them.
    print("".join(line for line in said if SAID.match(line)), end="")
    print("".join(tail), end="")
# Said once more as the last lines, since of a long output the end is what is kept.
causes = []
for package, test in failed:
    if test:
        causes.append(f"failed: {package} {test}")
        causes += [line.rstrip()[:300] for line in output[package, test] if SAID.match(line)][-4:]
for package in died:
    print(f"\n--- {package} ended before its tests did")
    lines = list(recent[package])
    start = max(next((i for i, line in enumerate(lines) if DEATH.match(line)), len(lines) - 200), 0)
    print("".join(lines[max(start - 20, 0) : start + 300]), end="")
    causes.append(f"{package} ended before these tests did: {' '.join(sorted(running[package]))}")
    causes += [line.rstrip("\n") for line in lines[start:] if DEATH.match(line) or ".go:" in line][:12]
surprises = []
for package, test in skipped:
    pattern = next((e for e in expected if fnmatch.fnmatchcase(test, e)), None)
    if pattern is None:
        surprises.append(f"skipped: {package} {test}")
    else:
        expected.remove(pattern)
surprises += [f"expected to be skipped, and was not: {e}" for e in expected]
for seconds, package, test in sorted(took, reverse=True)[:20]:
    if seconds >= 10:
        print(f"took {seconds:.0f} s: {package} {test}")
print("".join(line + "\n" for line in surprises + causes), end="")
print(f"{counts['pass']} passed, {len(failed)} failed, {counts['skip']} skipped")
sys.exit(1 if failed or surprises or not counts["pass"] else 0)
