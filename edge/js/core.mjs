// The Rust core as a WebAssembly instance: it decides, this file keeps it alive. Every call into it is synchronous.
//
// A panic in Rust traps and leaves the instance unusable. The instance is then replaced at once. Objects of the old
// instance throw when they are used; their owners know how to go on without them (see guard.mjs and objects.mjs), so a
// panic in one request loses no other request and no settlement.

import * as glue from "./edge.js";
import wasm from "./edge_bg.wasm";

glue.initSync({ module: wasm });

let settings;

/** Gives the core its settings, once for each instance. `env` is the same for every request of an isolate. */
export function configure(env) {
  if (settings !== undefined) return;
  settings = JSON.stringify({
    key_ring: env.TALLYGATE_KEY_RING ?? "",
    operator_token: env.TALLYGATE_OPERATOR_TOKEN ?? "",
    faults: env.TALLYGATE_FAULTS === "on",
    access_team_domain: env.TALLYGATE_ACCESS_TEAM_DOMAIN ?? "",
    access_audience: env.TALLYGATE_ACCESS_AUD ?? "",
    oidc_issuer: env.TALLYGATE_OIDC_ISSUER ?? "",
    oidc_client_id: env.TALLYGATE_OIDC_CLIENT_ID ?? "",
    allow_private_delivery: env.TALLYGATE_ALLOW_PRIVATE_DELIVERY === "on",
    archive: env.ARCHIVE !== undefined,
    kept_events: env.TALLYGATE_KEPT_EVENTS ?? "",
  });
  glue.configure(settings);
}

let clockOffsetMs = 0;

/** The time. Only a test runtime (TALLYGATE_FAULTS=on) ever moves it. */
export const now = () => Date.now() + clockOffsetMs;

/** Moves this isolate's clock, for tests. */
export function advanceClock(ms) {
  clockOffsetMs += ms;
}

/** Random bytes for ids, nonces and draws: the core draws none itself. */
export const random = (length) => crypto.getRandomValues(new Uint8Array(length));

/** True for the errors that mean "this instance of the core is gone", not "the core says no". */
export function isDeath(error) {
  return error instanceof WebAssembly.RuntimeError || /stale object|null pointer passed to rust/.test(error?.message);
}

/** Runs one synchronous call into the core. When it traps, the instance is replaced before the error goes on. */
export function inCore(work) {
  try {
    return work(glue);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) {
      console.error(JSON.stringify({ event: "core_died", error: String(error.message) }));
      glue.__wbg_reset_state();
      if (settings !== undefined) glue.configure(settings);
    }
    throw error;
  }
}
