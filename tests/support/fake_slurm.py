"""sbatch, srun, sacct and scancel as scripts: jobs run in the background of this machine, the options are kept."""

import os
import sys
from pathlib import Path

SBATCH = """#!{python}
import os, subprocess, sys
folder = {folder!r}
number = len(os.listdir(folder)) + 1
script = sys.argv[-1]
text = open(script).read()
if "--partition=nowhere" in text:
    sys.exit("sbatch: error: invalid partition specified: nowhere")
open(os.path.join(folder, f"{{number}}.sh"), "w").write(text)
environment = dict(os.environ, SLURM_JOB_ID=str(number), SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0",
                   SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_JOB_NODELIST="localhost", SLURMD_NODENAME="localhost")
subprocess.Popen(["bash", script], env=environment, start_new_session=True,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
print("Submitted batch job", number)
"""
SRUN = """#!{python}
import os, sys
where = next(place for place, word in enumerate(sys.argv) if "python" in word and place > 0)
for option in ("--output", "--error"):
    path = sys.argv[sys.argv.index(option) + 1].replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if option == "--output" else 2)
done = os.spawnv(os.P_WAIT, sys.argv[where], sys.argv[where:])
open(os.path.join({folder!r}, os.environ["SLURM_JOB_ID"] + ".end"), "w").write("COMPLETED" if done == 0 else "FAILED")
"""
SACCT = """#!{python}
import os, sys
print("JobID|State|NodeList")
for place, word in enumerate(sys.argv):
    if word == "-j":
        end = os.path.join({folder!r}, sys.argv[place + 1] + ".end")
        print(f"{{sys.argv[place + 1]}}|{{open(end).read() if os.path.exists(end) else 'RUNNING'}}|localhost")
"""


def install(folder: Path, monkeypatch) -> Path:
    """Write the scripts, put them first on the path, and return the folder that keeps the submission files."""
    scripts, kept = folder / "bin", folder / "kept"
    scripts.mkdir(parents=True)
    kept.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", "#!{python}\n")):
        path = scripts / name
        path.write_text(text.format(python=sys.executable, folder=str(kept)))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    return kept
