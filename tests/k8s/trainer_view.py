"""What the trainer makes of its pod: which organ it trains, and which workers it takes for the others.

seen_by_trainer(manifests, tmp_path, index=2)   # {"organ": "cervix", "workers": [2, ["cytotrain-train-0.…", …]]}
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from manifests import K8S, Manifest, job_names, main_container, write_files

SHOW = """
import json, os, sys
from absl import flags
from trainer.addresses import find_workers
from trainer.train_flags import config_from_flags, define_flags
define_flags()
flags.FLAGS(sys.argv)
config = config_from_flags(flags.FLAGS, flags.FLAGS.organ[0])
workers = find_workers(config, os.environ, hostname=os.environ["HOSTNAME"])
print(json.dumps({"organ": config.organ, "workers": workers and [workers.index, workers.addresses]}))
"""


def seen_by_trainer(manifests: list[Manifest], folder: Path, index: int) -> dict[str, Any]:
    """Which organ the pod of this index trains, and with which other workers."""
    write_files(manifests, folder)
    words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in main_container(manifests)["args"]]
    args = [word.replace("/etc/cytotrain", str(folder)) for word in words[1:]]
    host = f"{job_names(manifests)['train']}-{index}"
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=K8S.parent,
        env={"PATH": "/usr/bin:/bin", "HOSTNAME": host, "JOB_COMPLETION_INDEX": str(index)},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
