"""Measure, beside other servers:

python -m bench run …        every scenario, into a JSON file (`bench/run.py`)
python -m bench report       docs/benchmarks.md and its plots from that file (`bench/report.py`)
python -m bench quick …      the hot paths beside those of another state of this project (`bench/quick.py`)
python -m bench.wire         events written and read a second, beside other parsers
"""

import sys

from bench import quick, report, run

COMMANDS = {"run": run.main, "report": report.main, "quick": quick.main}


def main(arguments: list[str]) -> int:
    """The exit status; 2 for a command that there isn't."""
    if arguments[:1] and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    print((__doc__ or "").strip(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
