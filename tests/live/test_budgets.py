"""Shared budgets on the real runtime: many keys, one cap, and not a nanodollar above it."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from conftest import Gateway, Simulator, call, new_secrets, new_workspace, running_gateway

# A model whose cost is known to the digit before it is asked: its output alone costs, 1 dollar a million tokens.
PRICE = {"provider": "openai", "model": "flat", "prices": {"standard": {"input": "0", "output": "1"}}}
CHEAP = {"provider": "openai", "model": "cheap", "prices": {"standard": {"input": "0", "output": "0.1"}}}
# What 1,000 tokens cost, and what is set aside for them: a hold rounds each part of a cost up to the nanodollar.
COST, HOLD = Decimal("0.001"), Decimal("0.001000004")


def room_for(requests: int) -> str:
    """A limit that so many requests fit into, and not one more."""
    return str((requests - 1) * COST + HOLD)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: these tests move its clock."""
    yield from running_gateway(tmp_path_factory)


def furnish(workspace):
    workspace.admin("POST", "/prices", PRICE)
    workspace.admin("POST", "/prices", CHEAP)
    return workspace


@pytest.fixture
def shop(workspace):
    """A workspace with the flat price."""
    return furnish(workspace)


def budget(workspace, name="b", **fields):
    terms = {"scope": {"dimension": "workspace"}, "owner": "finance", "window": "day", **fields}
    return workspace.admin("PUT", f"/budgets/{name}", terms)


def ask(key, output=1000, limit=1000, model="flat", **fields):
    sim = {"input_tokens": 10, "output_tokens": output, **fields.pop("sim", {})}
    return key.chat(model=model, max_tokens=limit, sim=sim, **fields)


def settled(key, **fields):
    """A served request, once its cost is in the books."""
    reply = ask(key, **fields)
    assert reply.status == 200, reply.body
    key.event(reply.id)
    return reply


def status(workspace, name="b", query=""):
    return workspace.admin("GET", f"/budgets/{name}/status{query}")


def billed(workspace) -> Decimal:
    """What the simulator served, at the flat price."""
    output = sum(entry["billed"]["output"] for entry in workspace.books()["entries"])
    return Decimal(output) / 1_000_000


def charged(workspace) -> Decimal:
    for key in workspace.keys:
        key.ring()
    spent = [key.state()["spent_usd"]["lifetime"] for key in workspace.keys]
    return sum((Decimal(usd) for usd in spent), Decimal(0))


def until_spent(key, patience=60) -> int:
    """Asks until the budget is spent, coming back after each 429 as an SDK does. Returns how many were served."""
    served, deadline = 0, time.monotonic() + patience
    while time.monotonic() < deadline:
        reply = ask(key)
        if reply.status == 200:
            served += 1
        elif reply.status == 402:
            return served
        else:
            assert reply.status == 429 and reply.code == "budget_held", reply.body
            time.sleep(random.uniform(0.01, 0.05))
    raise AssertionError("the budget was never spent")


def test_500_requests_of_20_keys_find_room_for_exactly_100(shop):
    budget(shop, limit_usd=room_for(100))
    keys = [shop.key() for _ in range(20)]
    thought = {"model": "flat", "input_tokens": 10, "max_output_tokens": 1000}
    assert Decimal(keys[0].admin("POST", "/simulate", thought)["hold_usd"]) == HOLD
    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(lambda n: ask(keys[n % 20]), range(500)))
    served = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status != 200]
    assert {(r.status, r.code) for r in refused} <= {(402, "budget_exceeded"), (429, "budget_held")}
    # Where only holds stood in the way, a client comes back: in the end exactly what there is room for was served.
    again = sum(until_spent(key) for key in keys)
    assert len(served) + again == 100
    assert billed(shop) == charged(shop) == Decimal("0.1")
    assert Decimal(status(shop)["money"]["spent_usd"]) == Decimal("0.1")


