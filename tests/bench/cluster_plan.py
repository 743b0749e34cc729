"""How well the plan of stretches scales: a simulation of 1 to 1,000 workers on a film, from measured times.

    python tests/bench/cluster_plan.py --seconds 72                      # measured: restoring and encoding 48 frames
    python tests/bench/cluster_plan.py --times times.json [--scan-fps N] # a list of such times, taken round and round

It follows engine/parallel.py: one process scans the input, a few stretches ahead; a coordinator hands them to whoever
is free, takes what is finished, and joins all at the end; a worker starts once, then seeks, restores and encodes. Give
the times as measured on the machines in question; --help says what the others default to. No worker is lost here.
"""

import argparse
import heapq
import json
import random
from dataclasses import dataclass
from pathlib import Path

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
AHEAD = 16  # stretches that the scan is ahead
CLIPS_APART, CLIPS_TOGETHER = 17, 16  # clips of a stretch that is made alone, and of one amid its neighbours


@dataclass(frozen=True)
class Costs:
    """Seconds of a stretch: to scan it, for a worker to seek it, to take and to join it; and to start a worker."""

    scan: float
    seek: float
    start: float
    deliver: float
    join: float


@dataclass(frozen=True)
class Outcome:
    """Seconds until the last stretch was there, and until the file was; the coordinator's busy seconds until then."""

    made: float
    total: float
    busy: float


def simulate(times: list[float], workers: int, costs: Costs) -> Outcome:
    """One run: `times` are the seconds of the stretches, in the order in which they are handed out."""
    free = [(costs.start, False) for _ in range(min(workers, len(times)))]  # (when, whether with a finished stretch)
    clock = busy = 0.0
    taken: list[float] = []  # when each stretch was handed out
    scanned = 0.0
    while free:
        when, finished = heapq.heappop(free)
        clock = max(clock, when)
        if finished:
            clock, busy = clock + costs.deliver, busy + costs.deliver
        number = len(taken)
        if number < len(times):
            scanned = max(scanned, taken[number - AHEAD] if number >= AHEAD else 0.0) + costs.scan
            clock = max(clock, scanned)
            taken.append(clock)
            heapq.heappush(free, (clock + costs.seek + times[number], True))
    join = costs.join * len(times)
    return Outcome(clock, clock + join, busy + join)


def alone(times: list[float], costs: Costs) -> float:
    """Seconds of one process without a plan: it decodes while it restores, and shares every clip."""
    return costs.start + sum(times) * CLIPS_TOGETHER / CLIPS_APART + costs.join * len(times)


def stretch_times(options: argparse.Namespace, count: int) -> list[float]:
    """The measured times, as many as the film has stretches."""
    if options.times is not None:
        measured = [float(seconds) for seconds in json.loads(options.times.read_text())]
    else:
        rng = random.Random(0)
        measured = [max(0.05, rng.gauss(1, options.spread)) * options.seconds for _ in range(count)]
    return [measured[i % len(measured)] for i in range(count)]


def main() -> None:
    """Prints one line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=Path, help="JSON: seconds of measured stretches")
    parser.add_argument("--seconds", type=float, default=72.0, help="mean of a stretch, where --times is not given")
    parser.add_argument("--spread", type=float, default=0.1, help="their standard deviation, as a share of the mean")
    parser.add_argument("--frames", type=int, default=172_800, help="two hours at 24 a second")
    parser.add_argument("--stretch", type=int, default=48, help="frames of a stretch")
    parser.add_argument("--scan-fps", type=float, default=1000.0, help="frames scanned in a second")
    parser.add_argument("--seek", type=float, default=0.3, help="opening the input and decoding up to the stretch")
    parser.add_argument("--start", type=float, default=20.0, help="starting a worker and loading the networks")
    parser.add_argument("--deliver", type=float, default=0.02, help="a stretch to the coordinator's disk")
    parser.add_argument("--join", type=float, default=0.01, help="a stretch into the file, at the end")
    options = parser.parse_args()
    count = -(-options.frames // options.stretch)
    times = stretch_times(options, count)
    costs = Costs(options.stretch / options.scan_fps, options.seek, options.start, options.deliver, options.join)
    single = alone(times, costs)
    print(f"{count} stretches of {options.stretch} frames, {sum(times) / count:.2f} s each; {costs}")
    print(f"one process without a plan: {single:,.0f} s ({single / 3600:.1f} h)\n")
    print("| workers | minutes | speed-up | efficiency | coordinator busy | starting, waiting, joining |")
    print("| --- | --- | --- | --- | --- | --- |")
    best = half = 1
    for workers in WORKERS:
        outcome = simulate(times, workers, costs)
        gain = single / outcome.total
        best = max(best, gain)
        half = workers if gain / workers >= 0.5 else half
        idle = (outcome.total - sum(times) / workers) / outcome.total
        print(
            f"| {workers} | {outcome.total / 60:,.1f} | {gain:.1f} | {100 * gain / workers:.0f} % "
            f"| {100 * outcome.busy / outcome.total:.0f} % | {100 * idle:.0f} % |"
        )
    rate = 1 / max(costs.scan, costs.deliver)
    print(f"\nefficiency stays above one half up to {half} workers; the greatest speed-up is {best:.0f}")
    enough = rate * (costs.seek + sum(times) / count)
    print(f"{rate:.1f} stretches a second can be handed out, which keeps {enough:,.0f} workers busy")


if __name__ == "__main__":
    main()
