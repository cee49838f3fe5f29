"""Three servers on one PostgreSQL, the third behind a proxy that can delay and cut its database."""

import asyncio
import json
import os
import re
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

PLUGIN = """const PLUGIN = #{ name: "teller", version: "1.0.0", description: "Tells its configuration", author: "Toolbay",
    permissions: ["kv:*"],
    config_schema: #{ type: "object", properties: #{ n: #{ type: "integer", "default": 0 } } },
    tools: #{ tell: #{ description: "Tells its configuration", parameters: #{ type: "object" } },
              keep: #{ description: "Keeps a value", parameters: #{ type: "object" } } } };
fn tell(args) { config("n") }
fn keep(args) { kv_set("n", 1); "kept" }
"""

SOON = 1.0  # seconds within which a change is served everywhere
RECOVERY = 10.0  # seconds within which a server that was cut off has caught up


class Proxy:
    """Passes bytes between a server and the database; late by `delay` seconds, or not at all."""

    def __init__(self, target):
        self.target, self.delay, self.is_cut, self.open = target, 0.0, False, set()

    async def start(self):
        server = await asyncio.start_server(self.take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def take(self, reader, writer):
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self.open.add(pair)
        try:
            await asyncio.gather(self.pass_on(reader, far_writer), self.pass_on(far_reader, writer))
        except asyncio.CancelledError:
            pass  # the end of the whole
        finally:
            self.open.discard(pair)

    async def pass_on(self, reader, writer):
        try:
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def cut(self):
        self.is_cut = True
        for pair in list(self.open):
            for writer in pair:
                writer.transport.abort()


def request(base, method, path, key, body=None):
    """The status, the headers and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(base + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.headers, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, error.headers, json.loads(text) if text.startswith(b"{") else text


async def ask(*arguments):
    return await asyncio.to_thread(request, *arguments)


async def told(base, key, tool="tell"):
    status, _, answer = await ask(base, "POST", f"/api/v1/tools/teller.{tool}/call", key, {"arguments": {}})
    assert status == 200, (status, answer)
    return answer


async def until(base, key, wanted, limit):
    """Seconds until a server's tool tells `wanted`."""
    begun = time.monotonic()
    while (await told(base, key))["data"] != wanted:
        took = time.monotonic() - begun
        assert took < limit, f"{base} does not serve {wanted} after {took:.2f} s"
        await asyncio.sleep(0.002)
    return time.monotonic() - begun


async def serve(binary, folder, database):
    environment = {**os.environ, "TOOLBAY_DATABASE": database}
    process = await asyncio.create_subprocess_exec(
        binary, "serve", "--port", "0", "--tools", folder, "--tenant", "acme", env=environment,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )
    said = ""
    while True:
        line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert line, f"a server ended before it listened:\n{said}"
        said += line
        if found := re.search(r"listening on (http://[0-9.:]+)", line):
            drained = asyncio.create_task(drain(process.stderr))
            assert "failed " not in said, said
            return process, found[1], re.findall(r"^tbk_\S+", said, re.M), drained


async def drain(stream):
    while await stream.readline():
        pass


def figures(seconds):
    ordered = sorted(seconds)
    at = lambda part: round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 1)
    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}


