// An R2 bucket over a directory, for gateways that run on this machine: the runtime turns each operation of the binding
// into an HTTP request, and this Worker answers those that the gateway makes (put, get, head and delete of whole objects,
// and lists that fit one page).
//
// A request is a GET whose `cf-r2-request` header is its JSON, or a PUT whose body begins with it; `cf-r2-metadata-size`
// says how long it is. Each object is one file of the same name, so a test can break one.

const NO_SUCH_OBJECT = [404, 10007, "The specified key does not exist."];
const BAD_DIGEST = [400, 10037, "The checksum that was specified did not match what was received."];
const PRECONDITION_FAILED = [412, 10031, "At least one of the pre-conditions you specified did not hold."];
const NOT_IMPLEMENTED = [501, 10062, "The local bucket does not know this operation."];

export default {
  async fetch(request, env) {
    if (request.method === "PUT") {
      const body = new Uint8Array(await request.arrayBuffer());
      const size = Number(request.headers.get("cf-r2-metadata-size"));
      const asked = JSON.parse(new TextDecoder().decode(body.subarray(0, size)));
      if (asked.method === "put") return put(env.FILES, asked, body.subarray(size));
      if (asked.method === "delete") return remove(env.FILES, asked.objects ?? [asked.object]);
      return failed(NOT_IMPLEMENTED);
    }
    const asked = JSON.parse(request.headers.get("cf-r2-request"));
    if (asked.method === "list") return list(env.FILES, asked);
    const partial = asked.range !== undefined || asked.rangeHeader !== undefined || asked.onlyIf !== undefined;
    if (partial || !["get", "head"].includes(asked.method)) return failed(NOT_IMPLEMENTED);
    const bytes = await read(env.FILES, asked.object);
    if (bytes === null) return failed(NO_SUCH_OBJECT);
    return found(asked.object, bytes, asked.method === "get");
  },
};

async function put(files, asked, bytes) {
  const { object, onlyIf, sha256 } = asked;
  const unless = onlyIf?.etagDoesNotMatch ?? [];
  if (unless.some((tag) => tag.type !== "wildcard")) return failed(NOT_IMPLEMENTED);
  if (unless.length > 0 && (await read(files, object)) !== null) return failed(PRECONDITION_FAILED);
  if (sha256 !== undefined && sha256 !== (await digest("SHA-256", bytes))) return failed(BAD_DIGEST);
  const answer = await files.fetch(address(object), { method: "PUT", body: bytes });
  if (!answer.ok) throw new Error(`${object}: the directory answered ${answer.status}`);
  return found(object, bytes, false);
}

async function remove(files, objects) {
  for (const object of objects) await files.fetch(address(object), { method: "DELETE" });
  return new Response();
}

async function list(files, asked) {
  if (asked.delimiter !== undefined || asked.cursor !== undefined) return failed(NOT_IMPLEMENTED);
  const prefix = asked.prefix ?? "";
  const names = (await namesIn(files, prefix.slice(0, prefix.lastIndexOf("/") + 1))).filter((name) => name.startsWith(prefix));
  const objects = await Promise.all(names.sort().map(async (name) => described(name, await read(files, name))));
  return answered({ objects, truncated: false, delimitedPrefixes: [] });
}

/** The names of all files in a folder and in those below it. */
async function namesIn(files, folder) {
  const answer = await files.fetch(address(folder));
  if (answer.status === 404) return [];
  const entries = await answer.json();
  const nested = entries.map(({ name, type }) => (type === "directory" ? namesIn(files, `${folder}${name}/`) : [`${folder}${name}`]));
  return (await Promise.all(nested)).flat();
}

const address = (object) => `http://files/${object}`;

async function read(files, object) {
  const answer = await files.fetch(address(object));
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${object}: the directory answered ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function digest(name, bytes) {
  return new Uint8Array(await crypto.subtle.digest(name, bytes)).toHex();
}

/** An object's description, and its bytes behind it where they were asked for. */
async function found(name, bytes, whole) {
  return answered(await described(name, bytes), whole ? [bytes] : []);
}

async function described(name, bytes) {
  const etag = await digest("MD5", bytes);
  return {
    name,
    version: etag,
    size: bytes.byteLength,
    etag,
    uploaded: Date.now(),
    httpFields: {},
    customFields: [],
    range: { offset: 0, length: bytes.byteLength },
    checksums: { 0: etag, 2: await digest("SHA-256", bytes) },
  };
}

function answered(metadata, content = []) {
  const head = new TextEncoder().encode(JSON.stringify(metadata));
  const headers = { "cf-r2-metadata-size": String(head.byteLength), "content-type": "application/json" };
  return new Response(new Blob([head, ...content]), { headers });
}

function failed([status, v4code, message]) {
  return new Response(null, { status, headers: { "cf-r2-error": JSON.stringify({ version: 1, v4code, message }) } });
}
