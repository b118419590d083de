"""Every benchmark, one after the other.

    python -m benchmarks [--json] [--fast] [--check]

With `--json` one document with the documents of all. Exit code 1 where a benchmark failed, with
`--check` also where a budget is broken.
"""

import argparse
import json
import subprocess
import sys

NAMES = (
    "thompson",
    "identity",
    "features",
    "segments",
    "segment_rules",
    "decide",
    "collect",
    "freshness",
    "rebuild",
    "memory",
    "history",
    "point_in_time",
)
SECONDS_MAX = 900.0


def main() -> None:
    """Run all, and exit with 1 where any did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    for flag in ("--json", "--fast", "--check"):
        parser.add_argument(flag, action="store_true", help="as for each of them")
    options = parser.parse_args()
    flags = [flag for flag in ("--json", "--fast", "--check") if getattr(options, flag[2:])]
    failed = []
    documents = {}
    for name in NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
        output = subprocess.PIPE if options.json else None
        done = subprocess.run(command, stdout=output, check=False, timeout=SECONDS_MAX)
        if done.returncode:
            failed.append(name)
        if options.json:
            documents[name] = json.loads(done.stdout) if done.stdout else None
    if options.json:
        print(json.dumps({"benchmarks": documents, "failed": failed}, indent=2))
    elif failed:
        print(f"failed: {', '.join(failed)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