async def run(binary, changes):
    database = urllib.parse.urlsplit(os.environ["TOOLBAY_TEST_POSTGRES"])
    proxy = Proxy((database.hostname, database.port))
    await proxy.start()
    behind = database._replace(netloc=database.netloc.rsplit(":", 1)[0] + f":{proxy.port}").geturl()
    result, servers = {}, []
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "teller.rhai"), "w") as file:
            file.write(PLUGIN)
        try:
            for url in (database.geturl(), database.geturl(), behind):
                servers.append(await serve(binary, folder, url))
            one, other, cut = (base for _, base, _, _ in servers)
            admin, key = servers[0][2]

            async def put(base, number):
                path = "/api/v1/plugins/teller/config"
                return await ask(base, "PUT", path, key, {"config": {"n": number}})

            async def spread(first, count, within=SOON):
                took = []
                for number in range(first, first + count):
                    status, _, answer = await put(one, number)
                    assert status == 200, (status, answer)
                    took += await asyncio.gather(until(other, key, number, within), until(cut, key, number, within))
                return took

            result["served_elsewhere_after"] = figures(await spread(1, changes))
            proxy.delay = 0.025  # each way
            result["with_a_database_50_ms_away"] = figures(await spread(10_000, max(10, changes // 10), 5 * SOON))
            proxy.delay = 0.0

            # A key that is revoked at one is refused by all.
            status, _, made = await ask(one, "POST", "/api/v1/keys", admin, {"role": "tenant", "tenant": "acme", "label": "x"})
            assert status == 201, made
            for base in (other, cut):
                for _ in range(200):
                    if (await ask(base, "GET", "/api/v1/whoami", made["secret"]))[0] == 200:
                        break
                    await asyncio.sleep(0.01)
            status, _, answer = await ask(one, "DELETE", f"/api/v1/keys/{made['id']}", admin)
            assert status in (200, 204), (status, answer)
            begun = time.monotonic()
            for base in (one, other, cut):
                while (await ask(base, "GET", "/api/v1/whoami", made["secret"]))[0] != 401:
                    assert time.monotonic() - begun < SOON, "a revoked key is still good"
                    await asyncio.sleep(0.002)
            result["revoked_everywhere_after_ms"] = round(1000 * (time.monotonic() - begun), 1)

            proxy.cut()
            begun = time.monotonic()
            while (await ask(cut, "GET", "/readyz", key))[0] != 503:
                assert time.monotonic() - begun < RECOVERY, "a server without its database says that it is ready"
                await asyncio.sleep(0.01)
            result["not_ready_after_ms"] = round(1000 * (time.monotonic() - begun), 1)
            calls, slowest = 0, 0.0
            before = (await told(cut, key))["data"]
            threads = len(os.listdir(f"/proc/{servers[2][0].pid}/task"))
            for number in range(200):
                begun = time.monotonic()
                assert (await told(cut, key))["data"] == before
                slowest, calls = max(slowest, time.monotonic() - begun), calls + 1
            result["calls_without_database"] = {"made": calls, "slowest_ms": round(1000 * slowest, 1)}
            begun = time.monotonic()
            refused = await asyncio.gather(*(put(cut, 1) for _ in range(50)))
            result["50_writes_refused_within_ms"] = round(1000 * (time.monotonic() - begun), 1)
            assert all(status == 503 and headers["Retry-After"] for status, headers, _ in refused), refused[0]
            kept = await told(cut, key, "keep")
            assert kept["error"]["kind"] == "Unavailable" and kept["error"]["retryable"], kept
            now = len(os.listdir(f"/proc/{servers[2][0].pid}/task"))
            assert now <= threads + 4, f"threads pile up: {threads}, then {now}"
            assert servers[2][0].returncode is None
            assert (await ask(cut, "GET", "/healthz", key))[0] == 200

            status, _, answer = await put(one, 77_777)
            assert status == 200, answer
            await asyncio.sleep(1)
            proxy.is_cut = False
            result["caught_up_after_ms"] = round(1000 * await until(cut, key, 77_777, RECOVERY), 1)
            begun = time.monotonic()
            while (await ask(cut, "GET", "/readyz", key))[0] != 200:
                assert time.monotonic() - begun < RECOVERY
                await asyncio.sleep(0.01)
            status, _, answer = await put(cut, 88_888)
            assert status == 200, answer
            assert (await told(cut, key, "keep"))["data"] == "kept"
        finally:
            for process, *_ in servers:
                if process.returncode is None:
                    process.terminate()
            for process, _, _, drained in servers:
                await asyncio.wait_for(process.wait(), 30)
                await drained
    print(json.dumps(result, indent=2))


asyncio.run(run(sys.argv[1], int(sys.argv[2])))
