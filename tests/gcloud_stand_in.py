"""Stands in for `gcloud compute tpus`: keeps slices as files, and runs what ssh is to run, here, in a home per host.

$STAND_IN is its folder: calls.jsonl (what it was told), says/<verb> (lines, each an answer to the next such call: `ok`,
`quota`, `capacity`, `signin`, `fail`, `hang`), NAME.state, and hosts/NODE.WORKER, the homes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["STAND_IN"])
WORKERS = 2
COMPLAINTS = {
    "quota": "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptiblePerProjectPerZone' has been exceeded.",
    "capacity": "ERROR: (gcloud) RESOURCE_EXHAUSTED: There is no more capacity in the zone.",
    "signin": """ERROR: (gcloud) You do not currently have an active account selected.
Please run:

  $ gcloud auth login

to obtain new credentials.

If you have already logged in with a different account, run:

  $ gcloud config set account ACCOUNT

to select an already authenticated account to use.""",
    "fail": "ERROR: (gcloud) [/usr/bin/ssh] exited with return code [255].",
    "hang": "",
}


def main(arguments: list[str]) -> int:
    verb, name = arguments[3], arguments[4]
    with (FOLDER / "calls.jsonl").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    if (complaint := answer(verb)) == "hang":
        (FOLDER / "hangs").write_text(str(os.getpid()))
        time.sleep(60)
    if complaint:
        print(COMPLAINTS[complaint], file=sys.stderr)
        return 255 if complaint == "fail" else 1
    if verb == "create":
        states(name).write_text("\n".join(["PROVISIONING", os.environ.get("STAND_IN_BECOMES", "ACTIVE")]))
        return 0
    if verb == "describe":
        if not states(name).exists():
            print("ERROR: (gcloud) NOT_FOUND: Resource was not found", file=sys.stderr)
            return 1
        print(now(name) if "state.state" in arguments[-1] else "the zone is full, said the cloud")
        return 0
    if verb == "delete":
        states(name).unlink(missing_ok=True)
        for home in (FOLDER / "hosts").glob(f"{name}*"):
            home.rename(home.with_name(f"gone-{time.time_ns()}"))
        return 0
    if verb == "scp":
        *files, target = [argument for argument in arguments[4:] if not argument.startswith("--") and argument != "z"]
        for home in homes(target.removesuffix(":"), "all"):
            for file in files:
                (home / Path(file).name).write_bytes(Path(file).read_bytes())
        return 0
    if verb == "ssh":
        options = dict(argument[2:].split("=", 1) for argument in arguments if "=" in argument and argument[:2] == "--")
        return max(ssh(name, home, options["command"]) for home in homes(name, options["worker"]))
    raise SystemExit(f"no such verb: {verb}")


def answer(verb: str) -> str:
    """The next answer to this verb, taken off its list; empty where it is simply to work."""
    file = FOLDER / "says" / verb
    lines = file.read_text().split() if file.exists() else []
    if lines:
        file.write_text("\n".join(lines[1:]))
    return lines[0] if lines and lines[0] != "ok" else ""


def states(name: str) -> Path:
    return FOLDER / f"{name}.state"


def now(name: str) -> str:
    """The slice's state; each look takes it one on, as far as its list goes."""
    lines = states(name).read_text().split()
    if len(lines) > 1:
        states(name).write_text("\n".join(lines[1:]))
    return lines[0]


def homes(node: str, worker: str) -> list[Path]:
    workers = range(WORKERS) if worker == "all" else [int(worker)]
    found = [FOLDER / "hosts" / f"{node}.{worker}" for worker in workers]
    for home in found:
        home.mkdir(parents=True, exist_ok=True)
    return found


def ssh(node: str, home: Path, command: str) -> int:
    """Runs it until it ends, or the slice is gone, as a connection does."""
    name = next(state.stem for state in FOLDER.glob("*.state") if node.startswith(state.stem))
    env = {"HOME": str(home), "PATH": f"{FOLDER / 'bin'}:/usr/bin:/bin", "STAND_IN": str(FOLDER), "NODE": home.name}
    process = subprocess.Popen(["bash", "-c", command], cwd=home, env=env, start_new_session=True)
    while process.poll() is None:
        if not states(name).exists() or states(name).read_text().strip() == "SUSPENDED":
            os.killpg(process.pid, signal.SIGKILL)
            return 255
        time.sleep(0.02)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
