// The dashboard's awaits: a page names calls of the admin API, they are made here with the session's rights, and from
// their answers the core makes the page.

import { vouchedFor } from "./access.mjs";
import { carryOut } from "./admin.mjs";
import { configure, inCore, now, random } from "./core.mjs";
import { discovered, exchanged } from "./oidc.mjs";

/** The largest form: a whole configuration. */
const MAX_FORM_BYTES = 2 * 1024 * 1024;
/** The most rounds that a page takes; one that wants more is wrong. */
const MAX_ROUNDS = 8;
const OIDC_START = "/dashboard/sign-in/oidc";
const ASSETS = "/dashboard/assets/";
const TYPES = { css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8", svg: "image/svg+xml" };

/** Whether a path is the dashboard's. */
export const isDashboard = (path) => /^\/($|\?|dashboard($|[/?]))/.test(path);

/** Answers one request to the dashboard. */
export async function showDashboard(request, env) {
  const { pathname } = new URL(request.url);
  if (pathname.startsWith(ASSETS)) return asset(request, env, pathname);
  configure(env);
  const requestId = crypto.randomUUID();
  try {
    return await page(request, env, requestId);
  } catch (error) {
    console.error(JSON.stringify({ event: "dashboard_failed", request_id: requestId, error: String(error) }));
    const text = `The gateway failed on this page (${requestId}). Load it again.`;
    return new Response(text, { status: 500, headers: { "content-type": "text/plain; charset=utf-8" } });
  }
}

async function page(request, env, requestId) {
  const { method, url, headers } = request;
  const form = await readForm(request);
  const said = {
    method,
    url,
    cookie: headers.get("cookie"),
    origin: headers.get("origin"),
    fetch_site: headers.get("sec-fetch-site"),
    address: headers.get("cf-connecting-ip"),
    access: await vouchedFor(request, env),
    body: form ?? "",
    body_too_large: form === null,
    request_id: requestId,
  };
  if (method === "POST" && new URL(url).pathname === OIDC_START && env.TALLYGATE_OIDC_ISSUER) {
    said.oidc = await discovered(env);
    said.random = btoa(String.fromCharCode(...random(96))).replaceAll("+", "-").replaceAll("/", "_");
  }
  const rounds = [];
  while (rounds.length < MAX_ROUNDS) {
    const step = JSON.parse(inCore((glue) => glue.dashboard(JSON.stringify(said), JSON.stringify(rounds), now())));
    if (step.do === "respond") {
      return new Response(step.body, { status: step.status, headers: new Headers(step.headers) });
    }
    if (step.do === "file") {
      const { status, content_type, headers, body } = await carryOut(step.first, env);
      if (typeof body !== "string") {
        const all = { ...headers, "content-type": content_type, "cache-control": "no-store" };
        return new Response(body, { status, headers: all });
      }
      rounds.push([{ status, body }]);
      continue;
    }
    if (step.do === "exchange") {
      // A code is exchanged once: with an answer in hand the core goes on.
      if (said.oidc !== undefined) throw new Error("the page asked for a second token");
      said.oidc = await exchanged(step, env);
      continue;
    }
    rounds.push(await Promise.all(step.steps.map((first) => answerOf(first, env, requestId))));
  }
  throw new Error("the page asked for too many rounds of calls");
}

/** One call's answer. A call that fails is a part of the page that is missing, not the page. */
async function answerOf(first, env, requestId) {
  try {
    const { status, body } = await carryOut(first, env);
    if (typeof body === "string") return { status, body };
    await body.cancel();
    throw new Error("a stream is no answer for a page");
  } catch (error) {
    console.error(JSON.stringify({ event: "dashboard_call_failed", request_id: requestId, error: String(error) }));
    const { status, body } = JSON.parse(inCore((glue) => glue.admin_failed(requestId)));
    return { status, body };
  }
}

/** The form's text, or `null` when it is too large. */
async function readForm(request) {
  if (request.method !== "POST" || request.body === null) return "";
  if (Number(request.headers.get("content-length") ?? 0) > MAX_FORM_BYTES) return null;
  const bytes = await request.arrayBuffer();
  return bytes.byteLength > MAX_FORM_BYTES ? null : new TextDecoder().decode(bytes);
}

/** A static file. The platform serves what is there by itself; the plain runtime asks us. */
async function asset(request, env, pathname) {
  const type = TYPES[pathname.split(".").at(-1)];
  if (type === undefined || request.method !== "GET") return new Response("not found", { status: 404 });
  const file = await env.ASSETS.fetch(new Request(request.url));
  if (file.status !== 200) return new Response("not found", { status: 404 });
  const headers = { "content-type": type, "cache-control": "public, max-age=300", "x-content-type-options": "nosniff" };
  return new Response(file.body, { headers });
}
