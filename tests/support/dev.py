"""`make run`: the gateway on the Workers runtime with durable local state, the simulator, a workspace and a key."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import demo
from gateway import ROOT, Gateway, NotReady, Simulator, call, new_secrets, stop

HOME = ROOT / ".dev"
WORKSPACE = "ws_dev"
SIMULATED = [
    {"name": "openai", "kind": "openai", "path": "/openai/v1"},
    {"name": "anthropic", "kind": "anthropic", "path": "/anthropic"},
]
REAL = {
    "TALLYGATE_OPENAI_KEY": {"kind": "openai", "base_url": "https://api.openai.com/v1"},
    "TALLYGATE_ANTHROPIC_KEY": {"kind": "anthropic", "base_url": "https://api.anthropic.com"},
}


def read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read: it holds secrets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def port_from(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise NotReady(f"{name} must be a port number, 1 to 65535; it is {text!r}.")
    return int(text)


class Admin:
    """The admin API of the running gateway; a refusal ends the start with its text."""

    def __init__(self, gateway: Gateway):
        self.gateway = gateway

    def __call__(self, method: str, path: str, body: object = None, accept: tuple = ()) -> object:
        status, answer = self.gateway.admin(method, path, body)
        if status >= 300 and status not in accept:
            raise NotReady(f"{method} {path} answered {status}: {json.dumps(answer)}")
        return answer


def register_provider(admin: Admin, provider: dict) -> None:
    """Creates the provider, or replaces what an earlier start registered (ports and keys change)."""
    path = f"/workspaces/{WORKSPACE}/providers"
    _, existing = admin.gateway.admin("GET", f"{path}/{provider['name']}")
    if isinstance(existing, dict) and existing.get("name") == provider["name"]:
        change = {key: value for key, value in provider.items() if key not in ("name", "kind")}
        admin("PATCH", f"{path}/{provider['name']}", change)
    else:
        admin("POST", path, provider)


def prepare(admin: Admin, simulator: Simulator, known: dict) -> dict:
    """A workspace, its providers and a key. What is there already stays, so counts and keys survive a restart."""
    if "admin_token" not in known:
        created = admin("POST", "/workspaces", {"id": WORKSPACE, "name": "Development"})
        known["admin_token"] = created["admin_token"]["token"]
    for setting, provider in REAL.items():
        if os.environ.get(setting):
            name = provider["kind"]
            register_provider(admin, {"name": name, **provider, "credential": os.environ[setting]})
            print(f"    {name}: the real provider, with {setting}")
    for simulated in SIMULATED:
        setting = f"TALLYGATE_{simulated['name'].upper()}_KEY"
        if not os.environ.get(setting):
            register_provider(
                admin,
                {
                    "name": simulated["name"],
                    "kind": simulated["kind"],
                    "base_url": simulator.url + simulated["path"],
                    # Long enough that its end may be shown: so the reconciler knows it from a stranger's.
                    "credential": f"sk-sim-{simulated['name']}-held-by-the-gateway",
                },
            )
    if "key" not in known:
        key = admin(
            "POST",
            f"/workspaces/{WORKSPACE}/keys",
            {
                "name": "first-key",
                "owner": "you",
                "cost_centre": "development",
                "purpose": "trying Tallygate",
                "environment": "development",
                "policy": {"spend_caps": [{"window": "day", "limit_usd": "10"}]},
            },
        )
        known["key"] = key["key"]
    if "reconciler_secret" not in known:
        secret = admin("POST", f"/workspaces/{WORKSPACE}/reconciler-secrets", {"kid": "night"})
        known["reconciler_secret"] = secret["secret"]
    return known


def reconciler_file(gateway: Gateway, simulator: Simulator, known: dict) -> str:
    """What `make night` reconciles: this workspace, with the simulator's bills, in a directory of its own."""
    source = {"account": "org-sim"}
    sources = [
        {"connector": "openai", "base_url": f"{simulator.url}/openai/v1", "admin_key": "sk-admin-sim", **source},
        {
            "connector": "anthropic",
            "base_url": f"{simulator.url}/anthropic",
            "admin_key": "sk-ant-admin01-sim",
            "report": "analytics",
            **source,
        },
    ]
    edge = {"url": gateway.url, "key_id": "night", "secret": known["reconciler_secret"]}
    workspace = {"id": WORKSPACE, "edge": edge, "sources": sources}
    books = {"local": {"directory": str(HOME / "books")}}
    return json.dumps({"storage": books, "workspaces": [workspace]}, indent=2)


