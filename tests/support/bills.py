"""The simulator's bills, for tests: their quirks, the simulator's clock, leaked keys, and the true invoice.

Standard library only. Money is `Decimal`, never a float.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

METERS = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "requests",
)


class BillsError(AssertionError):
    """The simulator refused a request; the text says why."""


@dataclass(frozen=True)
class Line:
    """One model, tier and meter of one day."""

    day: date
    model: str
    tier: str
    meter: str
    count: int
    amount: Decimal
    leaked: int
    leaked_amount: Decimal


@dataclass(frozen=True)
class Charge:
    """A line beside the metered use: `credit`, `tax`, `discount` or `minimum_fee`."""

    day: date
    reason: str
    description: str
    amount: Decimal


@dataclass(frozen=True)
class Invoice:
    """What the provider bills for some days, to the last digit."""

    total: Decimal
    """What is owed in the end: nothing late, everything revised, nothing rounded."""
    shown: Decimal
    """What the billing API's lines sum to now."""
    metered: Decimal
    """The part of `total` that is metered use."""
    leaked_amount: Decimal
    leaked: dict[str, int]
    """Tokens and requests used outside of the gateway, by meter."""
    days: dict[date, Decimal]
    lines: list[Line]
    charges: list[Charge]
    keys: dict[str, Decimal]
    """The metered amount of each key, by the provider's id of it."""

    def of_model(self, model: str) -> Decimal:
        return sum((line.amount for line in self.lines if line.model == model), Decimal(0))

    def tokens(self, meter: str, model: str | None = None) -> int:
        assert meter in METERS, meter
        fits = (line for line in self.lines if line.meter == meter and model in (None, line.model))
        return sum(line.count for line in fits)


@dataclass
class Bills:
    """The bills that a simulator makes of its books, for one account.

    Account `7` has the credentials `sk-sim-7` and `sk-sim-7-...`; without an account, all of them.
    """

    url: str
    account: str = ""
    quirks: dict[str, dict] = field(default_factory=dict)

    def admin_key(self, provider: str) -> str:
        """The credential that reads the account's bills."""
        heads = {"anthropic": "sk-ant-admin01-sim", "openrouter": "sk-or-v1-sim"}
        head = heads.get(provider, "sk-admin-sim")
        return f"{head}-{self.account}" if self.account else head

    def base_url(self, provider: str) -> str:
        """Where a client of the provider's billing API begins, as the provider's own base URL does."""
        paths = {"openai": "/openai/v1", "anthropic": "/anthropic", "openrouter": "/openrouter/api/v1"}
        return self.url + paths[provider]

    # The clock.

    def now(self) -> datetime:
        return _moment(self._call("GET", "/_control/clock")["now"])

    def set_clock(self, now: datetime, frozen: bool = False) -> None:
        """It is `now`, and time runs on from there unless it is frozen."""
        assert now.tzinfo is not None, "a moment needs its time zone"
        text = now.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
        self._call("POST", "/_control/clock", {"now": text, "frozen": frozen})

    def advance(self, by: timedelta) -> None:
        assert by % timedelta(seconds=1) == timedelta(0), "the clock moves by whole seconds"
        self._call("POST", "/_control/clock", {"advance_seconds": by // timedelta(seconds=1)})

    def real_clock(self) -> None:
        self._call("POST", "/_control/clock", {"real": True})

    # The bills.

    def set(self, provider: str, **quirks: object) -> None:
        """Replaces the quirks of a provider's bills; `set("openai")` takes them all away."""
        self.quirks[provider] = quirks
        body = {"provider": provider, "account": self.account, **quirks}
        self._call("POST", "/_control/bills", body)

    def change(self, provider: str, **quirks: object) -> None:
        """Sets these quirks beside those that were set before. What counted pulls or faults begins anew."""
        self.set(provider, **{**self.quirks.get(provider, {}), **quirks})

    def release(self, provider: str) -> None:
        """All that is late or to be revised shows from now on."""
        self._call("POST", "/_control/release", {"provider": provider, "account": self.account})

    def leak(
        self, provider: str, credential: str, model: str, day: date, requests: int = 1, **more: object
    ) -> str:
        """Use of a credential outside of the gateway (`input=`, `output=`, ...); the provider's id of the key."""
        body = {
            "provider": provider,
            "credential": credential,
            "model": model,
            "day": day.isoformat(),
            "requests": requests,
            **more,
        }
        return self._call("POST", "/_control/leak", body)["api_key_id"]

    def invoice(self, provider: str, first: date, last: date | None = None) -> Invoice:
        """The true invoice from the first day to the last, both included."""
        query = {
            "provider": provider,
            "account": self.account,
            "from": first.isoformat(),
            "to": ((last or first) + timedelta(days=1)).isoformat(),
        }
        answer = self._call("GET", f"/_control/invoice?{urllib.parse.urlencode(query)}")
        return _invoice(answer)

    def _call(self, method: str, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body, default=_text).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise BillsError(f"{method} {path}: {error.code} {error.read().decode()}") from None


def _text(value: object) -> str:
    """Amounts and days go out as text."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a quirk")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _invoice(answer: dict) -> Invoice:
    days, lines, charges = {}, [], []
    for entry in answer["days"]:
        day = date.fromisoformat(entry["day"])
        days[day] = Decimal(entry["total"])
        for line in entry["lines"]:
            money = {name: Decimal(line.pop(name)) for name in ("amount", "leaked_amount")}
            lines.append(Line(day=day, **line, **money))
        for charge in entry["charges"]:
            amount = Decimal(charge.pop("amount"))
            charges.append(Charge(day=day, amount=amount, **charge))
    return Invoice(
        total=Decimal(answer["total"]),
        shown=Decimal(answer["shown"]),
        metered=Decimal(answer["metered"]),
        leaked_amount=Decimal(answer["leaked"]["amount"]),
        leaked={meter: answer["leaked"]["counts"].get(meter, 0) for meter in METERS},
        days=days,
        lines=lines,
        charges=charges,
        keys={key["id"]: Decimal(key["amount"]) for key in answer["keys"]},
    )
