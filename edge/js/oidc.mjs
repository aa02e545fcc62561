// An OpenID provider: where it is, the token of a code, and the token's signature. What a token says, the core judges.

import { Keys, fetchJson, verified } from "./jwt.mjs";

/** Its addresses are asked for again after this. */
const DISCOVERY_TTL_MS = 3_600_000;

const keys = new Keys();
let discovery;
let discoveredAt = -Infinity;

/** Where people sign in at the provider. */
export async function discovered(env) {
  try {
    const { authorization_endpoint } = await discover(env);
    return { said: "discovered", authorization_endpoint };
  } catch (error) {
    return failure(error);
  }
}

/** What the token of a code says. */
export async function exchanged({ code, verifier, redirect_uri }, env) {
  try {
    const { token_endpoint, jwks_uri, token_endpoint_auth_methods_supported: methods } = await discover(env);
    const { TALLYGATE_OIDC_CLIENT_ID: id, TALLYGATE_OIDC_CLIENT_SECRET: secret } = env;
    const form = new URLSearchParams({ grant_type: "authorization_code", code, redirect_uri, code_verifier: verifier });
    const headers = { "content-type": "application/x-www-form-urlencoded", accept: "application/json" };
    if (secret && (methods ?? ["client_secret_basic"]).includes("client_secret_basic")) {
      headers.authorization = `Basic ${btoa(`${encodeURIComponent(id)}:${encodeURIComponent(secret)}`)}`;
    } else {
      form.set("client_id", id);
      if (secret) form.set("client_secret", secret);
    }
    const answer = await fetchJson(token_endpoint, { method: "POST", headers, body: form.toString() });
    if (typeof answer?.id_token !== "string") return { said: "failed", why: "it gave no token for this sign-in" };
    const claims = await verified(answer.id_token, ["RS256", "ES256"], keys, jwks_uri);
    if (claims === null) return { said: "failed", why: "its token is not signed by its keys" };
    return { said: "vouched", claims };
  } catch (error) {
    return failure(error);
  }
}

async function discover(env) {
  const issuer = env.TALLYGATE_OIDC_ISSUER;
  if (discovery?.issuer === issuer && Date.now() - discoveredAt < DISCOVERY_TTL_MS) return discovery;
  const found = await fetchJson(`${checked(issuer, env).replace(/\/$/, "")}/.well-known/openid-configuration`);
  // A document of another issuer would have us believe that one's keys.
  if (found?.issuer !== issuer) throw new TypeError("not the issuer's document");
  for (const name of ["authorization_endpoint", "token_endpoint", "jwks_uri"]) checked(found[name], env);
  [discovery, discoveredAt] = [found, Date.now()];
  return discovery;
}

/** An address of the provider. Only a test runtime uses one that is not behind TLS. */
function checked(address, env) {
  const { protocol } = new URL(address);
  if (protocol === "https:" || (env.TALLYGATE_FAULTS === "on" && protocol === "http:")) return address;
  throw new TypeError("an address without TLS");
}

function failure(error) {
  console.error(JSON.stringify({ event: "oidc_failed", error: String(error?.name) }));
  return { said: "failed", why: error?.name === "TimeoutError" ? "it does not answer" : "its answers cannot be used" };
}
