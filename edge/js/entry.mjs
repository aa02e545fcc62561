// The Worker's entry: which path goes where. `/v1/...` is the data plane, `/api/v1/...` the control plane,
// `/dashboard/...` the pages for people.

import { advanceClock, configure, inCore, now, random } from "./core.mjs";
import { administer } from "./admin.mjs";
import { isDashboard, showDashboard } from "./dashboard.mjs";
import { serve } from "./guard.mjs";

export { Budget, Directory, Meter, Workspace } from "./objects.mjs";
export { Alerts, Ledger, Telemetry } from "./watching.mjs";

export default {
  fetch(request, env, ctx) {
    const path = pathOf(request.url);
    if (path.startsWith("/api/")) return administer(request, env);
    if (isDashboard(path)) return showDashboard(request, env);
    if (path === "/healthz") return Response.json({ status: "ok" });
    if (path.startsWith("/_test/") && env.TALLYGATE_FAULTS === "on") return test(request, env);
    return serve(request, env, ctx);
  },
};

/** The path of an absolute URL, without parsing the whole of it: this runs for every request. */
function pathOf(url) {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  return start < 0 ? "/" : url.slice(start);
}

/** What only a test runtime answers: it moves the clock and rings alarms, so that no test waits for the time to pass. */
async function test(request, env) {
  configure(env);
  const url = new URL(request.url);
  if (url.pathname === "/_test/advance") {
    advanceClock(Number(url.searchParams.get("ms")));
    return Response.json({ now: now() });
  }
  const meter = env.METER.getByName(url.searchParams.get("key") ?? "");
  const account = url.searchParams.get("budget");
  const telemetry = url.searchParams.get("telemetry");
  if (telemetry !== null && url.pathname === "/_test/alarm") {
    await env.TELEMETRY.getByName(telemetry).ring();
    return Response.json({});
  }
  const ledger = url.searchParams.get("ledger");
  if (ledger !== null && url.pathname === "/_test/alarm") {
    await env.LEDGER.getByName(ledger).ring();
    await env.LEDGER.getByName(ledger).settled();
    return Response.json({});
  }
  const alerts = url.searchParams.get("alerts");
  if (alerts !== null && url.pathname === "/_test/alarm") {
    await env.ALERTS.getByName(alerts).ring();
    return Response.json({});
  }
  if (alerts !== null && url.pathname === "/_test/budget") {
    await env.ALERTS.getByName(alerts).budget(await request.text());
    return Response.json({});
  }
  if (account !== null && url.pathname === "/_test/alarm") {
    await env.BUDGET.getByName(account).ring();
    return Response.json({});
  }
  if (account !== null && url.pathname === "/_test/state") {
    return new Response(await env.BUDGET.getByName(account).status(), { headers: { "content-type": "application/json" } });
  }
  if (url.pathname === "/_test/alarm") {
    await meter.ring();
    return Response.json({});
  }
  if (url.pathname === "/_test/plan") {
    await meter.applyPlan(await request.text());
    return Response.json({});
  }
  if (url.pathname === "/_test/state") {
    return new Response(await meter.state(), { headers: { "content-type": "application/json" } });
  }
  if (url.pathname === "/_test/panic") {
    try {
      inCore((glue) => glue.panic_on_purpose());
    } catch {
      // That is what was asked for.
    }
    return Response.json({ random: random(1).length });
  }
  return new Response("not found", { status: 404 });
}
