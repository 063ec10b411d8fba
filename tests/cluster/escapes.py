"""What code in a sandbox may try to get out: each attempt prints `out`, or why it is kept.

They are pieces of Python for the tool that runs it (lprl_fixtures.python_server), so they run as what a model writes does. `{...}` are
addresses and folders of the cluster at hand. Each is tried as well where nothing keeps it (its control), and must print `out` there:
`loose` is a privileged pod with a token and the node's files, without a policy; `mate` is a pod of the job, as the sandbox's user.
"""

from dataclasses import dataclass

LOOSE, MATE = "loose", "mate"
CONNECT_S = 2
COMMON = """
import ctypes, glob, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)

def attempt(action):
    try:
        found = action()
    except Exception as error:
        found = f"kept: {type(error).__name__} {error}"
    print(found if isinstance(found, str) else "out" if found else "kept")

def reaches(host, port):
    socket.create_connection((host, port), @S@).close()
    return True

def answers(host, port):
    try:
        return reaches(host, port)
    except OSError:
        return False

def asks_dns(host):
    name = b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b"."))
    asked = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + name + bytes([0, 0, 1, 0, 1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talk:
        talk.settimeout(@S@)
        talk.sendto(asked, (host, 53))
        return talk.recv(512)[:2] == asked[:2]

def calls(name, *arguments):
    result = getattr(libc, name)(*arguments)
    return True if result >= 0 else f"kept: {os.strerror(ctypes.get_errno())}"

def in_a_child(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return "out" if done.stdout.strip() == "out" else f"kept: {done.returncode} {done.stderr[-200:]}"

def status(field):
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith(field + ":"))
""".replace("@S@", str(CONNECT_S))


@dataclass(frozen=True)
class Attempt:
    """One way out."""

    action: str
    """An expression: `out` when it is true."""
    control: str = LOOSE
    """The pod from which it succeeds."""

    def code(self, places: dict[str, str]) -> str:
        """Return what the tool is asked to run."""
        action = self.action
        for name, value in places.items():
            action = action.replace(f"{{{name}}}", value)
        return f"attempt(lambda: {action})"


ATTEMPTS = {
    # the network
    "the API server by its Service": Attempt("reaches('{api_service}', 443)"),
    "the API server by its address": Attempt("reaches('{node}', {api_port})"),
    "the node's kubelet": Attempt("reaches('{node}', {kubelet_port})"),
    "DNS by its Service": Attempt("asks_dns('{dns_service}')"),
    "DNS by TCP": Attempt("reaches('{dns_service}', 53)"),
    "DNS by its pod": Attempt("asks_dns('{dns_pod}')"),
    "the job's Ray": Attempt("reaches('{head}', 6379)", MATE),
    "the job's metrics": Attempt("reaches('{head}', 8080)"),
    "an engine's node": Attempt("reaches('{worker}', 52365)", MATE),
    "another episode's sandbox": Attempt("reaches('{other}', 8080)", MATE),
    "the operator's metrics": Attempt("any(answers(host, 9090) for host in '{operators}'.split())"),
    "the address of clouds' metadata": Attempt("reaches('169.254.169.254', 80)"),
    "the internet": Attempt("reaches('{internet}', 80)"),
    "a packet of its own making": Attempt("socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300).close() or True"),
    # who it is
    "a token of its service account": Attempt("bool(glob.glob('/var/run/secrets/kubernetes.io/*/token'))"),
    "another pod's token": Attempt("bool(glob.glob('{files}{kubelet}/pods/*/volumes/kubernetes.io~projected/*/token'))"),
    "root": Attempt("os.setuid(0) or os.geteuid() == 0"),
    "root's group": Attempt("os.getgid() == 0 or 0 in os.getgroups()"),
    "a capability": Attempt("int(status('CapEff'), 16) != 0 or int(status('CapBnd'), 16) != 0"),
    "privileges by a program": Attempt("status('NoNewPrivs') == '0'"),
    "system calls without a filter": Attempt("status('Seccomp') == '0'"),
    # the node and the image
    "the node's files": Attempt("bool(os.listdir('{files}{kubelet}/pods'))"),
    "the node's processes": Attempt("any(b'kubelet' in open(f, 'rb').read() for f in glob.glob('/proc/[0-9]*/cmdline'))"),
    "the root file system": Attempt("open('/escaped', 'w').close() or True"),
    "the code of its image": Attempt("open('/usr/local/lib/python3.11/dist-packages/lprl_fixtures/escaped.py', 'w').close() or True"),
    "mount": Attempt("calls('mount', b'none', b'/mnt', b'tmpfs', 0, None) and calls('umount', b'/mnt')"),
    "namespaces of its own": Attempt('in_a_child(\'import ctypes; print("out" if ctypes.CDLL(None).unshare(0x10020000) == 0 else "")\')'),
    "a device": Attempt("os.mknod('/tmp/device', 0o20600, os.makedev(1, 3)) or os.unlink('/tmp/device') or True"),
    "the host's name": Attempt("socket.sethostname('escaped') or True"),
    "the kernel's log": Attempt("calls('klogctl', 3, ctypes.create_string_buffer(64), 64)"),
    # more than it is given
    "more memory than its limit": Attempt('in_a_child(\'x = b"x" * (700 << 20); print("out")\')'),
}
