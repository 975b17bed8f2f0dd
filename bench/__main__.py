"""Measure, beside other servers:

python -m bench quick …      the hot paths beside those of another state of this project (`bench/quick.py`)
python -m bench NAME …       one of the others
"""

import subprocess
import sys

from bench import quick

OTHERS = {
    "wire": "events written and read a second, beside other parsers",
    "bridge": "progress from threads, and how late the event loop gets",
    "store": "two processes and a Redis, beside one process alone",
}
"""Each runs in a process of its own: none inherits another's core, caches or garbage."""


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["quick"]:
        return quick.main(arguments[1:])
    if unknown := set(arguments) - set(OTHERS):
        print(
            f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(('quick', *OTHERS))}", file=sys.stderr
        )
        return 2
    return max(subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode for name in arguments or OTHERS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
