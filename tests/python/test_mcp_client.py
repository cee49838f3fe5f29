"""Lists and calls Toolbay's tools with the official Python MCP client, over stdio and over streamable HTTP.

    python test_mcp_client.py TOOLBAY_BINARY TOOLS_FOLDER

TOOLS_FOLDER holds the plugin `calculator` with the tools `add` and `divide`. Needs only what requirements.txt names.
Prints one line a check and the counts at the end; the exit status is 0 where every check passed.
"""

import asyncio
import json
import re
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

from mcp import Client, MCPError, StdioServerParameters

# How the client negotiates: by `initialize`, as up to 2025-11-25, or by `server/discover`, as from 2026-07-28.
MODES = {"legacy": "2025-11-25", "auto": "2026-07-28"}

SECONDS_TO_START = 60
SECONDS_TO_ANSWER = 30

# A tool that tenants have for themselves: of the same name, with another secret.
SECRET_PLUGIN = """//! Keeps a secret, for one tenant only.
const PLUGIN = #{ name: "secret", version: "1.0.0", author: "The tests", description: "Keeps a secret",
    tools: #{ tell: #{ description: "Tells the secret",
        parameters: #{ type: "object", properties: #{}, additionalProperties: false } } } };
fn tell(args, cx) { #{ told: "SECRET" } }
"""
SECRETS = {"acme": "xyzzy", "globex": "plugh"}


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, name, holds, seen=None):
        if holds:
            self.passed += 1
            print(f"ok      {name}")
        else:
            self.failed += 1
            print(f"FAILED  {name}" + ("" if seen is None else f": {seen!r}"))

    @asynccontextmanager
    async def section(self, name):
        """Checks that belong together: what breaks off one of them is reported and stops no other."""
        try:
            yield
        except Exception as error:
            while isinstance(error, ExceptionGroup) and error.exceptions:
                error = error.exceptions[0]
            self.check(f"{name}: got to its end", False, error)


def text_of(result):
    return "".join(block.text for block in result.content if block.type == "text")


async def all_tools(client):
    """Every page of the list, by name."""
    tools, cursor = {}, None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools.update((tool.name, tool) for tool in page.tools)
        cursor = page.next_cursor
        if cursor is None:
            return tools


def connected(server, mode):
    return Client(server, mode=mode, read_timeout_seconds=SECONDS_TO_ANSWER)


async def check_calculator(checks, where, client):
    """What every way to the server must show."""
    checks.check(f"{where}: the server says its name", client.server_info.name == "toolbay", client.server_info)
    tools = await all_tools(client)
    wanted = {"calculator.add", "calculator.divide"}
    checks.check(f"{where}: the calculator is listed", wanted <= tools.keys(), sorted(tools))
    for name in sorted(wanted & tools.keys()):
        tool = tools[name]
        checks.check(f"{where}: {name} has a description", bool(tool.description))
        schema = tool.input_schema
        described = schema.get("type") == "object" and {"a", "b"} <= schema.get("properties", {}).keys()
        checks.check(f"{where}: {name} has a schema of its parameters", described, schema)

    result = await client.call_tool("calculator.add", {"a": 2, "b": 3})
    checks.check(f"{where}: add succeeds", not result.is_error, text_of(result))
    checks.check(f"{where}: 2 + 3 is 5", re.search(r"(?<![\d.])5(\.0)?(?![\d.])", text_of(result)), text_of(result))
    if result.structured_content is not None:
        same = json.loads(text_of(result)) == result.structured_content
        checks.check(f"{where}: text and structure agree", same, result.structured_content)

    result = await client.call_tool("calculator.divide", {"a": 1, "b": 0})
    checks.check(f"{where}: dividing by zero is an error of the tool", result.is_error is True)
    checks.check(f"{where}: the error says why", "zero" in text_of(result).lower(), text_of(result))

    result = await client.call_tool("calculator.add", {"a": "two"})
    checks.check(f"{where}: wrong arguments are an error of the tool", result.is_error is True)
    repairable = text_of(result).startswith("InvalidArguments") and "/a" in text_of(result)
    checks.check(f"{where}: the error says which argument", repairable, text_of(result))

    try:
        result = await client.call_tool("no.such_tool", {})
        checks.check(f"{where}: an unknown tool is refused", False, result)
    except MCPError as error:
        checks.check(f"{where}: an unknown tool is refused", error.code == -32602, error)

    many = await asyncio.gather(*(client.call_tool("calculator.add", {"a": n, "b": 0}) for n in range(20)))
    checks.check(f"{where}: 20 calls at once succeed", not any(result.is_error for result in many))


