"""Times of answers about another tenant's things beside those about things that nobody has."""

import http.client
import json
import math
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

SCRIPT = """const PLUGIN = #{{ name: "{0}", version: "1.0.0", description: "Says its name", author: "Toolbay",
    tools: #{{ {0}: #{{ description: "Says its name", parameters: #{{ type: "object" }} }} }} }};
fn {0}(args) {{ "{0}" }}
"""

SIGMAS = 4.5  # beyond which chance is no explanation: one in 150,000
WARM_UP = 50  # pairs that are not counted


class Link:
    """One connection that stays."""

    def __init__(self, base):
        self.link = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc, timeout=30)

    def ask(self, key, method, path, body=None, kind="application/json"):
        """The status, the answer's text and the nanoseconds until its last byte."""
        headers = {"Authorization": f"Bearer {key}"}
        if body is not None:
            headers["Content-Type"] = kind
        for _ in range(5):
            if self.link.sock is None:
                self.link.connect()
            begun = time.perf_counter_ns()
            try:
                self.link.request(method, path, body, headers)
                answer = self.link.getresponse()
                text = answer.read()
                return answer.status, text, time.perf_counter_ns() - begun
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
                # A server that refuses before it has read the whole request ends the connection with its answer.
                self.link.close()
        raise AssertionError(f"{method} {path}: the server ends each connection without an answer")

    def must(self, key, method, path, body=None, kind="application/json"):
        if body is not None and kind == "application/json":
            body = json.dumps(body)
        status, text, _ = self.ask(key, method, path, body, kind)
        assert status < 300, (method, path, status, text)
        return json.loads(text or b"null")


def serve(binary, folder):
    process = subprocess.Popen(
        [binary, "serve", "--port", "0", "--data", folder],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"listening on (http://[0-9.:]+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1], re.findall(r"^tbk_\S+", said, re.M)[0]
    sys.exit(f"the server ended before it listened:\n{said}")


def furnished(link, admin):
    """The key of one tenant, and what another has beside what nobody has, in names of equal lengths."""
    keys = {}
    for tenant in ["acme", "rival"]:
        link.must(admin, "POST", "/api/v1/tenants", {"name": tenant})
        wanted = {"role": "tenant", "tenant": tenant, "label": tenant, "rate": 1_000_000}
        keys[tenant] = link.must(admin, "POST", "/api/v1/keys", wanted)
    for tenant, plugin in [("rival", "vaultkeep"), ("acme", "ownthings")]:
        key = keys[tenant]["secret"]
        link.must(key, "POST", f"/api/v1/plugins?file_name={plugin}.rhai", SCRIPT.format(plugin), "text/plain")
        link.must(key, "POST", f"/api/v1/plugins/{plugin}/install", {})
    link.must(admin, "PUT", "/api/v1/tenants/rival/secrets/VAULT_PIN", {"reference": "RIVALS_PIN"})
    names = {
        "tenant": ["rival", "nobod"],
        "plugin": ["vaultkeep", "nowhereat"],
        "tool": ["vaultkeep", "nowhereat"],
        "secret": ["VAULT_PIN", "OTHER_PIN"],
        "key": [keys["rival"]["id"], str(uuid.uuid4())],
    }
    return keys["acme"]["secret"], names


def operations(document, names):
    """Method, path with places for names, body and its kind of everything that takes a name."""
    for path, item in document["paths"].items():
        if not set(re.findall(r"{(\w+)}", path)) & set(names):
            continue
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {})
            body, kind = None, "application/json"
            if "text/plain" in content:
                body, kind = SCRIPT.format("a"), "text/plain"
            elif content:
                body = json.dumps(content["application/json"].get("example", {}))
            query = "?file_name=a.rhai" if operation["operationId"].startswith("upload") else ""
            yield method.upper(), path + query, body, kind


def chance_that_first_is_longer(first, second):
    """By ranks (Mann and Whitney), ties in half."""
    ordered = sorted([(time, 0) for time in first] + [(time, 1) for time in second])
    ranks, at = [0.0, 0.0], 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        for _, which in ordered[at:end]:
            ranks[which] += (at + 1 + end) / 2
        at = end
    return (ranks[0] - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))


def measured(link, key, names, operation, pairs):
    method, path, body, kind = operation
    paths = [path, path]
    for name, (theirs, nobodys) in names.items():
        paths = [paths[0].replace(f"{{{name}}}", theirs), paths[1].replace(f"{{{name}}}", nobodys)]
    # A run of the other's would have to be made by an agent; a number that nobody has is the same on both sides.
    paths = [re.sub(r"{\w+}", str(uuid.UUID(int=7)), path) for path in paths]
    times, statuses = ([], []), [set(), set()]
    for pair in range(-WARM_UP, pairs):
        for which in random.sample([0, 1], 2):
            status, _, took = link.ask(key, method, paths[which], body, kind)
            statuses[which].add(status)
            if pair >= 0:
                times[which].append(took)
    return times, statuses


def is_told(times, sigma):
    """By how much the chance differs from an even one, where that is no accident; else 0."""
    chance = chance_that_first_is_longer(*times) - 0.5
    return chance if abs(chance) >= SIGMAS * sigma else 0.0


def main(binary, pairs):
    sigma = math.sqrt((2 * pairs + 1) / (12 * pairs * pairs))
    print("| operation | status | theirs µs | nobody's µs | chance that theirs is longer |\n| --- | --- | --- | --- | --- |")
    told, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        process, base, admin = serve(binary, folder)
        try:
            link = Link(base)
            key, names = furnished(link, admin)
            document = link.must(admin, "GET", "/api/v1/openapi.json")
            # What is to be found, or the rest says nothing: a plugin of one's own takes longer than none.
            own = {"plugin": ["ownthings", "nowhereat"]}
            times, _ = measured(link, key, own, ("GET", "/api/v1/plugins/{plugin}", None, ""), pairs)
            assert is_told(times, sigma) > 0, "this does not even see what a key may see"
            for operation in operations(document, names):
                count += 1
                times, statuses = measured(link, key, names, operation, pairs)
                assert statuses[0] == statuses[1], (operation, statuses)
                medians = [sorted(part)[pairs // 2] / 1000 for part in times]
                chance = chance_that_first_is_longer(*times)
                said = f"{operation[0]} {operation[1]}"
                print(f"| `{said}` | {statuses[0]} | {medians[0]:.1f} | {medians[1]:.1f} | {chance:.3f} |", flush=True)
                if first := is_told(times, sigma):
                    again = is_told(measured(link, key, names, operation, pairs)[0], sigma)
                    print(f"| the same once more | | | | {0.5 + again:.3f} |", flush=True)
                    if first * again > 0:
                        told.append(said)
        finally:
            process.terminate()
            process.wait()
    print(f"\n{count} operations, {pairs} pairs each; chance alone gives {0.5:.3f} ± {SIGMAS * sigma:.3f}", end="; ")
    print(f"told apart: {told}" if told else "none is told apart")
    sys.exit(bool(told))


main(sys.argv[1], int(sys.argv[2]))