def test_the_cap_holds_when_the_runtime_is_killed_again_and_again(tmp_path):
    simulator = Simulator().start()
    gateway = Gateway(home=tmp_path, settings=new_secrets() | {"TALLYGATE_FAULTS": "on"}).start()
    try:
        shop = furnish(new_workspace(gateway, simulator))
        # What is cut off is charged at its hold, so there is room for 100 holds.
        budget(shop, limit_usd=str(100 * HOLD))
        keys = [shop.key() for _ in range(20)]
        served, ended = [], threading.Event()

        def write(key):
            while not ended.is_set():
                try:
                    reply = ask(key, sim={"latency_ms": random.randrange(100, 400)})
                except Exception:  # noqa: BLE001 - a killed runtime fails in every way a socket can
                    time.sleep(0.05)
                    continue
                if reply.status == 200:
                    served.append(reply.id)

        threads = [threading.Thread(target=write, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(random.uniform(0.2, 0.5))
            gateway.kill()
            gateway.start()
        time.sleep(0.5)
        ended.set()
        for thread in threads:
            thread.join()
        # What was in flight at a kill is over when the longest request is: move the clock, do not wait.
        call("POST", f"{gateway.url}/_test/advance?ms=1000000")
        for _ in range(3):
            for key in keys:
                key.ring()
            call("POST", f"{gateway.url}/_test/alarm?budget={shop.id}/b/{shop.id}")
        more = sum(until_spent(key) for key in keys)
        # Near the cap each hold is written down before its request goes out: what a kill cuts off is known one by one, and
        # charged in full. So neither the books nor the provider's bill pass the cap, and no room is lost.
        events = [e for key in keys for e in _events(shop, key)]
        cut_off = [e for e in events if e["outcome"] == "abandoned"]
        print(f"served {len(served)} + {more}, {len(cut_off)} cut off; billed {billed(shop)}, charged {charged(shop)}")
        assert not [e for e in events if e["outcome"] == "interrupted"]
        assert billed(shop) <= charged(shop) <= 100 * HOLD
        assert len([e for e in events if e["charged"] != "0"]) == 100
        assert cut_off, "the kills came when nothing was in flight"
    finally:
        gateway.stop()
        simulator.stop()


def _events(workspace, key):
    key.ring()
    return workspace.admin("GET", f"/requests?key={key.id}&limit=1000")["data"]


def test_expected_mode_passes_more_at_once_and_stays_under_its_stated_bound(shop):
    budget(shop, limit_usd="0.05", mode="expected", max_overshoot_usd="0.05")
    keys = [shop.key() for _ in range(4)]
    bound = Decimal(status(shop)["money"]["overshoot_bound_usd"])
    assert bound == Decimal("0.05")
    # Each learns that a request costs a tenth of its worst case.
    with ThreadPoolExecutor(4) as pool:
        learned = list(pool.map(lambda key: [ask(key, output=100).status for _ in range(25)], keys))
    assert sum(codes.count(200) for codes in learned) == 100
    # Then they cost all of it: what is expected is wrong, and the bound holds all the same.
    with ThreadPoolExecutor(60) as pool:
        statuses = list(pool.map(lambda n: ask(keys[n % 4], sim={"latency_ms": 200}).status, range(400)))
    at_once = statuses.count(200)
    for key in keys:
        while ask(key).status == 200:
            pass
    spent = charged(shop)
    print(f"expected mode: {at_once} of 400 at once, spent {spent} of a cap of 0.05 with a bound of {bound}")
    assert Decimal("0.05") <= spent <= Decimal("0.05") + bound
    assert billed(shop) == spent


def test_a_dollar_shared_by_1000_keys_strands_less_than_the_bound(shop):
    config = shop.admin("GET", "/config")
    first = shop.key()
    budget(shop, limit_usd="1")
    # Far fewer than 1,000 connections: the keys ask one after the other, and each keeps what it was granted.
    keys = [first] + [shop.key() for _ in range(999)]
    assert config is not None
    with ThreadPoolExecutor(32) as pool:
        codes = list(pool.map(lambda key: ask(key, output=10, limit=10).status, keys))
    assert codes.count(200) == 1000
    money = status(shop)["money"]
    left = Decimal("1") - Decimal(money["spent_usd"])
    stranded = Decimal(money["leased_usd"]) - Decimal(money["held_usd"])
    print(f"1,000 keys: {money['spent_usd']} reported as spent, {stranded} stranded with keys, bound {left / 8}")
    assert stranded <= left / 8
    # And all of it can be spent, by one key.
    served = 0
    while (reply := ask(first, output=5000, limit=5000)).status != 402:
        assert reply.status in (200, 429), reply.body
        served += reply.status == 200
    assert charged_of(keys) > Decimal("0.99")
    assert billed(shop) <= Decimal("1")


def charged_of(keys) -> Decimal:
    return sum((Decimal(key.state()["spent_usd"]["lifetime"]) for key in keys), Decimal(0))


def test_spent_is_402_held_is_429_and_both_say_which_budget(shop):
    budget(shop, "teams", scope={"dimension": "team", "value": "*"}, limit_usd=room_for(2))
    key = shop.key(actor={"team": "search"})
    slow = threading.Thread(target=lambda: ask(key, limit=1900, output=1000, sim={"latency_ms": 800}))
    slow.start()
    time.sleep(0.3)
    held = ask(key)
    assert (held.status, held.error["code"]) == (429, "budget_held")
    assert int(held.headers["retry-after"]) >= 1
    assert held.error["metadata"]["budget"] == {"name": "teams", "dimension": "team", "value": "search"}
    slow.join()
    settled(key)
    spent = ask(key)
    assert (spent.status, spent.error["code"]) == (402, "budget_exceeded")
    assert "retry-after" not in spent.headers and spent.headers["x-should-retry"] == "false"
    facts = spent.error["metadata"]
    assert (facts["cap"], facts["spent"], facts["window"]) == (room_for(2), "0.002", "day")
    assert facts["resets_at"].endswith("Z") and facts["retryable"] is False
    # Another team has its own money; no team at all is nobody's budget here.
    assert ask(shop.key(actor={"team": "ads"})).status == 200
    assert ask(shop.key()).status == 200


def test_all_budgets_of_a_request_must_pass_and_none_is_charged_otherwise(shop):
    budget(shop, "all", limit_usd="1")
    budget(shop, "users", scope={"dimension": "user", "value": "*"}, limit_usd=room_for(1))
    budget(shop, "prod", scope={"dimension": "environment", "value": "production"}, limit_usd="0.001")
    key = shop.key(actor={"user": "ann"})
    settled(key)
    refused = ask(key)
    assert (refused.status, refused.error["metadata"]["budget"]["name"]) == (402, "users")
    key.get("/v1/budget")
    assert status(shop, "all")["money"]["spent_usd"] == "0.001"
    # The environment of these keys is `test`: the budget for production never heard of them.
    assert status(shop, "prod")["money"]["spent_usd"] == "0"


def test_changing_a_limit_keeps_what_is_spent_and_acts_on_the_next_request(shop):
    budget(shop, limit_usd=room_for(1))
    key = shop.key()
    settled(key)
    assert ask(key).status == 402
    budget(shop, limit_usd=room_for(2))
    settled(key)
    assert ask(key).status == 402
    assert status(shop)["money"]["spent_usd"] == "0.002"
    budget(shop, limit_usd="0.0015")
    assert ask(key).status == 402
    raised = shop.admin(
        "PUT", "/budgets/b/raise", {"limit_usd": room_for(3), "until": "2099-01-01", "reason": "launch"}
    )
    assert raised["raise"]["reason"] == "launch"
    settled(key)
    shop.admin("DELETE", "/budgets/b/raise")
    assert ask(key).status == 402
    shop.admin("DELETE", "/budgets/b")
    settled(key)


def test_a_raise_ends_by_itself(shop):
    budget(shop, limit_usd=room_for(1), window="lifetime")
    key = shop.key()
    settled(key)
    _, now = call("POST", f"{shop.gateway.url}/_test/advance?ms=0")
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now["now"] / 1000 + 3600))
    shop.admin("PUT", "/budgets/b/raise", {"limit_usd": "0.1", "until": until, "reason": "launch"})
    settled(key)
    call("POST", f"{shop.gateway.url}/_test/advance?ms=3700000")
    assert ask(key).status == 402


