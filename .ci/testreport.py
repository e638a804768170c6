"""Reads the JSON events of `go test -json` and prints what a person wants:
a line for each package, the output of what failed, what was skipped, the sum.
Exits 1 when something failed or was skipped, or when no test ran.

    testreport.py [FILE]

FILE names the tests that are expected to be skipped, one pattern a line (* is
anything): then each of them has to be, once, and no other."""
import collections
import fnmatch
import json
import sys

expected = []
if len(sys.argv) > 1:
    with open(sys.argv[1]) as f:
        expected = [l.strip() for l in f if l.strip() and not l.startswith("#")]

output = collections.defaultdict(list)
counts = collections.Counter()
failed, skipped = [], []
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
        output[key].append(event["Output"])
    elif action in ("pass", "fail", "skip"):
        package, test = key
        if test:
            counts[action] += 1
            if action == "fail":
                failed.append(key)
            elif action == "skip":
                skipped.append(key)
        elif action == "fail" or action == "pass" and event.get("Elapsed", 0) >= 5:
            print(f"{action:5} {package} {event.get('Elapsed', 0):.0f} s")
            if action == "fail":
                failed.append(key)
        if action == "pass":
            output.pop(key, None)
for key in failed:
    print(f"\n--- {' '.join(k for k in key if k)}")
    said, tail = output[key][:-200], output[key][-200:]
    # Logs of nodes are long: what the test itself says is not to be lost before them.
    print("".join(line for line in said if "_test.go:" in line), end="")
    print("".join(tail), end="")
surprises = []
for package, test in skipped:
    pattern = next((e for e in expected if fnmatch.fnmatchcase(test, e)), None)
    if pattern is None:
        surprises.append(f"skipped: {package} {test}")
    else:
        expected.remove(pattern)
surprises += [f"expected to be skipped, and was not: {e}" for e in expected]
print("\n".join(surprises), end="\n" if surprises else "")
print(f"{counts['pass']} passed, {len(failed)} failed, {counts['skip']} skipped")
sys.exit(1 if failed or surprises or not counts["pass"] else 0)
