// JSON Web Tokens that others sign: the signature, checked with WebCrypto against their published keys. What a token
// says, the core judges.

/** Keys are fetched again after this, and for a key that is not known. */
const KEYS_TTL_MS = 3_600_000;
/** Not more often than this: a stranger's made-up key id must not make us ask each time. */
const FETCH_PAUSE_MS = 30_000;
const FETCH_TIMEOUT_MS = 5_000;

const ALGORITHMS = {
  RS256: { kty: "RSA", key: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, sign: { name: "RSASSA-PKCS1-v1_5" } },
  ES256: { kty: "EC", key: { name: "ECDSA", namedCurve: "P-256" }, sign: { name: "ECDSA", hash: "SHA-256" } },
};

/** One issuer's keys, fetched when they are needed. */
export class Keys {
  #keys = [];
  #fetchedAt = -Infinity;

  /** The key of this id and algorithm; a token that names none is of the only one there is. */
  async of(kid, alg, url) {
    const age = Date.now() - this.#fetchedAt;
    const known = this.#find(kid, alg);
    if ((known !== undefined && age < KEYS_TTL_MS) || age < FETCH_PAUSE_MS) return known;
    this.#fetchedAt = Date.now();
    const answer = await fetchJson(url);
    if (answer !== undefined) this.#keys = await imported(answer.keys ?? []);
    return this.#find(kid, alg);
  }

  #find(kid, alg) {
    const fit = this.#keys.filter((it) => it.alg === alg && (kid === undefined || it.kid === kid));
    return kid === undefined && fit.length !== 1 ? undefined : fit[0]?.key;
  }
}

function imported(listed) {
  const usable = Object.entries(ALGORITHMS).flatMap(([alg, { kty, key }]) =>
    listed
      .filter((it) => it.kty === kty && (it.use ?? "sig") === "sig" && (kty === "RSA" || it.crv === key.namedCurve))
      .map(async ({ kid, n, e, crv, x, y }) => {
        const jwk = kty === "RSA" ? { kty, n, e } : { kty, crv, x, y };
        return { kid, alg, key: await crypto.subtle.importKey("jwk", { ...jwk, ext: true }, key, false, ["verify"]) };
      }),
  );
  return Promise.all(usable);
}

/** The claims of a token that one of these keys has signed, as text; `null` otherwise. */
export async function verified(token, algorithms, keys, url) {
  const [head, claims, signature, ...more] = token.split(".");
  const { alg, kid } = JSON.parse(text(head));
  if (!algorithms.includes(alg) || more.length > 0) return null;
  const key = await keys.of(kid, alg, url);
  if (key === undefined) return null;
  const signed = new TextEncoder().encode(`${head}.${claims}`);
  const good = await crypto.subtle.verify(ALGORITHMS[alg].sign, key, bytes(signature), signed);
  return good ? text(claims) : null;
}

/** A document of an issuer; `undefined` when there is none to be had. */
export async function fetchJson(url, init = {}) {
  const answer = await fetch(url, { ...init, redirect: "manual", signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
  if (answer.status === 200) return answer.json();
  await answer.body?.cancel();
  return undefined;
}

function bytes(base64url) {
  const plain = atob(base64url.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (char) => char.charCodeAt(0));
}

const text = (base64url) => new TextDecoder().decode(bytes(base64url));