def test_a_window_ends_and_the_money_is_there_again(shop):
    budget(shop, limit_usd=room_for(1), time_zone="Pacific/Auckland")
    key = shop.key()
    settled(key)
    assert ask(key).status == 402
    call("POST", f"{shop.gateway.url}/_test/advance?ms=86400000")
    settled(key)
    key.get("/v1/budget")
    assert [past["spent_usd"] for past in status(shop)["history"]] == ["0.001"]


def test_at_the_cap_a_cheaper_model_answers_and_the_response_says_so(shop):
    at_cap = {"action": "downgrade", "model": "cheap"}
    budget(shop, limit_usd="0.00150001", at_cap=at_cap)
    key = shop.key()
    assert "x-tallygate-downgraded-by" not in settled(key).headers
    # 0.0005 are left: not enough for `flat`, enough for 5 of `cheap`.
    for _ in range(5):
        reply = settled(key)
        assert reply.headers["x-tallygate-downgraded-by"] == "b"
        assert reply.headers["x-tallygate-model"] == "cheap"
        assert reply.headers["x-tallygate-cost-usd"] == "0.0001"
        event = key.event(reply.id)
        assert (event["requested_model"], event["model"]) == ("flat", "cheap")
        assert event["downgraded_by"] == "b"
    refused = ask(key)
    assert (refused.status, refused.code) == (402, "budget_exceeded")
    asked = [entry["model"] for entry in shop.books()["entries"]]
    assert sorted(asked) == ["cheap"] * 5 + ["flat"]


