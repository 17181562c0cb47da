"""What docs/many_machines.md gives to copy: the Slurm script trains, and the JobSet is one."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import commands
import jsonschema
import pytest
import yaml

DOCS = (commands.ROOT / "docs" / "many_machines.md").read_text()
SCHEMA = pathlib.Path(__file__).parent / "golden" / "jobset_schema.json"

# What Slurm's srun does for one node and two tasks.
SRUN = """#!/bin/bash
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=1
for number in 0 1; do
  SLURM_PROCID=$number SLURM_LOCALID=$number "$@" &
  tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}"' TERM
for task in "${tasks[@]}"; do
  wait "$task" || code=$?
done
exit ${code:-0}
"""


def block(language, first):
    """Returns the block of a language that begins with a text."""
    (found,) = re.findall(rf"```{language}\n({re.escape(first)}.*?)```", DOCS, re.DOTALL)
    return found


def free_job_id():
    """Returns a job's number whose port, which JAX takes from it, is free."""
    for number in range(1000, 1100):
        with socket.socket() as port:
            if port.connect_ex(("127.0.0.1", number % 2**12 + 65535 - 2**12 + 1)):
                return number
    raise RuntimeError


@pytest.mark.full
def test_the_slurm_script_trains_in_two_tasks(tmp_path):
    (tmp_path / "job.sh").write_text(block("sh", "#!/bin/bash\n#SBATCH"))
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    path = (str(tmp_path), os.path.dirname(sys.executable), os.environ["PATH"])
    slurm = {"PATH": os.pathsep.join(path), "SLURM_JOB_ID": str(free_job_id())}
    slurm |= {"CONFIG": "configs/cnn.py:model_2", "FER": "", "WORKDIR": str(tmp_path / "run")}
    flags = ["--config.data.path=", "--config.train.epochs=1", "--join_seconds=120", *commands.SMALL[1:]]
    ran = subprocess.run(
        ["bash", tmp_path / "job.sh", *flags], cwd=commands.ROOT, env=commands.environment() | slurm,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("epoch 1/1") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


def test_the_jobset_is_one_and_its_pods_may_ask_for_each_other():
    account, role, binding, jobset = yaml.safe_load_all(block("yaml", "apiVersion"))
    jsonschema.validate(jobset, json.loads(SCHEMA.read_text()))
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"  # as JAX counts processes
    assert job["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    rights = {name: rule["verbs"] for rule in role["rules"] for name in rule["resources"]}
    assert "list" in rights["pods"] and "list" in rights["services"] and "get" in rights["jobs"]


def test_a_jobset_with_a_misspelt_field_is_none():
    *_, jobset = yaml.safe_load_all(block("yaml", "apiVersion").replace("completionMode", "completionsMode"))
    with pytest.raises(jsonschema.ValidationError, match="completionsMode"):
        jsonschema.validate(jobset, json.loads(SCHEMA.read_text()))
