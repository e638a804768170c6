"""Reads the JSON events of `go test -json` and prints what a person wants:
a line for each package, the output of what failed, what was skipped, the sum.
Exits 1 when something failed or was skipped, or when no test ran."""
import collections
import json
import sys

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
    print("".join(output[key][-200:]), end="")
for package, test in skipped:
    print(f"skipped: {package} {test}")
print(f"{counts['pass']} passed, {len(failed)} failed, {counts['skip']} skipped")
sys.exit(1 if failed or skipped or not counts["pass"] else 0)