def test_a_downgrade_can_begin_before_the_cap(shop):
    at_cap = {"action": "downgrade", "model": "cheap", "from_percent": 50}
    budget(shop, limit_usd="0.004", at_cap=at_cap)
    key = shop.key()
    models = [settled(key).headers["x-tallygate-model"] for _ in range(4)]
    assert models == ["flat", "flat", "cheap", "cheap"]


def test_rates_and_slots_of_a_scope_hold_across_its_keys(shop):
    scope = {"dimension": "app", "value": "*"}
    budget(shop, "rpm", scope=scope, requests_per_minute=5)
    keys = [shop.key(actor={"app": "web"}) for _ in range(3)]
    replies = [ask(keys[n % 3]) for n in range(12)]
    served = [reply for reply in replies if reply.status == 200]
    assert len(served) == 5
    limited = next(reply for reply in replies if reply.status == 429)
    assert limited.code == "rate_limited"
    assert limited.error["metadata"]["budget"]["name"] == "rpm"
    assert limited.error["metadata"]["unit"] == "requests_per_minute"
    assert int(limited.headers["retry-after-ms"]) <= 12_000
    call("POST", f"{shop.gateway.url}/_test/advance?ms=60000")
    assert ask(keys[0]).status == 200
    shop.admin("DELETE", "/budgets/rpm")
    budget(shop, "slots", scope=scope, max_concurrency=2)
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: ask(keys[n % 3], sim={"latency_ms": 600}).status, range(8)))
    assert (codes.count(200), codes.count(429)) == (2, 6)
    assert ask(keys[1]).status == 200


def test_a_key_s_holder_sees_what_applies(shop):
    budget(shop, "all", limit_usd="1", window="month", time_zone="Europe/Berlin")
    budget(shop, "teams", scope={"dimension": "team", "value": "*"}, limit_usd="0.01", requests_per_minute=100)
    key = shop.key({"spend_caps": [{"window": "day", "limit_usd": "5"}]}, actor={"team": "search"})
    settled(key)
    reply = key.get("/v1/budget")
    assert reply.status == 200, reply.body
    (cap,) = reply.json["caps"]
    assert (cap["window"], cap["cap_usd"], cap["spent_usd"], cap["remaining_usd"]) == ("day", "5", "0.001", "4.999")
    shared = {b["budget"]: b for b in reply.json["budgets"]}
    money = shared["teams"]["money"]
    assert (shared["teams"]["value"], money["mode"], money["overshoot_bound_usd"]) == ("search", "strict", "0")
    assert (money["cap_usd"], money["spent_usd"], money["held_usd"], money["remaining_usd"]) == (
        "0.01",
        "0.001",
        "0",
        "0.009",
    )
    assert money["pace"]["spent_percent"] == 10 and money["resets_at"].endswith("Z")
    assert shared["teams"]["limits"]["requests_per_minute"]["limit"] == 100
    assert shared["all"]["money"]["window"] == "month"
    # Half of a month's days begin an hour or two before UTC's.
    assert shared["all"]["money"]["starts_at"][11:13] in ("22", "23")
    assert key.workspace.gateway.admin("GET", f"/workspaces/{shop.id}/budgets", None, shop.token)[0] == 200
    stranger = key.get("/v1/budget?x=1")
    assert stranger.status == 200


def test_a_bad_budget_is_refused_with_field_and_remedy(shop):
    good = {"scope": {"dimension": "team", "value": "*"}, "owner": "finance", "limit_usd": "10"}
    for change, field in [
        ({"limit_usd": "ten"}, "limit_usd"),
        ({"limit_usd": "-1"}, "budgets.b.limit_usd"),
        ({"window": "fortnight"}, "window"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"window": "fiscal_month", "fiscal_month_start_day": 31}, "budgets.b.fiscal_month_start_day"),
        ({"at_cap": {"action": "downgrade"}}, "budgets.b.at_cap.model"),
        ({"thresholds": [90, 10]}, "budgets.b.thresholds"),
        ({"scope": {"dimension": "planet", "value": "*"}}, "scope.dimension"),
        ({"limit": "10"}, "limit"),
    ]:
        code, problem = shop.raw("PUT", "/budgets/b", good | change)
        assert code in (400, 422), (change, code, problem)
        assert problem["errors"][0]["field"] == field, (change, problem)
        assert problem["errors"][0]["remedy"], problem
    assert shop.raw("GET", "/budgets/b")[0] == 404
    # Nothing of it was taken, and a good one is.
    shop.admin("PUT", "/budgets/b", good)
    assert shop.raw("GET", "/budgets/b/status")[1]["errors"][0]["field"] == "value"
    assert shop.raw("GET", "/budgets/b/status?value=search")[0] == 200
