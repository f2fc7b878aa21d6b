"""`make chaos`: measures each point and prints a table; `make chaos POINT=overload` those whose name has that in it."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping

from tests.chaos import clients, hostile, machine, overload
from tests.chaos.figures import Figure, lines_of

POINTS: Mapping[str, Callable[[], list[Figure]]] = {
    "a message of control tokens": hostile.control_tokens,
    "sixteen prompts of 4 MB": hostile.long_prompts,
    "bodies of many values": hostile.large_bodies,
    "stalled streams": clients.stalled_streams,
    "few descriptors": machine.few_descriptors,
    "a log that nobody reads": machine.unread_log,
    "bursts of calls": clients.bursts,
    "overload over HTTP": overload.over_http,
    "overload over gRPC": overload.over_grpc,
    "a busy machine": machine.busy_machine,
    "a greedy client": clients.greedy_client,
}


def main(wanted: str) -> int:
    rows, missed = [], False
    for name, measure in POINTS.items():
        if wanted not in name:
            continue
        started_s = time.monotonic()
        print(f"{name} ...", file=sys.stderr, end=" ", flush=True)
        try:
            figures = measure()
        except Exception as error:  # the other points are measured all the same
            traceback.print_exc()
            rows.append(f"| {name} | not measured: {type(error).__name__} | | | MISSED |")
            missed = True
            continue
        print(f"{time.monotonic() - started_s:.0f} s", file=sys.stderr, flush=True)
        rows += lines_of(name, figures)
        missed = missed or not all(figure.is_met for figure in figures)
    print("| point | figure | value | target | |\n|---|---|---:|---:|---|", *rows, sep="\n")
    return int(missed or not rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