def environment_file(gateway: Gateway, known: dict) -> str:
    values = {
        "OPENAI_BASE_URL": f"{gateway.url}/v1",
        "OPENAI_API_KEY": known["key"],
        "ANTHROPIC_BASE_URL": gateway.url,
        "ANTHROPIC_API_KEY": known["key"],
        "TALLYGATE_URL": gateway.url,
        "TALLYGATE_ADMIN_TOKEN": known["admin_token"],
    }
    return "".join(f"export {name}={value}\n" for name, value in values.items())


def offer_demo(admin: Admin, known: dict) -> str:
    """Fills a demo workspace where DEMO asks for one: what to say of it."""
    # Removed in the dashboard, it is gone; then the token of before is of no use.
    status, _ = admin.gateway.admin("GET", f"/workspaces/{demo.WORKSPACE}/budgets")
    if status == 404:
        known.pop("demo_token", None)
    if os.environ.get("DEMO") and "demo_token" not in known:
        print("==> making a month of demo traffic", flush=True)
        token = demo.create(admin)
        demo.fill(admin, lambda text: print(f"\r    {text}", end="", flush=True))
        print()
        known["demo_token"] = token
    if "demo_token" in known:
        return f"Demo data, labelled on each page, removed in one click there: sign in with\n  {known['demo_token']}"
    return "A month of demo traffic, in a workspace of its own:  make run DEMO=1"


def welcome(gateway: Gateway, simulator: Simulator, known: dict, demo_text: str) -> str:
    key = known["key"]
    return f"""
Tallygate runs at {gateway.url} (simulated providers at {simulator.url}). Ctrl-C ends it; its state stays in .dev/.

curl:

  curl {gateway.url}/v1/chat/completions \\
    -H "authorization: Bearer {key}" -H "content-type: application/json" \\
    -d '{{"model": "gpt-6-luna", "messages": [{{"role": "user", "content": "Hello"}}]}}'

Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{gateway.url}/v1", api_key="{key}")
  answer = client.chat.completions.create(
      model="gpt-6-luna", messages=[{{"role": "user", "content": "Hello"}}])
  print(answer.choices[0].message.content)

Node (npm install openai), in a .mjs file:

  import OpenAI from "openai";
  const client = new OpenAI({{ baseURL: "{gateway.url}/v1", apiKey: "{key}" }});
  const answer = await client.chat.completions.create(
    {{ model: "gpt-6-luna", messages: [{{ role: "user", content: "Hello" }}] }});
  console.log(answer.choices[0].message.content);

Dashboard:  {gateway.url}/dashboard
  Sign in with the token that this prints:  grep ADMIN_TOKEN .dev/env
{demo_text}

Any SDK or tool, unconfigured:   source .dev/env
What was used and what it cost:  curl -H "authorization: Bearer $TALLYGATE_ADMIN_TOKEN" \\
    "{gateway.url}/api/v1/workspaces/{WORKSPACE}/usage?group_by=model"
Books that agree with the bill:  make night
"""


def main() -> int:
    secrets_file, known_file = HOME / "secrets.json", HOME / "known.json"
    settings = read(secrets_file) or new_secrets()
    write_private(secrets_file, json.dumps(settings))
    simulator = Simulator(port=port_from("SIMULATOR_PORT", 8788), kept_in=HOME / "simulator.ndjson")
    gateway = Gateway(home=HOME, settings=settings, port=port_from("PORT", 8787), archive=True)
    try:
        print("==> starting the provider simulator", flush=True)
        simulator.start()
        print("==> starting the gateway", flush=True)
        gateway.start()
        print("==> preparing a workspace and a key", flush=True)
        known = prepare(Admin(gateway), simulator, read(known_file))
        write_private(known_file, json.dumps(known))
        write_private(HOME / "env", environment_file(gateway, known))
        write_private(HOME / "reconciler.json", reconciler_file(gateway, simulator, known))
        demo_text = offer_demo(Admin(gateway), known)
        write_private(known_file, json.dumps(known))
        print(welcome(gateway, simulator, known, demo_text), flush=True)
        code = gateway.process.wait()
        print(f"The gateway ended with code {code}. Its log is {gateway.log.relative_to(ROOT)}.", file=sys.stderr)
        return 1
    finally:
        stop(gateway.process)
        simulator.stop()


if __name__ == "__main__":
    # Also where a shell started this in the background, and with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped. The state is in .dev/; `make run` goes on from there.")
    except NotReady as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