async def check_stdio(checks, binary, tools):
    for mode, version in MODES.items():
        where = f"stdio {version}"
        server = StdioServerParameters(command=binary, args=["mcp", "--tools", tools])
        async with checks.section(where), connected(server, mode) as client:
            checks.check(f"{where}: is spoken", client.protocol_version == version, client.protocol_version)
            await check_calculator(checks, where, client)


@asynccontextmanager
async def serving(binary, *arguments):
    """Runs `toolbay serve` and gives the address that it says it listens on."""
    process = await asyncio.create_subprocess_exec(
        binary, "serve", "--keyless", "--port", "0", *arguments, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    said = []

    async def address():
        async for line in process.stderr:
            said.append(line.decode(errors="replace"))
            if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)/mcp", said[-1]):
                return found[1]
        raise RuntimeError("the server ended before it listened; it said:\n" + "".join(said))

    async def drain():
        async for _ in process.stderr:
            pass

    rest = None
    try:
        url = await asyncio.wait_for(address(), SECONDS_TO_START)
        # A full pipe would stop the server.
        rest = asyncio.create_task(drain())
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), SECONDS_TO_ANSWER)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        if rest is not None:
            await rest


async def check_http(checks, binary, tools, folder):
    arguments = ["--tools", tools]
    for tenant, secret in SECRETS.items():
        own = Path(folder, tenant)
        own.mkdir()
        Path(own, "secret.rhai").write_text(SECRET_PLUGIN.replace("SECRET", secret))
        arguments += ["--tenant-tools", f"{tenant}={own}"]
    async with serving(binary, *arguments) as address:
        for mode, version in MODES.items():
            where = f"http {version}"
            async with checks.section(where), connected(f"{address}/mcp", mode) as client:
                checks.check(f"{where}: is spoken", client.protocol_version == version, client.protocol_version)
                await check_calculator(checks, where, client)
            async with checks.section(f"{where}, tenants"), connected(f"{address}/mcp", mode) as client:
                await check_tenants(checks, where, client, address, mode)


async def check_tenants(checks, where, nobody, address, mode):
    """Two tenants have a tool of one name each; `nobody` is a client of a third, which has none."""
    checks.check(f"{where}: others do not see a tenant's tool", "secret.tell" not in await all_tools(nobody))
    for tenant, secret in SECRETS.items():
        url = f"{address}/tenants/{tenant}/mcp"
        async with connected(url, mode) as client:
            tools = await all_tools(client)
            checks.check(f"{where}: {tenant} sees its own tool and the common ones",
                         {"secret.tell", "calculator.add"} <= tools.keys(), sorted(tools))
            told = text_of(await client.call_tool("secret.tell", {}))
            checks.check(f"{where}: {tenant} gets its own secret", json.loads(told) == {"told": secret}, told)
    try:
        result = await nobody.call_tool("secret.tell", {})
        checks.check(f"{where}: others cannot call it", False, result)
    except MCPError as error:
        checks.check(f"{where}: others cannot call it", error.code == -32602, error)
    try:
        async with connected(f"{address}/tenants/initech/mcp", mode):
            checks.check(f"{where}: an unknown tenant has no address", False)
    except Exception:  # What the client raises depends on the revision; that it cannot connect is the point.
        checks.check(f"{where}: an unknown tenant has no address", True)


async def main(binary, tools):
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        await check_stdio(checks, binary, tools)
        async with checks.section("http"):
            await check_http(checks, binary, tools, folder)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
