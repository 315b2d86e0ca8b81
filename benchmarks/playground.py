"""How fast the website's playground trains, against plain JavaScript, jax-js and PyTorch.

    python -m benchmarks.playground          needs Node (20.10 or newer) and `make site`
    python -m benchmarks.playground --jax    jax-js, too: npm installs it in runs/

All ways train NetMini with batches of 32, 32 bits and one thread, in turn; the median of the turns
counts. Time is that of the processor, so other work on the machine matters little.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import optim

from model import NetMini

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32
WARM_UP = 10  # steps before the clock starts
NAMES = {
    "wasm": "the playground: WebAssembly with SIMD (`kernels.ts`)",
    "plain": "the same in plain JavaScript (`plain_kernels.js`)",
    "jax": "jax-js 0.1.25, WebAssembly",
    "pytorch": "PyTorch",
}


def measure_pytorch(steps):
    """Images for each second that the processor worked."""
    torch.manual_seed(0)
    network = NetMini().train()
    optimizer = optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images = torch.randn(BATCH, 1, 28, 28)
    labels = torch.arange(BATCH) % 10
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            began = time.process_time()
        optimizer.zero_grad()
        F.nll_loss(network(images), labels).backward()
        optimizer.step()
    return BATCH * steps / (time.process_time() - began)


def measure_node(way, steps):
    """The same in Node, and the losses of the first steps."""
    script = str(ROOT / "benchmarks" / "playground.js")
    command = ["node", "--experimental-default-type=module", script, way, "NetMini", str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout)
    return result["speed"], result["losses"]


def install_jax():
    folder = ROOT / "runs" / "jax"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--silent", "--prefix", str(folder), "@jax-js/jax@0.1.25"]
    subprocess.run(command, check=True)


def take_turns(ways, rounds, steps):
    """The speeds of each way, turn by turn."""
    speeds = {way: [] for way in ways}
    for _ in range(rounds):
        losses = {}
        for way in ways:
            if way == "pytorch":
                speed = measure_pytorch(steps)
            else:
                speed, losses[way] = measure_node(way, steps)
            speeds[way].append(speed)
        check_losses(losses)
    return speeds


def check_losses(losses):
    """Only equal work is compared: equal weights lead to equal losses."""
    for way, found in losses.items():
        distance = max(abs(a - b) for a, b in zip(found, losses["wasm"]))
        if distance > 0.01:  # jax-js shares a gradient among equal numbers in max-pooling
            raise SystemExit(f"{way} computes other losses than the playground: {distance} away")


def table(speeds):
    medians = {way: statistics.median(found) for way, found in speeds.items()}
    lines = ["| way | images a second | playground : this |", "|---|---|---|"]
    for way, speed in medians.items():
        lines.append(f"| {NAMES[way]} | {speed:,.0f} | {medians['wasm'] / speed:.2f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jax", action="store_true", help="measure jax-js, too")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns (default: 5)")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="steps (default: 60)")
    args = parser.parse_args()
    if not (ROOT / "site" / "_static" / "kernels.wasm").is_file():
        parser.error("there is no website yet: run `make site` first")
    torch.set_num_threads(1)
    ways = ["wasm", "plain", "pytorch"]
    if args.jax:
        install_jax()
        ways.append("jax")
    print("\n".join(table(take_turns(ways, args.rounds, args.steps))))


if __name__ == "__main__":
    main()
