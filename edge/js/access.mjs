// Cloudflare Access: the signature of its token, checked with WebCrypto against the team's keys. What a token says, the
// core judges.

/** Keys are fetched again after this, and for a key that is not known: a team's keys turn every six weeks. */
const KEYS_TTL_MS = 3_600_000;
/** Not more often than this: a stranger's made-up key id must not make us ask each time. */
const FETCH_PAUSE_MS = 30_000;
const FETCH_TIMEOUT_MS = 5_000;
const RSA = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };

let keys = new Map();
let fetchedAt = -Infinity;

/** The claims of the request's token, as text; `null` without a token that the team has signed. */
export async function vouchedFor(request, env) {
  const token = request.headers.get("cf-access-jwt-assertion");
  const team = env.TALLYGATE_ACCESS_TEAM_DOMAIN;
  if (token === null || !team || !new URL(request.url).pathname.startsWith("/dashboard/sign-in")) return null;
  try {
    const [head, claims, signature, ...more] = token.split(".");
    const { alg, kid } = JSON.parse(text(head));
    if (alg !== "RS256" || more.length > 0) return null;
    const key = await keyOf(kid, team, env);
    if (key === undefined) return null;
    const signed = new TextEncoder().encode(`${head}.${claims}`);
    return (await crypto.subtle.verify(RSA, key, bytes(signature), signed)) ? text(claims) : null;
  } catch (error) {
    console.error(JSON.stringify({ event: "access_token_unreadable", error: String(error?.name) }));
    return null;
  }
}

async function keyOf(kid, team, env) {
  const age = Date.now() - fetchedAt;
  if ((keys.has(kid) && age < KEYS_TTL_MS) || age < FETCH_PAUSE_MS) return keys.get(kid);
  fetchedAt = Date.now();
  // Only a test runtime asks a team that is not behind TLS.
  const origin = env.TALLYGATE_FAULTS === "on" && team.startsWith("http://") ? team : `https://${team}`;
  const answer = await fetch(`${origin}/cdn-cgi/access/certs`, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
  if (!answer.ok) return keys.get(kid);
  const { keys: listed } = await answer.json();
  const rsa = listed.filter(({ kty }) => kty === "RSA");
  const imported = rsa.map(async ({ kid: id, kty, n, e }) => [
    id,
    await crypto.subtle.importKey("jwk", { kty, n, e, alg: "RS256", ext: true }, RSA, false, ["verify"]),
  ]);
  keys = new Map(await Promise.all(imported));
  return keys.get(kid);
}

function bytes(base64url) {
  const plain = atob(base64url.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (char) => char.charCodeAt(0));
}

const text = (base64url) => new TextDecoder().decode(bytes(base64url));
