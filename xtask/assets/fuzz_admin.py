"""Fuzzes the admin API of a real `millrace run` by its own description (schemathesis), with tokens of an issuer that this
script is. `cargo xtask fuzz-admin` installs what it needs and starts it: fuzz_admin.py MILLRACE FOLDER EXAMPLES SEED."""

import http.server
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CONFIG = """
[kafka]
bootstrap_servers = "127.0.0.1:1"
[registry]
url = "http://127.0.0.1:1"
[clickhouse]
url = "http://127.0.0.1:1"
database = "millrace"
user = "millrace"
password = ""
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:{port}"
[admin.jwt]
issuer = "{issuer}"
jwks_url = "{issuer}/keys"
audience = "millrace"
[admin.permissions]
status_read = ["admin"]
queries_read = ["admin"]
topics_control = ["admin"]
process_control = ["admin"]
dead_letters_replay = ["admin"]
[[topics]]
name = "orders"
table = "orders"
dead_letter_topic = "orders.dead"
id = "event_id"
[topics.columns]
event_id = "event_id"
"""


def issuer(key):
    """Serves the public half of a key; where."""
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    document = json.dumps({"keys": [public | {"kid": "1", "use": "sig", "alg": "RS256"}]}).encode()

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def main():
    millrace, folder, examples, seed = sys.argv[1:]
    folder = pathlib.Path(folder)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    url = issuer(key)
    now = int(time.time())
    claims = {"iss": url, "aud": "millrace", "sub": "fuzzer", "roles": ["admin"], "iat": now, "exp": now + 7200}
    token = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "1", "typ": "at+jwt"})
    port = free_port()
    config = folder / "millrace.toml"
    config.write_text(CONFIG.format(port=port, issuer=url))
    log_file = folder / "millrace.log"
    with open(log_file, "wb") as log:
        process = subprocess.Popen([millrace, "run", "--config", str(config)], stderr=log)
    base = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while b"the issuer's keys are known" not in log_file.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"millrace did not start: {log_file.read_text()}")
        time.sleep(0.05)
    try:
        fuzzed = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{base}/v1/openapi.json",
                "--header", f"Authorization: Bearer {token}",
                "--checks", "all",
                # DELETE stops a replay; how it ended can be asked for afterwards.
                "--exclude-checks", "use_after_free",
                # It would end the process; it is tried below, once all else is done.
                "--exclude-operation-id", "drain",
                "--max-examples", examples,
                "--seed", seed,
                "--no-color",
                "--suppress-health-check", "all",
            ],
            env={"PATH": "/usr/bin:/bin", "SCHEMATHESIS_HOOKS": "", "HOME": str(folder)},
            cwd=folder,
        ).returncode
        request = urllib.request.Request(f"{base}/v1/drain", method="POST", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            drained = answer.status
        ended = process.wait(timeout=30)
    finally:
        process.kill()
    log = log_file.read_text()
    found = [
        (fuzzed != 0, f"schemathesis ended with status {fuzzed}"),
        ((drained, ended) != (202, 0), f"the drain was answered by {drained} and ended with status {ended}"),
        ("panicked" in log, "a thread panicked"),
        (token in log, "the token is in the log"),
    ]
    for what in (what for wrong, what in found if wrong):
        print(f"{what}; see {log_file}")
    commands = log.count("millrace::audit")
    print(f"{commands} commands and refusals are in the log of the process, which ended as it should" if ended == 0 else "")
    sys.exit(any(wrong for wrong, _ in found))


main()
