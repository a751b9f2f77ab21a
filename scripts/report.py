"""Last service of the Compose file: prints the score report, and predictions of the endpoint with their targets.

Runs in the batch-score image, which contains numpy, as the service `report` of docker-compose.yml.
"""

import argparse
import json
import urllib.request
from pathlib import Path

import numpy as np

ROWS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="address of the serving container")
    parser.add_argument("--test", type=Path, required=True, help="folder with x_test and y_test")
    parser.add_argument("--batch", type=Path, required=True, help="folder with score-report.txt")
    options = parser.parse_args()

    x, y = (np.load(sorted(options.test.glob(f"{kind}_test*.npy"))[0])[:ROWS] for kind in ("x", "y"))
    request = urllib.request.Request(
        f"{options.endpoint}/invocations",
        json.dumps({"instances": x.tolist()}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        predictions = np.ravel(json.load(response)["predictions"])
    print((options.batch / "score-report.txt").read_text())
    for name, values in (("predictions", predictions), ("target values", np.ravel(y))):
        print(f"{name + ':':15}", " ".join(f"{value:8.1f}" for value in values))


if __name__ == "__main__":
    main()
