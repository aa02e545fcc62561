// The control plane's awaits: one admin request to the object that owns the resource, and from there to the Meters or
// Ledgers that it asks for. The core routes, authorises and answers.

import { readPart } from "./archive.mjs";
import { configure, inCore } from "./core.mjs";
import { fileOf, storeFile, sweep } from "./files.mjs";

/** The largest admin request: a whole configuration, or an import of a public price map (about 2 MB). */
const MAX_BODY_BYTES = 8 * 1024 * 1024;
/** Budgets corrected at the same time: a Worker has a limit of connections. */
const CALLS_AT_ONCE = 32;

/** Answers one request to `/api/v1/...`. */
export async function administer(request, env) {
  configure(env);
  const requestId = crypto.randomUUID();
  try {
    const { method, url, headers } = request;
    const { pathname, search } = new URL(url);
    // Whose hash is signed is stored as it comes, and not read here.
    const hash = headers.get("x-tallygate-content-sha256");
    const body = hash === null ? await readText(request) : "";
    const call = inCore((glue) =>
      glue.admin_call(
        JSON.stringify({
          method,
          path: pathname,
          query: search.slice(1),
          body: body ?? "",
          body_too_large: body === null,
          authorization: headers.get("authorization"),
          accept: headers.get("accept") ?? "",
          signed: signatureOf(headers),
          content_sha256: hash,
          content_length: lengthOf(headers),
          request_id: requestId,
        }),
      ),
    );
    return respond(await carryOut(JSON.parse(call), env, request.body), requestId);
  } catch (error) {
    console.error(JSON.stringify({ event: "admin_failed", request_id: requestId, error: String(error) }));
    return respond(JSON.parse(inCore((glue) => glue.admin_failed(requestId))), requestId);
  }
}

/** Follows the core's instructions until there is an answer. `content`: a body that is stored as it comes. */
export async function carryOut(first, env, content) {
  let step = first;
  for (;;) {
    switch (step.do) {
      case "respond":
        return step;
      case "directory":
        step = JSON.parse(await env.DIRECTORY.getByName("directory").handle(step.call));
        break;
      case "workspace":
        step = JSON.parse(await env.WORKSPACE.getByName(step.name).handle(step.call));
        break;
      case "meter":
        return {
          status: 200,
          content_type: "application/json",
          body: await env.METER.getByName(step.name).ask(step.method, step.payload),
        };
      case "budget":
        return {
          status: 200,
          content_type: "application/json",
          body: await env.BUDGET.getByName(step.name).status(step.call),
        };
      case "telemetry":
        step = JSON.parse(await env.TELEMETRY.getByName(step.name).query(step.name, step.method, step.payload));
        break;
      case "alerts":
        step = JSON.parse(await env.ALERTS.getByName(step.name).query(step.method, step.payload));
        break;
      case "true_up":
        return json(await env.LEDGER.getByName(step.ledger).trueUp(step.payload));
      case "correct":
        for (let from = 0; from < step.calls.length; from += CALLS_AT_ONCE) {
          const calls = step.calls.slice(from, from + CALLS_AT_ONCE);
          await Promise.all(calls.map(({ account, payload }) => env.BUDGET.getByName(account).correct(payload)));
        }
        await env.WORKSPACE.getByName(step.name).corrected(step.record);
        return json(JSON.stringify({ taken: step.calls.length }));
      case "findings":
        await env.ALERTS.getByName(step.name).findings(step.payload);
        return json("{}");
      case "deliver":
        for (const { object, name, method, payload } of step.calls) {
          await env[object].getByName(name)[method](payload);
        }
        return json(step.body);
      case "export":
        return exportOf(env, step);
      case "store":
        step = step[await storeFile(env.ARCHIVE, step, content)];
        break;
      case "sweep":
        await sweep(env.ARCHIVE, step);
        step = step.next;
        break;
      case "fetch": {
        const file = await fileOf(env.ARCHIVE, step);
        if (file !== undefined) return file;
        step = step.missing;
        break;
      }
      case "ledgers": {
        const answers = await Promise.all(
          step.names.map((name) => env.LEDGER.getByName(name).query(step.method, step.payload)),
        );
        const refused = step.method === "request" && (await findArchived(env.ARCHIVE, step.payload, answers));
        step = refused || JSON.parse(inCore((glue) => glue.admin_merge(step.method, step.payload, JSON.stringify(answers))));
        break;
      }
      default:
        throw new Error(`the core asked for an unknown step: ${step.do}`);
    }
  }
}

function json(body) {
  return { status: 200, content_type: "application/json", body };
}

/** The headers of a signed call; `undefined` when it is not signed. */
function signatureOf(headers) {
  const signature = headers.get("x-tallygate-signature");
  if (signature === null) return undefined;
  const header = (name) => headers.get(`x-tallygate-${name}`) ?? "";
  return { key_id: header("key-id"), timestamp: header("timestamp"), nonce: header("nonce"), signature };
}

/** How long the body is; `null` where its headers do not say. */
function lengthOf(headers) {
  const length = headers.get("content-length");
  return length === null ? null : Number(length);
}

/** Looks for a request's record where a Ledger names parts that may have it; it then stands for that Ledger's answer. */
async function findArchived(bucket, query, answers) {
  for (const [place, answer] of answers.entries()) {
    for (const part of JSON.parse(answer).parts ?? []) {
      const read = await readPart(bucket, part.name);
      const found = inCore((glue) => glue.record_in(JSON.stringify(part), ...read, query));
      const step = JSON.parse(found);
      if (step.do !== undefined) return step;
      if (step.data.length === 0) continue;
      answers[place] = found;
      break;
    }
  }
  return undefined;
}

/**
 * Streams lines, and a closing line, as the core puts them together of pages and of the archive's parts. What breaks off
 * has no closing line: the reader then goes on from its last.
 */
async function exportOf(env, { ledger, method, payload }) {
  const object = env.LEDGER.getByName(ledger);
  const core = inCore((glue) => new glue.Export(payload));
  // Goes on until there is something to send. Before anything was sent, a failure can be answered.
  const advance = async () => {
    for (;;) {
      const next = JSON.parse(inCore(() => core.proceed()));
      if (next.do === "ask") {
        const answer = await object.query(method, next.payload);
        inCore(() => core.page(answer));
      } else if (next.do === "read") {
        const read = await readPart(env.ARCHIVE, next.name);
        inCore(() => core.part(...read));
      } else {
        return next;
      }
    }
  };
  let next = await advance();
  if (next.do === "fail") return { status: next.status, content_type: "application/problem+json", body: next.body };
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    async pull(controller) {
      next ??= await advance();
      if (next.do === "fail") {
        console.error(JSON.stringify({ event: "export_broken_off", problem: next.body }));
        controller.error(new Error("the export broke off"));
        return;
      }
      controller.enqueue(encoder.encode(next.lines ?? next.line));
      if (next.do === "end") controller.close();
      next = undefined;
    },
  });
  return { status: 200, content_type: "application/x-ndjson", body };
}

function respond({ status, content_type, headers, body }, requestId) {
  const all = { ...headers, "content-type": content_type, "x-tallygate-request-id": requestId };
  return new Response(status === 204 ? null : body, { status, headers: all });
}

/** The body as text, or `null` when it is too large. */
async function readText(request) {
  if (request.body === null) return "";
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_BYTES) return null;
  const bytes = await request.arrayBuffer();
  return bytes.byteLength > MAX_BODY_BYTES ? null : new TextDecoder().decode(bytes);
}
